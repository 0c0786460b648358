"""One Slurm for all tests of this folder, and heads that submit jobs to it."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster, explain_unavailable
from tests.slurm.head import Head
from tests.slurm.stages import NEEDED, long_stage
from tests.workflow.running import write_recipe


@contextmanager
def _start(nodes: int, is_cut_off: bool = False) -> Iterator[Cluster]:
    if why := explain_unavailable():
        pytest.skip(f"no Slurm: {why}; `make test-slurm` installs it on Debian, as root")
    # It contains Unix sockets, whose paths must be short.
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(Path(folder), nodes, is_cut_off)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Slurm with one node and four fake H100s."""
    with _start(1) as cluster:
        yield cluster


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    """A Slurm with two such nodes."""
    with _start(2) as cluster:
        yield cluster


@pytest.fixture
def cut_off() -> Iterator[Cluster]:
    """A Slurm with one node that can reach only the controller."""
    with _start(1, is_cut_off=True) as cluster:
        yield cluster


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the tests measured, for docs/cluster.md."""
    reports = terminalreporter.stats.get("passed", [])
    lines = [value for report in reports for name, value in report.user_properties if name == "measured"]
    if lines:
        terminalreporter.section("measured on this Slurm")
        terminalreporter.write_line("\n".join(lines))


MakeHead = Callable[[dict[str, Any]], Head]
StageHead = Callable[..., Head]


@pytest.fixture(scope="session")
def prepared(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the long stage needs. Tests work in copies of it."""
    folder = tmp_path_factory.mktemp("prepared")
    run = Head(cluster, folder, write_recipe(folder, long_stage())).run(*NEEDED)
    assert run.returncode == 0, run.stdout[-5000:]
    return folder


@pytest.fixture
def make_head(cluster: Cluster, tmp_path: Path) -> Iterator[MakeHead]:
    """Make a head for a recipe. The head and its jobs end with the test."""
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


@pytest.fixture
def stage_head(make_head: MakeHead, prepared: Path, tmp_path: Path) -> StageHead:
    """Make a head for the long stage, with given resources, in a copy of the prepared folder."""

    def make(steps: int = 300, **train: Any) -> Head:
        shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
        return make_head(long_stage(steps, **train))

    return make
