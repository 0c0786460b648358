"""A stage that needs ten minutes and may take one ends in time, over two attempts, and the report says so."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.workflow.running import REPOSITORY, read_recipe, snakemake, write_recipe

pytestmark = pytest.mark.long

LIMIT = 60.0
MINUTES = 10


def test_a_stage_keeps_its_time_limit(finished: Path, tmp_path: Path) -> None:
    steps = pq.read_table(finished / "results/smoke/training/sft.parquet").to_pylist()
    pace = sorted(row["seconds"] for row in steps if row["seconds"] is not None)[3]
    recipe = copy.deepcopy(read_recipe("smoke"))
    rate = recipe["stages"]["sft"]["args"]["learning_rate"]
    recipe["stages"] = {"sft": recipe["stages"]["sft"] | {"time_limit": LIMIT / 3600}}
    recipe["stages"]["sft"]["args"] |= {"max_steps": round(MINUTES * 60 / pace), "lr_scheduler_type": "cosine"}
    recipe["datasets"] = {"sums": recipe["datasets"]["sums"]}
    recipe["expectations"] = {}
    path = write_recipe(tmp_path, recipe)

    command = [sys.executable, "-m", "snakemake", "--snakefile", REPOSITORY / "Snakefile", "--directory", tmp_path]
    arguments: list[str | Path] = ["--configfile", path, "--cores", "2"]
    first = subprocess.Popen(
        list(map(str, [*command, "sft", *arguments])),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    log = tmp_path / "logs/smoke/train_sft/sft.log"
    deadline = time.monotonic() + 180
    while not (log.exists() and log.read_text().count("'loss'") >= 30):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(LIMIT / 4)
    os.killpg(first.pid, signal.SIGINT)
    first.communicate(timeout=120)
    assert first.returncode != 0

    second = snakemake(tmp_path, *arguments, "--rerun-incomplete")
    assert second.returncode == 0, second.stdout[-3000:]
    assert "resuming from checkpoint-" in second.stdout
    facts = json.loads((tmp_path / "work/smoke/models/sft/manifest.json").read_text())["facts"]
    budget = facts["budget"]
    print(f"planned {budget['planned']} steps of {pace:.3f} s, did {facts['steps']} in {budget['seconds']:.1f} s")
    assert budget["planned"] == recipe["stages"]["sft"]["args"]["max_steps"] > 5 * facts["steps"]
    assert (budget["attempts"], budget["stopped"], bool(budget["cuts"])) == (2, False, True)
    assert 0.75 * LIMIT < budget["seconds"] < LIMIT
    rates = [
        row["learning_rate"]
        for row in pq.read_table(tmp_path / "results/smoke/training/sft.parquet").to_pylist()
        if row["learning_rate"] is not None
    ]
    assert len(rates) == facts["steps"]
    assert rates[0] == pytest.approx(rate, rel=0.01) and rates[-1] < 0.05 * rate, "the schedule is complete"
    report = re.sub(r"\s+", " ", (tmp_path / "results/smoke/report.md").read_text().replace("\\", ""))
    assert "it completed the schedule of the learning rate at step" in report and "in 2 attempt(s)" in report
