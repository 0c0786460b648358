"""Stages to train on a Slurm, and what to see of them from outside."""

import copy
import subprocess
from contextlib import suppress
from typing import Any

from scripts.common.files import read_json
from tests.slurm.cluster import wait_for
from tests.slurm.head import Head
from tests.workflow.running import read_recipe

NEEDED = tuple(
    f"work/smoke/{made}" for made in ("datasets/sums/train.parquet", "models/base/manifest.json", "stages/sft.json")
)
"""What training of the stage sft waits for."""


def smoke(**resources: Any) -> dict[str, Any]:
    """The smoke recipe with these resources."""
    return copy.deepcopy(read_recipe("smoke")) | {"resources": resources}


def long_stage(**train: Any) -> dict[str, Any]:
    """A stage that takes about a minute, and saves now and then."""
    recipe = smoke(train={"gpus": 1} | train)
    recipe["stages"]["sft"]["args"] |= {"max_steps": 300, "save_steps": 20}
    return recipe


def wait_for_checkpoint(head: Head) -> None:
    """Wait until the stage sft has a whole checkpoint."""
    kept = head.folder / "work/smoke/models/sft/checkpoints"
    wait_for("a checkpoint", lambda: any(kept.glob("*/checkpoint-*/trainer_state.json")), seconds=600)


def training_job(head: Head) -> str:
    """The number of the job that trains."""
    lines = head.cluster.ask("squeue", "-h", "-o", "%i %Z %k").splitlines()
    (number,) = [line.split()[0] for line in lines if str(head.folder) in line and "rule_train_sft" in line]
    return number


def end_well(process: "subprocess.Popen[str]", seconds: float = 900) -> str:
    """What a head says until it ends well."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output[-5000:]
    return output


def read_log(head: Head) -> str:
    """What the stage sft said in its last attempt; nothing while Snakemake has removed that of the one before."""
    log = head.folder / "logs/smoke/train_sft/sft.log"
    with suppress(FileNotFoundError):
        return log.read_text()
    return ""


def hash_of_weights(head: Head) -> str:
    """SHA-256 of the weights of the stage sft."""
    return str(read_json(head.folder / "work/smoke/models/sft/manifest.json")["facts"]["weights_sha256"])
