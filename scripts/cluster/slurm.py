"""What SLURM says of a run, where there is SLURM."""

import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError

FIELDS = ("%i", "%T", "%M", "%Z", "%k")
"""Number, state, time, folder, and last the comment, in which anything may stand."""

MANY_FILES = "--wait-for-files-file"
"""What Snakemake writes in a job's script in the place of files' names when they are many."""


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
    """The user's jobs that work on a run in a folder and have not ended; none where there is no SLURM.

    A job works on a run when its script names files of it, or does not name its files.

    Raises:
        UserError: SLURM does not answer.
    """
    if not shutil.which("squeue"):
        return []
    jobs = []
    for line in ask("squeue", "--me", "--noheader", f"--format={'|'.join(FIELDS)}").splitlines():
        number, state, elapsed, place, comment = (*line.split("|", 4), *[""] * 5)[:5]
        if place and Path(place) == folder.resolve():
            jobs.append(Job(number, state, elapsed, comment.removeprefix("rule_")))
    return [job for job in jobs if _works_on(job, run)]


def _works_on(job: Job, run: str) -> bool:
    with suppress(UserError):  # it has ended meanwhile
        script = ask("scontrol", "write", "batch_script", job.number, "-")
        return f"work/{run}/" in script or MANY_FILES in script
    return False


def ask(*command: str) -> str:
    """What a command of SLURM says.

    Raises:
        UserError: it fails, or does not answer in time.
    """
    done = run(list(command))
    if done.returncode:
        raise UserError(f"SLURM does not answer: {last_words(done)}")
    return done.stdout


def last_words(done: "subprocess.CompletedProcess[str]") -> str:
    """The last line that a command of SLURM said, without its name."""
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return re.sub(r"^s\w+: (error: )?", "", lines[-1]) if lines else f"exit status {done.returncode}"


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command of SLURM; one that does not answer within two minutes has failed."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} took longer than two minutes")
