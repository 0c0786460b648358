"""One Slurm for all tests of this room, and heads that submit to it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster, tell_what_is_missing
from tests.workflow.running import REPOSITORY, write_recipe


@contextmanager
def _start(nodes: int, is_cut_off: bool = False) -> Iterator[Cluster]:
    if why := tell_what_is_missing():
        pytest.skip(f"no Slurm: {why}; `make test-slurm` installs it on Debian, as root")
    # Unix sockets stand in it, and their paths must be short.
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(Path(folder), nodes, is_cut_off)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Slurm of one node with four pretend H100s."""
    with _start(1) as cluster:
        yield cluster


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    """A Slurm of two such nodes."""
    with _start(2) as cluster:
        yield cluster


@pytest.fixture
def cut_off() -> Iterator[Cluster]:
    """A Slurm of one node that reaches nothing but the controller."""
    with _start(1, is_cut_off=True) as cluster:
        yield cluster


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell what tests measured, for docs/cluster.md."""
    reports = terminalreporter.stats.get("passed", [])
    lines = [value for report in reports for name, value in report.user_properties if name == "measured"]
    if lines:
        terminalreporter.section("measured on this Slurm")
        terminalreporter.write_line("\n".join(lines))


@dataclass
class Head:
    """Snakemake with the cluster's profile, in a folder of its own."""

    cluster: Cluster
    folder: Path
    recipe: Path
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def command(self, *arguments: str) -> list[str]:
        """Its command line."""
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
        command += ["--profile", str(REPOSITORY / "profiles" / "slurm"), "--directory", str(self.folder)]
        return [*command, *arguments, "--configfile", str(self.recipe)]  # which takes all words that follow

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start it in a session of its own; output and errors go to stdout."""
        process = subprocess.Popen(
            self.command(*arguments),
            env=self.cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, seconds: float = 900) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            pytest.fail(f"the head did not end in {seconds} s:\n{output[-5000:]}")
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def jobs(self) -> list[str]:
        """Numbers of the jobs in the queue that were submitted from this folder."""
        lines = self.cluster.ask("squeue", "-h", "-o", "%i %Z").splitlines()
        return [number for number, folder in (line.split(" ", 1) for line in lines) if folder == str(self.folder)]


MakeHead = Callable[[dict[str, Any]], Head]


@pytest.fixture
def make_head(cluster: Cluster, tmp_path: Path) -> Iterator[MakeHead]:
    """Make a head for a recipe; it and its jobs end with the test."""
    heads: list[Head] = []

    def make(recipe: dict[str, Any]) -> Head:
        heads.append(Head(cluster, tmp_path, write_recipe(tmp_path, recipe)))
        return heads[-1]

    yield make
    for head in heads:
        for process in head.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        if jobs := head.jobs():
            cluster.ask("scancel", *jobs)
