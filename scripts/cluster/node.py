"""A compute node, seen by a small job that runs on it."""

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HOME, HF_HUB_CACHE

from scripts.cluster.finding import Finding, advise
from scripts.cluster.request import Request
from scripts.cluster.slurm import last_words, run
from scripts.common.config import Config, FileModel, HubModel
from scripts.common.environment import VLLM
from scripts.common.errors import UserError
from scripts.common.files import read_json

PROBE = {"runtime": 10, "mem_mb": 8_000, "cpus_per_task": 2}
"""What the small job asks for in the place of its rule's: minutes, memory, cores."""

WAIT = 300
"""Seconds that it may wait in the queue and run."""

WORK = "make work/ a folder of yours, or a link to one, on a file system that the compute nodes share"
"""What to do where the small job has no place for its report."""

LATENCY = 60
"""Seconds that a shared file system may take to show a file; as in the profile."""


@dataclass(frozen=True)
class Needs:
    """What jobs need on a compute node beside the environment that Snakemake was started in.

    Args:
        folders: that they write into; the small job leaves its report in the first.
        cache: where weights and benchmarks lie; they only read there.
        vllm: Python of vLLM's environment; empty where no benchmark needs it.
    """

    folders: list[Path]
    cache: list[Path]
    vllm: str

    @classmethod
    def of(cls, config: Config, folders: list[Path]) -> "Needs":
        """What the jobs of a run need, which write into these folders."""
        model, benchmarks = config.model.source, config.benchmarks.values()
        cache = []
        if isinstance(model, HubModel) or any(one.source.kind == "hub" for one in benchmarks):
            cache = [Path(HF_HOME), Path(HF_HUB_CACHE)]
        if not isinstance(model, HubModel | FileModel):
            cache.append(Path(config.run.cache))
        if isinstance(model, FileModel) and Path(model.path).is_dir():
            cache.append(Path(model.path))
        uses_vllm = any(one.engine == "vllm" for one in benchmarks)
        return cls(folders, cache, os.environ[VLLM] if uses_vllm else "")


@contextmanager
def leave_marks(folders: list[Path]) -> Iterator[list[Path]]:
    """Files by which the small job tells that it sees these folders, and not others of the same name.

    In a folder that may not be written to, one of its own files serves, or else the folder itself.
    """
    marks: list[Path] = []
    made: list[Path] = []
    for folder in folders:
        mark = folder.resolve() / ".check_cluster"
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            made.append(mark)
        except OSError:
            mark = next(mark.parent.glob("*"), mark.parent)
        marks.append(mark)
    try:
        yield marks
    finally:
        for mark in made:
            mark.unlink(missing_ok=True)


def check_node(request: Request, needs: Needs) -> Iterator[Finding]:
    """What a small job finds on a compute node, with the GPUs that the request asks for."""
    with leave_marks([*needs.folders[1:], *needs.cache]) as marks:
        yield from probe(request, needs, marks)


def probe(request: Request, needs: Needs, marks: list[Path]) -> Iterator[Finding]:
    """Submit the small job, wait for it, and tell what it found."""
    work = needs.folders[0]
    report, log = work / "probe.json", work / "probe.log"
    try:
        work.mkdir(parents=True, exist_ok=True)
        for path in (report, log):
            path.unlink(missing_ok=True)
            path.touch()
            path.unlink()
    except OSError as error:
        yield Finding("compute node", f"not tried: {work} is not written to: {error.strerror}", WORK)
        return
    words = ["python", "-m", "scripts.cluster.probe_node", "--output", report, "--vllm", needs.vllm]
    words += ["--written", *needs.folders, "--seen", *marks]
    command = shlex.join(map(str, words))
    try:
        done = run([*request.command(**PROBE), f"--output={log}", f"--wrap={command}"])
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
    yield from describe_node(read_json(report), request.counted // request.nodes, seconds)


def describe_node(found: dict[str, Any], gpus: int, seconds: float) -> Iterator[Finding]:
    """What the small job found: the environment, GPUs against those that a job has on a machine, files, the network.

    Args:
        found: its report.
        gpus: that it should see.
        seconds: that it took.
    """
    yield Finding("compute node", f"{found['host']} imports {found['versions']}, writes here; took {seconds:.0f} s")
    advice = f"torch sees {len(found['gpus'])} of {gpus}: {found['why']}" if len(found["gpus"]) < gpus else ""
    yield Finding("GPUs on it", ", ".join(found["gpus"]) or "none", advice)
    if found["problems"]:
        advice = "put results, logs, run.cache and HF_HOME on a file system that the compute nodes share"
        yield Finding("folders on it", "; ".join(found["problems"]), advice)
    else:
        yield Finding("folders on it", "results and logs are written to, caches are seen")
    if found["vllm"]:
        advice = "" if found["vllm"]["works"] else f"make its environment on a shared file system, or set {VLLM}"
        yield Finding("vLLM on it", found["vllm"]["said"], advice)
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
