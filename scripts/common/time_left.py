"""The time that a run still takes, from the pace of an earlier run of the same recipe.

The earlier run is in a file next to the recipe, `<recipe>.timeline.json`, which `performance/cpu/record_timeline.py`
writes. Other runs have no such file, and show no time.
"""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts.common.files import read_json

SECONDS_BETWEEN_LINES = 15.0

PRIOR = 20.0
"""Recorded seconds for which the pace of the earlier run is assumed, before this machine has shown its own."""


def find_timeline(recipes: Sequence[Path]) -> list[float]:
    """Seconds from the start to the end of each job of the earlier run, in order.

    Empty if none was recorded, or if the configuration consists of several files.
    """
    path = recipes[0].with_suffix(".timeline.json") if len(recipes) == 1 else None
    return list(read_json(path)["seconds"]) if path and path.is_file() else []


def estimate_left(timeline: Sequence[float], jobs: int, done: int, since: float, elapsed: float) -> float | None:
    """Seconds that a run still takes.

    Args:
        timeline: ends of the jobs of the earlier run, in seconds, in order.
        jobs: number of jobs of this run. If it has fewer, the first ones were made before.
        done: number of jobs that are done.
        since: seconds since the last of them ended, or since the start.
        elapsed: seconds since the start.

    Returns:
        The recorded time from here to the end, multiplied by the pace of this machine; None if the run has more jobs
        than the earlier one, or nothing left to do.
    """
    before = len(timeline) - jobs
    if before < 0 or done >= jobs:
        return None
    start = timeline[before - 1] if before else 0.0
    reached = timeline[before + done - 1] if before + done else 0.0
    pace = (elapsed - since + PRIOR) / (reached - start + PRIOR)
    # The job that comes next takes as long as it did, until it takes longer.
    reached = min(reached + since / pace, timeline[before + done])
    return (timeline[-1] - reached) * pace


def describe_left(seconds: float) -> str:
    """`about 3 min left`, `about 1 min left`, `less than a minute left`."""
    return f"about {seconds / 60:.0f} min left" if seconds >= 60 else "less than a minute left"


def show_time_left(timeline: Sequence[float], jobs: int, count_done: Callable[[], int]) -> None:
    """Write a line every few seconds, until the process ends: jobs that are done, and about how long the rest takes.

    Args:
        timeline: ends of the jobs of an earlier run, in seconds, in order.
        jobs: number of jobs of this run.
        count_done: counts the jobs that are done.
    """
    threading.Thread(target=_show, args=(timeline, jobs, count_done), daemon=True).start()


def _show(timeline: Sequence[float], jobs: int, count_done: Callable[[], int]) -> None:
    started = last_end = time.monotonic()
    done, line, written = 0, "", -SECONDS_BETWEEN_LINES
    while done < jobs:
        now, before, done = time.monotonic(), done, count_done()
        last_end = now if done > before else last_end
        left = estimate_left(timeline, jobs, done, now - last_end, now - started)
        found = f"==> {done} of {jobs} jobs done" + ("" if left is None else f", {describe_left(left)}")
        if found != line and now - written >= SECONDS_BETWEEN_LINES:
            line, written = found, now
            sys.stderr.write(f"{line}\n")  # at once, since Snakemake writes lines too
            sys.stderr.flush()
        time.sleep(1)
