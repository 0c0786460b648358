"""Failed jobs, found by the last lines of their logs."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LAST_LINES = 3
"""Lines of a failed job's log that are shown."""

TRACEBACK = "Traceback (most recent call last):"

_PROGRESS = re.compile(r"^\w+ .*: \d[\d,]*(/\d+)? \w+", re.MULTILINE)
# srun reports the exit code of every command that fails; that alone does not mean that SLURM killed it.
_KILLED = re.compile(r"slurmstepd(-\S+)?: error: |srun: error: (?!.*Exited with exit code)")

_BEGINS = "Building DAG of jobs..."
"""Snakemake writes this to a job's log at each start of the job. A requeued job appends to the same log."""


@dataclass(frozen=True)
class Failure:
    """A failed job.

    Args:
        log: the log that shows the failure.
        lines: its last lines.
    """

    log: Path
    lines: list[str]


def find_failures(logs: Path, since: float = 0.0) -> Iterator[Failure]:
    """Logs of a run that end in an error and were written since a given time (seconds of the epoch)."""
    for log in sorted(logs.glob("**/*.log")):
        if log.stat().st_mtime >= since and is_error(log):
            yield Failure(log, last_lines(log))


def find_kills(slurm_logs: Path, since: float = 0.0) -> Iterator[Failure]:
    """Jobs that SLURM ended: out of memory, out of time, cancelled, node failure. Only a job's last start counts."""
    folders = {log.parent for log in slurm_logs.glob("**/*.log")}
    for folder in sorted(folders):
        log = max(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
        killed = [line for line in read_end(log).rpartition(_BEGINS)[2].splitlines() if _KILLED.match(line)]
        if killed and log.stat().st_mtime >= since:
            yield Failure(log, killed[-LAST_LINES:])


def describe_failures(failures: Iterable[Failure]) -> list[str]:
    """The log of each failed job, followed by its last lines; empty if nothing failed."""
    lines = [line for failure in failures for line in (f"  {failure.log}", *(f"    {line}" for line in failure.lines))]
    return ["", "failed", *lines] if lines else []


def is_error(log: Path) -> bool:
    """Whether a log ends with one of our lines that start with `error:`, or with a traceback of any process."""
    if any(line.startswith("error: ") for line in last_lines(log)):
        return True
    _, found, after = read_end(log).rpartition(TRACEBACK)
    return bool(found) and not _PROGRESS.search(after)


def last_lines(log: Path) -> list[str]:
    """The last lines of a log that are not blank."""
    return [line for line in read_end(log).splitlines() if line.strip()][-LAST_LINES:]


def read_end(log: Path, size: int = 20_000) -> str:
    """The last `size` bytes of a log as text; empty if there is no log."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - size))
        return file.read().decode("utf-8", errors="replace")
