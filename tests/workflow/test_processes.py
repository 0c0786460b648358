"""A stage on two GPUs: two processes share the batch, and learn what one learns. Without GPUs they use the CPU."""

import copy
from pathlib import Path

import pytest

from tests.train.stages import read_losses
from tests.workflow.running import read_recipe, snakemake, write_recipe

pytestmark = pytest.mark.slow


def test_two_processes_learn_what_one_learns(finished: Path, tmp_path: Path) -> None:
    recipe = copy.deepcopy(read_recipe("smoke"))
    recipe["stages"]["sft"]["args"]["per_device_train_batch_size"] //= 2
    recipe["resources"] = {"train": {"gpus": 2}}
    run = snakemake(tmp_path, "sft", "--configfile", write_recipe(tmp_path, recipe), "--cores", "2")
    assert run.returncode == 0, run.stdout[-3000:]
    steps = "results/smoke/training/sft.parquet"
    assert read_losses(tmp_path / steps) == pytest.approx(read_losses(finished / steps), abs=1e-4)
