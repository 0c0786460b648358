"""Commands of SLURM, and the jobs of a run in its queue."""

import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.paths import RunPaths

FIELDS = ("%i", "%T", "%M", "%Z", "%k")
"""Number, state, elapsed time, folder, and comment. The comment comes last because it may contain the separator."""

MANY_FILES = "--wait-for-files-file"
"""Snakemake writes this option to a job's script instead of file names when there are many."""


@dataclass(frozen=True)
class Job:
    """A job in the queue.

    Args:
        number: SLURM's job id.
        state: such as `RUNNING` or `PENDING`.
        elapsed: how long it has been running, as SLURM writes it.
        work: rule and wildcards, such as `train_sft_wildcards_sft`, from the comment that Snakemake's executor sets.
    """

    number: str
    state: str
    elapsed: str
    work: str


def find_jobs(folder: Path, run: str) -> list[Job]:
    """The user's jobs in the queue that were submitted from a folder for a run; none on a machine without SLURM.

    A job belongs to a run if its script names files of the run. If the script keeps the names in a separate file, the
    run is unknown and the job is included.

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
    with suppress(UserError):  # the job has ended in the meantime
        script = ask("scontrol", "write", "batch_script", job.number, "-")
        return f"{RunPaths(run).work}/" in script or MANY_FILES in script
    return False


def ask(*command: str) -> str:
    """The output of a SLURM command.

    Raises:
        UserError: it fails, or does not answer in time.
    """
    done = run(list(command))
    if done.returncode:
        raise UserError(f"SLURM does not answer: {last_message(done)}")
    return done.stdout


def last_message(done: "subprocess.CompletedProcess[str]") -> str:
    """The last line that a SLURM command printed, without the name of the command."""
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return re.sub(r"^s\w+: (error: )?", "", lines[-1]) if lines else f"exit status {done.returncode}"


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a SLURM command. One that takes longer than two minutes counts as failed."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} took longer than two minutes")
