"""Stages to train on a Slurm, and what to see of them from outside."""

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
"""What training of the stage sft waits for."""


LOG = "logs/smoke/train_sft/sft.log"


def smoke(**resources: Any) -> dict[str, Any]:
    """The smoke recipe with these resources."""
    return copy.deepcopy(read_recipe("smoke")) | {"resources": resources}


def long_stage(steps: int = 300, **train: Any) -> dict[str, Any]:
    """A stage that takes about a minute for 200 steps, and saves now and then."""
    recipe = smoke(train={"gpus": 1} | train)
    recipe["stages"]["sft"]["args"] |= {"max_steps": steps, "save_steps": 20}
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
    with suppress(FileNotFoundError):
        return (head.folder / LOG).read_text()
    return ""


def told_steps(log: str) -> list[int]:
    """The steps that a log of the stage tells of, every five seconds."""
    return [int(step) for step in re.findall(r": (\d+)/\d+ steps", log)]


def resumed_step(log: str) -> int | None:
    """The step that a job of the stage went on from; nothing when it began anew, or has not said so yet."""
    found = re.search(r"going on from checkpoint-(\d+)", log)
    return int(found[1]) if found else None


def describe_allocations(head: Head) -> str:
    """What the ends of the jobs that trained the stage cost: steps, and seconds until the next one started."""
    folder = head.folder / ".snakemake/slurm_logs/rule_train_sft/sft"
    logs = sorted(folder.glob("*.log"), key=lambda log: int(log.stem))
    said = [log.read_text() for log in logs]
    gone_on = [(max(told_steps(one)), resumed_step(then)) for one, then in pairwise(said) if told_steps(one)]
    lost = [max(0, told - step) for told, step in gone_on if step is not None]
    numbers = ",".join(log.stem for log in logs)
    table = head.cluster.ask("sacct", "-X", "-n", "-P", "-j", numbers, "-o", "Start,End")
    times = [[datetime.fromisoformat(moment) for moment in line.split("|")] for line in table.splitlines()]
    waits = [(then[0] - one[1]).total_seconds() for one, then in pairwise(times)]
    return f"{len(logs)} allocations, {max(lost)} steps lost at most, {min(waits):.0f} to {max(waits):.0f} s between"


def hash_of_weights(head: Head) -> str:
    """SHA-256 of the weights of the stage sft."""
    return str(read_json(head.folder / "work/smoke/models/sft/manifest.json")["facts"]["weights_sha256"])
