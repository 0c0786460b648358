"""A compute node, seen by a small job that runs on it."""

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.cluster.finding import Finding, advise
from scripts.cluster.request import Request
from scripts.cluster.slurm import last_words, run
from scripts.common.errors import UserError
from scripts.common.files import read_json

PROBE = {"runtime": 10, "mem_mb": 8_000, "cpus_per_task": 2}
"""What the small job asks for in the place of its rule's: minutes, memory, cores."""

WAIT = 300
"""Seconds that it may wait in the queue and run."""

LATENCY = 60
"""Seconds that a shared file system may take to show a file; as in the profile."""


def check_node(request: Request, work: Path) -> Iterator[Finding]:
    """What a small job finds on a compute node, with the GPUs that a benchmark asks for."""
    report, log = work / "probe.json", work / "probe.log"
    work.mkdir(parents=True, exist_ok=True)
    for path in (report, log):
        path.unlink(missing_ok=True)
    probe = shlex.join(["python", "-m", "scripts.cluster.probe_node", "--output", str(report)])
    try:
        done = run([*request.command(**PROBE), f"--output={log}", f"--wrap={probe}"])
    except UserError as error:
        done = subprocess.CompletedProcess([], 1, "", str(error))
    number = re.search(r"^\d+", done.stdout, re.MULTILINE)
    if done.returncode or not number:
        yield Finding("compute node", last_words(done), advise(last_words(done)))
        return
    started = time.monotonic()
    try:
        reason = wait_for_job(number[0], WAIT)
    finally:
        run(["scancel", number[0]])  # nothing when it has ended
    if reason:
        yield Finding(
            "compute node", f"not tried: {reason} after {WAIT} s", "try again when the queue is shorter", "??"
        )
        return
    seconds = time.monotonic() - started
    if not wait_for_file(report, LATENCY):
        lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
        advice = "put this folder and .venv on a file system that the compute nodes share; see profiles/README.md"
        yield Finding("compute node", lines[-1] if lines else f"job {number[0]} left nothing in {work}", advice)
        return
    yield from describe_node(read_json(report), request.gpus, seconds)


def describe_node(found: dict[str, Any], gpus: int, seconds: float) -> Iterator[Finding]:
    """What the small job found: the environment, its GPUs against those that were asked for, the network."""
    yield Finding("compute node", f"{found['host']} imports {found['versions']}, writes here; took {seconds:.0f} s")
    advice = f"torch sees {len(found['gpus'])} of {gpus}: {found['why']}" if len(found["gpus"]) < gpus else ""
    yield Finding("GPUs on it", ", ".join(found["gpus"]) or "none", advice)
    yield Finding("the hub from it", "reached" if found["hub"] else "not reached; no job asks for it")


def wait_for_job(number: str, seconds: float) -> str:
    """Wait until a job has left the queue. Returns why it is still there when it has not, else nothing."""
    deadline = time.monotonic() + seconds
    told = ""
    while time.monotonic() < deadline:
        # Only an answer counts, and that SLURM has forgotten the job.
        done = run(["squeue", "--noheader", f"--jobs={number}", "--format=%T %r"])
        told = done.stdout.strip()
        if (done.returncode == 0 and not told) or "Invalid job id" in done.stderr:
            return ""
        time.sleep(1)
    return told or "no answer"


def wait_for_file(path: Path, seconds: float) -> bool:
    """Wait until a shared file system shows a file."""
    deadline = time.monotonic() + seconds
    while not path.is_file() and time.monotonic() < deadline:
        list(path.parent.iterdir())  # some look again only when the folder is read
        time.sleep(1)
    return path.is_file()
