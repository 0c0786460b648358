"""A stage on two GPUs: two processes share the batch, and learn what one learns. Without GPUs they use the CPU."""

import copy
import json
from pathlib import Path

import pytest

from tests.workflow.running import read_recipe, snakemake, write_recipe

pytestmark = pytest.mark.slow


def read_losses(folder: Path) -> list[float]:
    lines = (folder / "results/smoke/training/sft.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


def test_two_processes_learn_what_one_learns(finished: Path, tmp_path: Path) -> None:
    recipe = copy.deepcopy(read_recipe("smoke"))
    recipe["stages"]["sft"]["args"]["per_device_train_batch_size"] //= 2
    recipe["resources"] = {"train": {"gpus": 2}}
    run = snakemake(tmp_path, "sft", "--configfile", write_recipe(tmp_path, recipe), "--cores", "2")
    assert run.returncode == 0, run.stdout[-3000:]
    assert read_losses(tmp_path) == pytest.approx(read_losses(finished), abs=1e-3)
