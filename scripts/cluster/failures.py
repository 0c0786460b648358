"""Jobs that failed, by the last words of their logs."""

import re
from collections.abc import Iterator
from pathlib import Path

LAST_LINES = 3
"""Lines of a failed job's log that are shown."""


def find_failures(logs: Path, since: float = 0.0) -> Iterator[Path]:
    """Logs that end in an error, written after a moment (in seconds of the epoch)."""
    for log in sorted(logs.glob("**/*.log")):
        if log.stat().st_mtime >= since and is_error(last_lines(log)):
            yield log


def describe_failures(logs: Iterator[Path]) -> list[str]:
    """What failed, with the last lines of each log."""
    lines = [line for log in logs for line in (f"  {log}", *(f"    {last}" for last in last_lines(log)))]
    return ["", "failed", *lines] if lines else []


def is_error(lines: list[str]) -> bool:
    """The log ends with a line of ours that begins with `error:`, or with a traceback of Python's."""
    return any(line.startswith("error: ") for line in lines) or bool(
        lines and re.match(r"(\w+\.)*\w*(Error|Exception|Interrupt)\b", lines[-1])
    )


def last_lines(log: Path) -> list[str]:
    """The last lines of a log that say something."""
    return [line for line in read_end(log).splitlines() if line.strip()][-LAST_LINES:]


def read_end(log: Path, size: int = 20_000) -> str:
    """The last bytes of a log, which may not be there, as text."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - size))
        return file.read().decode("utf-8", errors="replace")
