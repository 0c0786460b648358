"""lm-eval's tasks in our jobs, without a network: the same scores as with its command line, to the last digit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.common.files import read_json
from scripts.common.manifest import find_model
from tests.common.running import OWN_TASKS, script_command, script_environment
from tests.evaluate.hub import write_hub

pytestmark = pytest.mark.long

STOCK = {
    "mmlu_anatomy": ("acc", "none"),
    "hellaswag": ("acc_norm", "none"),
    "arc_challenge": ("acc_norm", "none"),
    "winogrande": ("acc", "none"),
    "piqa": ("acc_norm", "none"),
    "commonsense_qa": ("acc", "none"),
    "minerva_math500": ("math_verify", "none"),
}
"""Metric and filter of benchmarks with rows of our own."""

REAL = {
    "gsm8k": ("exact_match", "flexible-extract"),
    "ifeval": ("prompt_level_strict_acc", "none"),
    "humaneval": ("pass@1", "create_test"),
}
"""Metric and filter of benchmarks with real questions, from ../shared/data/hub."""

SHORT = 16
"""Tokens of an answer."""

CUT_OFF = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
"""Runs a command without any network."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write_hub(folder)
    return folder


def _run(folder: Path, script: str, **options: Any) -> None:
    command = [*CUT_OFF, *script_command(script, options)]
    run = subprocess.run(
        command, cwd=folder, env=script_environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]


def _score(folder: Path, hub: Path, model: Path, task: str, metric: str, chosen: str) -> dict[str, Any]:
    """Download and run a benchmark with the commands of the rules."""
    source = {"kind": "file", "path": str(hub)}
    config = {"task": task, "metric": metric, "filter": chosen, "limit": 4, "batch_size": 2, "chat_template": False}
    manifest = f"{task}/manifest.json"
    _run(
        folder,
        "evaluate.download_benchmark",
        name=task,
        config={"task": task, "source": source, "unsafe_code": False},
        tasks=OWN_TASKS,
        questions=f"{task}/questions.jsonl",
        mirror=f"{task}/mirror",
        manifest=manifest,
    )
    _run(
        folder,
        "evaluate.run_benchmark",
        name=task,
        config=config | {"source": source, "max_new_tokens": SHORT},
        dtype="float32",
        seed=1234,
        memory_mb=6000,
        cpus=1,
        tasks=OWN_TASKS,
        model=model,
        model_name="base",
        benchmark=manifest,
        mirror=f"{task}/mirror",
        batch_sizes=f"{task}/batch_sizes.json",
        scores=f"{task}.json",
        items=f"{task}.items.jsonl",
    )
    return dict(read_json(folder / f"{task}.json"))


def _theirs(folder: Path, mirror: Path, model: Path, tasks: list[str]) -> dict[str, Any]:
    """Results of lm-eval's command line, run inside the same mirror."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", *tasks, "--limit", "4"]
    command += ["--model_args", f"pretrained={find_model(model).resolve()},dtype=float32", "--batch_size", "2"]
    command += ["--device", "cpu", "--gen_kwargs", f"max_gen_toks={SHORT}", "--output_path", str(folder / "theirs")]
    command += ["--seed", "1234", "--confirm_run_unsafe_code"]
    environment = script_environment() | {"NLTK_DATA": str(mirror / "nltk_data")}
    run = subprocess.run(
        [*CUT_OFF, *command], cwd=mirror, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (path,) = (folder / "theirs").rglob("results_*.json")
    return dict(json.loads(path.read_text(encoding="utf-8"))["results"])


def test_seven_benchmarks_with_rows_of_our_own(tmp_path: Path, hub: Path, tiny_model: Path) -> None:
    ours = {task: _score(tmp_path, hub, tiny_model, task, *how) for task, how in STOCK.items()}
    theirs = _theirs(tmp_path, tmp_path / "piqa" / "mirror", tiny_model, list(STOCK))
    for task, (metric, chosen) in STOCK.items():
        assert ours[task]["score"] == theirs[task][f"{metric},{chosen}"], task
    assert {score["n"] for score in ours.values()} == {4}


def test_three_benchmarks_with_real_questions(tmp_path: Path, real_hub: Path, tiny_model: Path) -> None:
    ours = {task: _score(tmp_path, real_hub, tiny_model, task, *how) for task, how in REAL.items()}
    shutil.copytree(tmp_path / "ifeval" / "mirror" / "nltk_data", tmp_path / "humaneval" / "mirror" / "nltk_data")
    theirs = _theirs(tmp_path, tmp_path / "humaneval" / "mirror", tiny_model, list(REAL))
    for task, (metric, chosen) in REAL.items():
        assert ours[task]["score"] == theirs[task][f"{metric},{chosen}"], task
        assert ours[task]["n"] == 4
