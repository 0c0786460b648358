"""All jobs of a run together use at most the configured GPUs. tests/slurm has a test on a real Slurm."""

import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.cluster.gpus_at_once import limit_gpus
from scripts.common.config import Config
from scripts.common.config.loader import load_config
from scripts.common.errors import UserError
from scripts.common.files import write_json, write_text
from tests.cluster.conftest import Tool
from tests.common.running import REPOSITORY
from tests.workflow.running import read_recipe, snakemake, write_recipe


def evaluations(processes: int = 1, **resources: Any) -> dict[str, Any]:
    """The smoke recipe with nine benchmarks and nothing to train."""
    recipe = copy.deepcopy(read_recipe("smoke")) | {
        "stages": {},
        "expectations": {},
        "datasets": {},
        "resources": resources,
    }
    section = recipe["benchmarks"]["chain_sum"] | {"processes": processes}
    return recipe | {"benchmarks": {f"sum{number}": section for number in range(9)}}


def configure(**resources: Any) -> Config:
    return load_config(evaluations(processes=2, **resources))


@pytest.mark.parametrize(
    ("resources", "given", "limit"),
    [
        ({}, None, 0),
        ({"train": {"gpus": 4}, "evaluate": {"gpus": 1}}, None, 4),
        ({"train": {"gpus": 4, "nodes": 2}, "evaluate": {"gpus": 1}}, None, 8),
        ({"train": {"gpus": 1}, "evaluate": {"gpus": 1}}, None, 2),  # two processes share the questions of a benchmark
        ({"gpus": 16, "train": {"gpus": 4}}, None, 16),
        ({"gpus": 16, "train": {"gpus": 4}}, 8, 8),
        ({"gpus": 8, "train": {"gpus": 4}}, 16, 8),
        ({"train": {"gpus": 4}}, 6, 6),
    ],
)
def test_the_largest_job_sets_the_limit_by_default(resources: dict[str, Any], given: int | None, limit: int) -> None:
    assert limit_gpus(configure(**resources), given) == limit


@pytest.mark.parametrize(
    ("resources", "given", "lines"),
    [
        (
            {"gpus": 2, "train": {"gpus": 4}},
            None,
            ["resources.gpus: the limit is 2 GPUs, but resources.train requests 4"],
        ),
        (
            {"gpus": 2, "train": {"gpus": 2, "nodes": 2}},
            4,
            ["resources.gpus: the limit is 2 GPUs, but resources.train requests 4"],
        ),
        (
            {"train": {"gpus": 4}},
            2,
            ["--resources gpus_at_once: the limit is 2 GPUs, but resources.train requests 4"],
        ),
        ({"gpus": 1, "evaluate": {"gpus": 1}}, None, [f"benchmarks.sum{n}.processes requests 2;" for n in range(9)]),
    ],
    ids=["one machine", "two machines", "command line", "processes"],
)
def test_a_job_that_requests_more_is_refused(resources: dict[str, Any], given: int | None, lines: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        limit_gpus(configure(**resources), given)
    problems = str(caught.value).splitlines()
    assert len(problems) == len(lines)
    assert all(part in problem for part, problem in zip(lines, problems, strict=True))


def test_such_a_job_is_refused_before_anything_runs(tmp_path: Path) -> None:
    run = snakemake(tmp_path, "-n", "--configfile", write_recipe(tmp_path, evaluations(gpus=2, train={"gpus": 4})))
    assert run.returncode == 1
    assert run.stdout.splitlines()[-1].startswith("error: resources.gpus: the limit is 2 GPUs, but resources.train")


@contextmanager
def head(folder: Path, recipe: dict[str, Any], tool: Tool) -> Iterator[Path]:
    """Run Snakemake on a fake cluster whose jobs never end. Yields a file with one line for each submitted job."""
    submitted = folder / "submitted"
    submitted.touch()
    write_json(folder / "work/smoke/models/base/manifest.json", {})
    for name in recipe["benchmarks"]:
        write_text(folder / f"work/smoke/benchmarks/{name}/questions.jsonl", "")
        write_json(folder / f"work/smoke/benchmarks/{name}/manifest.json", {})
    tool("sbatch", f"echo $$ >> {submitted}; echo $$")
    tool("squeue", f"sed 's/$/|RUNNING/' {submitted}")
    tool("scontrol", "echo 'MinJobAge = 300 sec'")
    tool("sacctmgr", "echo posttrain")
    tool("sinfo", "exit 0")
    tool("scancel", "exit 0")
    command = [sys.executable, "-m", "snakemake", "--snakefile", REPOSITORY / "Snakefile", "benchmarks"]
    command += ["--profile", REPOSITORY / "profiles/slurm", "--directory", folder]
    command += ["--configfile", write_recipe(folder, recipe)]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield submitted
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize(
    ("recipe", "jobs"),
    [
        (evaluations(gpus=4, evaluate={"gpus": 1}), 4),
        (evaluations(gpus=4, evaluate={"gpus": 1}, processes=2), 2),
        (evaluations(train={"gpus": 3}, evaluate={"gpus": 1}), 3),
        (evaluations(), 9),
    ],
    ids=["four GPUs", "two GPUs a job", "largest job", "no GPUs"],
)
def test_no_more_jobs_are_submitted_than_the_gpus_allow(
    tmp_path: Path, tool: Tool, recipe: dict[str, Any], jobs: int
) -> None:
    with head(tmp_path, recipe, tool) as submitted:
        deadline = time.monotonic() + 60
        while len(submitted.read_text().split()) < jobs and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1.5)  # Snakemake submits all jobs that may start together
        assert len(submitted.read_text().split()) == jobs, (tmp_path / "output").read_text()[-3000:]
