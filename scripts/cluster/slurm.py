"""What SLURM says of a run, where there is SLURM."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

FIELDS = ("%i", "%T", "%M", "%k", "%Z")


@dataclass(frozen=True)
class Job:
    """A job in the queue.

    Args:
        number: as SLURM counts.
        state: such as `RUNNING` or `PENDING`.
        elapsed: how long it has been running, as SLURM writes it.
        work: rule and wildcards, such as `train_sft_wildcards_sft`: what Snakemake's executor writes as its comment.
    """

    number: str
    state: str
    elapsed: str
    work: str


def find_jobs(folder: Path, run: str) -> list[Job]:
    """The user's jobs that work on a run in a folder and have not ended.

    A job works on a run when its script names files of it. There are no jobs where there is no SLURM, or where it does
    not answer.
    """
    if not shutil.which("squeue"):
        return []
    jobs = []
    for line in ask("squeue", "--me", "--noheader", f"--format={'|'.join(FIELDS)}").splitlines():
        number, state, elapsed, comment, place = line.split("|", 4)
        if Path(place) == folder.resolve():
            jobs.append(Job(number, state, elapsed, comment.removeprefix("rule_")))
    return [job for job in jobs if f"work/{run}/" in ask("scontrol", "write", "batch_script", job.number, "-")]


def ask(*command: str) -> str:
    """What a command says; nothing when it does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    except subprocess.TimeoutExpired:
        return ""
