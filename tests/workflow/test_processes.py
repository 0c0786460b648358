"""A stage on two GPUs or two machines, here on CPUs: two processes share the batch and learn what one learns."""

import copy
import os
import shutil
from pathlib import Path

import pytest

from scripts.common.files import read_json
from tests.train.stages import read_losses
from tests.workflow.running import read_recipe, snakemake, write_recipe

pytestmark = pytest.mark.long


def test_two_processes_learn_what_one_learns(finished: Path, tmp_path: Path) -> None:
    recipe = copy.deepcopy(read_recipe("smoke"))
    recipe["stages"]["sft"]["args"]["per_device_train_batch_size"] //= 2
    recipe["resources"] = {"train": {"gpus": 2}}
    run = snakemake(tmp_path, "sft", "--configfile", write_recipe(tmp_path, recipe), "--cores", "2")
    assert run.returncode == 0, run.stdout[-3000:]
    steps = "results/smoke/training/sft.parquet"
    assert read_losses(tmp_path / steps) == pytest.approx(read_losses(finished / steps), abs=1e-4)


SRUN = """#!/bin/sh
# In place of SLURM's srun: starts the command once for each of --nodes, all on this machine.
nodes=$2
while [ "$1" != torchrun ]; do shift; done
for node in $(seq "$nodes"); do "$@" & tasks="$tasks $!"; done
for task in $tasks; do wait "$task" || exit 1; done
"""


def _write_two_machines(folder: Path) -> Path:
    recipe = copy.deepcopy(read_recipe("smoke"))
    recipe["stages"]["sft"]["args"]["per_device_train_batch_size"] //= 2
    recipe["resources"] = {"train": {"nodes": 2}}
    return write_recipe(folder, recipe)


@pytest.mark.skipif(shutil.which("srun") is not None, reason="SLURM is installed here, so two machines are not refused")
def test_two_machines_without_slurm_are_refused(tmp_path: Path) -> None:
    refused = snakemake(tmp_path, "sft", "--configfile", _write_two_machines(tmp_path), "--cores", "2")
    assert "error: resources.train.nodes: 2 machines need SLURM's srun, which is not installed here" in refused.stdout


def test_two_machines_learn_what_one_learns(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that SLURM would run: one torchrun for each machine, connected through a rendezvous address."""
    path = _write_two_machines(tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text(SRUN)
    (tools / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", str(os.getpid()))  # its last digits determine the port
    run = snakemake(tmp_path, "sft", "--configfile", path, "--cores", "2")
    assert run.returncode == 0, run.stdout[-3000:]
    steps = "results/smoke/training/sft.parquet"
    assert read_losses(tmp_path / steps) == pytest.approx(read_losses(finished / steps), abs=1e-4)
    facts = read_json(tmp_path / "work/smoke/models/sft/manifest.json")["facts"]
    assert facts["processes"] == 2
