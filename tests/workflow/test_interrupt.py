"""After Ctrl-C in the middle of training, the next run resumes from the checkpoint."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.workflow.running import REPOSITORY, read_recipe, snakemake, write_recipe

pytestmark = pytest.mark.long
STEPS = 120


def test_the_next_run_resumes_after_ctrl_c(tmp_path: Path) -> None:
    recipe = copy.deepcopy(read_recipe("smoke"))
    recipe["stages"]["sft"]["args"] |= {"max_steps": STEPS, "save_strategy": "no"}
    path = write_recipe(tmp_path, recipe)
    command = [sys.executable, "-m", "snakemake", "--snakefile", REPOSITORY / "Snakefile", "--directory", tmp_path]
    arguments: list[str | Path] = ["sft", "--configfile", path, "--cores", "2"]
    # In a new session, so that the signal reaches Snakemake and its jobs, as Ctrl-C in a terminal does, but not pytest.
    run = subprocess.Popen(
        list(map(str, [*command, *arguments])), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    log = tmp_path / "logs/smoke/train_sft/sft.log"
    deadline = time.monotonic() + 180
    while not (log.exists() and log.read_text().count("'loss'") >= 3):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(run.pid, signal.SIGINT)
    output, _ = run.communicate(timeout=120)
    assert run.returncode != 0
    assert b"Traceback" not in output
    checkpoints = list((tmp_path / "work/smoke/models/sft/checkpoints").glob("*/checkpoint-*"))
    assert len(checkpoints) == 1

    again = snakemake(tmp_path, *arguments, "--rerun-incomplete")
    assert again.returncode == 0, again.stdout[-3000:]
    assert f"resuming from {checkpoints[0].name}" in again.stdout
    assert f"{STEPS}/{STEPS} steps" in again.stdout
    assert not checkpoints[0].exists()
