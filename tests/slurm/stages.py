"""Stages to train on Slurm, and helpers that observe them from outside."""

import copy
import re
import subprocess
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import Any

from scripts.common.files import read_json
from tests.slurm.cluster import wait_for
from tests.slurm.head import Head
from tests.workflow.running import read_recipe

NEEDED = tuple(
    f"work/smoke/{made}" for made in ("datasets/sums/train.parquet", "models/base/manifest.json", "stages/sft.json")
)
"""Files that training of the stage sft waits for."""

LOG = "logs/smoke/train_sft/sft.log"


def smoke(**resources: Any) -> dict[str, Any]:
    """The smoke recipe with given resources."""
    return copy.deepcopy(read_recipe("smoke")) | {"resources": resources}


def long_stage(steps: int = 300, **train: Any) -> dict[str, Any]:
    """A recipe whose stage sft trains 200 steps in about a minute and saves every 20 steps."""
    recipe = smoke(train={"gpus": 1} | train)
    recipe["stages"]["sft"]["args"] |= {"max_steps": steps, "save_steps": 20}
    return recipe


def wait_for_checkpoint(head: Head) -> None:
    """Wait until the stage sft has a complete checkpoint."""
    kept = head.folder / "work/smoke/models/sft/checkpoints"
    wait_for("a checkpoint", lambda: any(kept.glob("*/checkpoint-*/trainer_state.json")), seconds=600)


def training_job(head: Head) -> str:
    """The number of the training job."""
    lines = head.cluster.ask("squeue", "-h", "-o", "%i %Z %k").splitlines()
    (number,) = [line.split()[0] for line in lines if str(head.folder) in line and "rule_train_sft" in line]
    return number


def end_well(process: "subprocess.Popen[str]", seconds: float = 900) -> str:
    """Wait until a head ends without an error, and return its output."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output[-5000:]
    return output


def read_log(head: Head) -> str:
    """The log of the last attempt at the stage sft; empty after Snakemake has removed the one of an earlier attempt."""
    with suppress(FileNotFoundError):
        return (head.folder / LOG).read_text()
    return ""


def logged_steps(log: str) -> list[int]:
    """The steps in the progress lines of a log, which the stage writes every five seconds."""
    return [int(step) for step in re.findall(r": (\d+)/\d+ steps", log)]


def resumed_step(log: str) -> int | None:
    """The step from which a job of the stage resumed; None if it started from step 0, or has not logged it yet."""
    found = re.search(r"resuming from checkpoint-(\d+)", log)
    return int(found[1]) if found else None


def describe_allocations(head: Head) -> str:
    """Steps lost at the end of each training job, and seconds until the next job started."""
    folder = head.folder / ".snakemake/slurm_logs/rule_train_sft/sft"
    logs = sorted(folder.glob("*.log"), key=lambda log: int(log.stem))
    texts = [log.read_text() for log in logs]
    resumed = [(max(logged_steps(one)), resumed_step(then)) for one, then in pairwise(texts) if logged_steps(one)]
    lost = [max(0, logged - step) for logged, step in resumed if step is not None]
    numbers = ",".join(log.stem for log in logs)
    table = head.cluster.ask("sacct", "-X", "-n", "-P", "-j", numbers, "-o", "Start,End")
    times = [[datetime.fromisoformat(moment) for moment in line.split("|")] for line in table.splitlines()]
    waits = [(then[0] - one[1]).total_seconds() for one, then in pairwise(times)]
    return (
        f"{len(logs)} allocations, {max(lost)} steps lost at most, {min(waits):.0f} to {max(waits):.0f} s between them"
    )


def hash_of_weights(head: Head) -> str:
    """SHA-256 of the weights of the stage sft."""
    return str(read_json(head.folder / "work/smoke/models/sft/manifest.json")["facts"]["weights_sha256"])
