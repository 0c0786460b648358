"""Terminal output of scripts: messages, progress and errors.

Every script ends with `run_script(main)`. With `--log FILE`, the output of libraries goes to that file only, while
messages of `say` go to the file and to the terminal, so that the user sees progress and nothing else.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from scripts.common.errors import UserError

SECONDS_BETWEEN_LINES = 5.0

NO_SPACE = ("No space left on device", "Disk quota exceeded", "inline_container.cc")
"""Error messages for a full disk. The last is torch's, whose writer only notices that too few bytes were written."""

NO_MEMORY = ("out of memory", "can't allocate memory")
"""Torch's error messages for full GPU memory and full main memory."""

_terminal: TextIO | None = None
"""The terminal, while `sys.stderr` goes to a log."""


def say(message: str, always: bool = False) -> None:
    """Write one line to the terminal, and to the log if there is one.

    If several processes train a stage, only the one of rank 0 writes, unless `always` is set.
    """
    if os.environ.get("RANK", "0") != "0" and not always:
        return
    if _terminal:  # first, since the disk with the log may be full
        print(message, file=_terminal, flush=True)
    print(message, file=sys.stderr, flush=True)


class Progress:
    """Lines such as `train_sft sft: 12/40 steps, loss 1.203, 0:48 left`, at most one every five seconds.

    Args:
        label: the script and what it works on.
        total: number of units; 0 if it is not known.
        unit: name of the unit, in the plural.
    """

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.started = self.last_line = time.monotonic()
        self.first = 0

    def start_from(self, done: int) -> None:
        """Estimate the time left from here on: `done` units were completed by an earlier attempt."""
        self.first, self.started = done, time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Write a line of progress, unless the last one is less than five seconds old."""
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_LINES and not 0 < self.total <= done:
            return
        self.last_line = now
        if not self.total:
            say(f"{self.label}: {done:,} {self.unit}")
            return
        pace = (now - self.started) / max(done - self.first, 1)
        clock = write_clock(pace * (self.total - done) if done < self.total else now - self.started)
        left = f"{clock} left" if done < self.total else f"took {clock}"
        say(", ".join(filter(None, [f"{self.label}: {done}/{self.total} {self.unit}", note, left])))


def write_clock(seconds: float) -> str:
    """Seconds as `3:07`, or as `1:02:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the option `--log`, which all scripts share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="file for the output of libraries")
    return parser


def run_script(main: Callable[[], None]) -> None:
    """Run `main`, and report an error in one line and an exit code.

    Exit codes: 1 for a UserError, 130 for an interrupt. Other exceptions leave their traceback in the log.
    """
    _redirect_to_log()
    try:
        main()
    except UserError as error:
        for line in str(error).splitlines():
            say(f"error: {line}", always=True)
        sys.exit(1)
    except Exception as error:
        if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
            first = str(error).partition("\n")[0]
            remedy = "use smaller batches, or request more in `resources`; `snakemake plan` estimates the need"
            say(f"error: out of memory; {remedy} ({first})", always=True)
            raise
        # safetensors raises its own type of exception, so the message decides, not the type.
        if not any(words in str(error) for words in NO_SPACE):
            raise
        where = getattr(error, "filename", None) or "the disk"
        say(f"error: {where}: no space left; free up space, or set run.cache to a larger disk", always=True)
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted; the next run resumes from here")
        sys.exit(130)


def _redirect_to_log() -> None:
    """Redirect file descriptors 1 and 2 to the log, and keep the terminal for `say`."""
    global _terminal
    options, _ = make_parser(None).parse_known_args([a for a in sys.argv[1:] if a not in ("-h", "--help")])
    if options.log is None:
        return
    options.log.parent.mkdir(parents=True, exist_ok=True)
    _terminal = os.fdopen(os.dup(2), "w", buffering=1)
    # The processes of a stage share the log: the one of rank 0 empties it, and all append.
    truncate = os.O_TRUNC if os.environ.get("RANK", "0") == "0" else 0
    log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | truncate, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
