"""Check a compute node with the probe, a small job that runs on it."""

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.constants import HF_HOME, HF_HUB_CACHE

from scripts.cluster.finding import Finding, advise
from scripts.cluster.probe_node import NodeReport
from scripts.cluster.request import Request
from scripts.cluster.slurm import last_message, run
from scripts.common.config import Config, FileModel, HubModel
from scripts.common.environment import VLLM
from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.common.paths import RunPaths

PROBE = {"runtime": 10, "mem_mb": 8_000, "cpus_per_task": 2}
"""Resources of the probe that replace those of its rule: minutes, memory, cores."""

WAIT = 300
"""Seconds that the probe may wait in the queue and run."""

WORK = "make work/ a folder that you own, or a link to one, on a file system that the compute nodes share"
"""Advice if the probe has nowhere to write its report."""


@dataclass(frozen=True)
class Needs:
    """What jobs need on a compute node in addition to the environment that Snakemake was started in.

    Args:
        folders: folders that jobs write to; the first also holds the report and the log of the probe.
        cache: folders with weights and benchmarks, which jobs only read.
        vllm: Python of vLLM's environment; empty if no benchmark needs it.
        latency: seconds that a shared file system may need to show a new file.
        report: file that the probe writes.
        log: file for the output of the probe.
    """

    folders: list[Path]
    cache: list[Path]
    vllm: str
    latency: float
    report: Path
    log: Path

    @classmethod
    def of(cls, config: Config, paths: RunPaths, latency: float) -> "Needs":
        """What the jobs of a run need."""
        model, benchmarks = config.model.source, config.benchmarks.values()
        cache = []
        if isinstance(model, HubModel) or any(one.source.kind == "hub" for one in benchmarks):
            cache = [Path(HF_HOME), Path(HF_HUB_CACHE)]
        if not isinstance(model, HubModel | FileModel):
            cache.append(Path(config.run.cache))
        if isinstance(model, FileModel) and Path(model.path).is_dir():
            cache.append(Path(model.path))
        uses_vllm = any(one.engine == "vllm" for one in benchmarks)
        return cls(
            folders=[paths.work, paths.results, paths.logs],
            cache=cache,
            vllm=os.environ[VLLM] if uses_vllm else "",
            latency=latency,
            report=paths.probe_report,
            log=paths.probe_log,
        )


@contextmanager
def leave_marks(folders: list[Path]) -> Iterator[list[Path]]:
    """Leave a file in each folder, so that the probe can check that it sees these folders and not others of that name.

    In a folder that is not writable, one of its own files serves as the mark, or else the folder itself.
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
    """Findings of the probe on a compute node, with the GPUs of a request."""
    with leave_marks([*needs.folders[1:], *needs.cache]) as marks:
        yield from probe(request, needs, marks)


def probe(request: Request, needs: Needs, marks: list[Path]) -> Iterator[Finding]:
    """Submit the probe, wait for it, and yield its findings."""
    work = needs.folders[0]
    report, log = needs.report, needs.log
    try:
        work.mkdir(parents=True, exist_ok=True)
        for path in (report, log):
            path.unlink(missing_ok=True)
            path.touch()
            path.unlink()
    except OSError as error:
        yield Finding("compute node", f"not tried: cannot write to {work}: {error.strerror}", WORK)
        return
    words = [
        "python",
        "-m",
        "scripts.cluster.probe_node",
        "--output",
        report,
        "--vllm",
        needs.vllm,
        "--latency-wait",
        needs.latency,
    ]
    words += ["--written", *needs.folders, "--seen", *marks]
    command = shlex.join(map(str, words))
    try:
        done = run([*request.command(**PROBE), f"--output={log}", f"--wrap={command}"])
    except UserError as error:
        done = subprocess.CompletedProcess([], 1, "", str(error))
    number = re.search(r"^\d+", done.stdout, re.MULTILINE)
    if done.returncode or not number:
        yield Finding("compute node", last_message(done), advise(last_message(done)))
        return
    started = time.monotonic()
    try:
        reason = wait_for_job(number[0], WAIT)
    finally:
        run(["scancel", number[0]])  # has no effect if the job has ended
    if reason:
        yield Finding(
            "compute node", f"not tried: {reason} after {WAIT} s", "try again when the queue is shorter", "??"
        )
        return
    seconds = time.monotonic() - started
    if not wait_for_file(report, needs.latency):
        lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
        advice = "put this folder and .venv on a file system that the compute nodes share; see profiles/README.md"
        yield Finding("compute node", lines[-1] if lines else f"job {number[0]} wrote no report to {work}", advice)
        return
    yield from describe_node(read_json(report), request.configured_gpus // request.nodes, seconds)


def describe_node(found: NodeReport, gpus: int, seconds: float) -> Iterator[Finding]:
    """Findings about the environment, GPUs, folders and network of a node.

    Args:
        found: report of the probe.
        gpus: number of GPUs that a job has on one node.
        seconds: duration of the probe, with its time in the queue.
    """
    yield Finding("compute node", f"{found['host']} imports {found['versions']}; took {seconds:.0f} s")
    advice = f"torch sees {len(found['gpus'])} of {gpus}: {found['why']}" if len(found["gpus"]) < gpus else ""
    yield Finding("GPUs on the node", ", ".join(found["gpus"]) or "none", advice)
    if found["problems"]:
        advice = "put results, logs, run.cache and HF_HOME on a file system that the compute nodes share"
        yield Finding("folders on the node", "; ".join(found["problems"]), advice)
    else:
        yield Finding("folders on the node", "work, results and logs are writable, caches are visible")
    if found["vllm"]:
        advice = "" if found["vllm"]["works"] else f"create vLLM's environment on a shared file system, or set {VLLM}"
        yield Finding("vLLM on the node", found["vllm"]["said"], advice)
    yield Finding("hub from the node", "reachable" if found["hub"] else "not reachable; no job needs it")


def wait_for_job(number: str, seconds: float) -> str:
    """Wait until a job has left the queue. Returns its state and reason if it is still there, else an empty string."""
    deadline = time.monotonic() + seconds
    state = ""
    while time.monotonic() < deadline:
        # A failed command does not mean that the job has ended, unless SLURM no longer knows the job.
        done = run(["squeue", "--noheader", f"--jobs={number}", "--format=%T %r"])
        state = done.stdout.strip()
        if (done.returncode == 0 and not state) or "Invalid job id" in done.stderr:
            return ""
        time.sleep(1)
    return state or "no answer"


def wait_for_file(path: Path, seconds: float) -> bool:
    """Wait until a shared file system shows a file. Returns whether it did in time."""
    deadline = time.monotonic() + seconds
    while not path.is_file() and time.monotonic() < deadline:
        list(path.parent.iterdir())  # some file systems refresh only when the folder is listed
        time.sleep(1)
    return path.is_file()
