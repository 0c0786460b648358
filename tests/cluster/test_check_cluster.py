"""What the cluster has against what the run asks for; the same on a real Slurm in tests/slurm."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.cluster.check_cluster import Request, check_disk, check_downloads, check_partition, check_request
from scripts.common.config import Config
from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.common.load_config import load_config
from tests.common.running import call_main
from tests.workflow.running import read_recipe

ASKED: dict[str, Any] = {
    **{"_cores": 8, "cpus_per_task": 8, "gpu": 4, "gpu_model": "h100", "nodes": 1, "runtime": 1440},
    **{"mem_mb": 400_000, "slurm_partition": "gpu", "slurm_account": "me", "slurm_extra": "--open-mode=append"},
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The smoke recipe with a model and a benchmark from the hub, and a cache of its own."""
    recipe = read_recipe("smoke")
    recipe["model"]["source"] = {"kind": "hub", "repository": "Qwen/Qwen3-4B-Base", "revision": "0" * 40}
    recipe["benchmarks"]["piqa"] = {"task": "piqa", "source": {"kind": "hub"}, "metric": "acc", "filter": "none"}
    recipe["run"]["cache"] = str(tmp_path / "cache")
    return load_config(recipe)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands, first in the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def _write(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_request_is_what_the_executor_submits() -> None:
    command = Request(ASKED).command()
    assert command[:2] == ["sbatch", "--parsable"]
    words = " ".join(command)
    for asked in ("-A me", "-p gpu", "-t 1440", "--mem 400000", "--nodes=1", "--gpus=h100:4", "--open-mode=append"):
        assert asked in words
    assert "-t 10" in " ".join(Request(ASKED).command(runtime=10))


def test_without_slurm_one_line_says_where_to_start(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no SLURM here: sbatch is not in the path; start this on"):
        call_main("cluster.check_cluster", tmp_path, config=config.part(), requests={}, first_look=40, work="work")


def test_no_partition_means_no_profile() -> None:
    finding = check_partition(Request({}))
    assert "start it with `--profile slurm`" in finding.advice


def test_an_unknown_partition_is_told_with_those_there_are(tools: Path) -> None:
    _write(tools / "sinfo", 'case "$*" in *--partition*) ;; *) echo cpu; echo a100; echo cpu ;; esac')
    assert check_partition(Request(ASKED)).advice == "set slurm_partition in the profile to one of: cpu, a100"


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("Requested node configuration is not available", "no node has that; lower gpus"),
        (
            "Batch job submission failed: Invalid account or account/partition combination specified",
            "slurm_account is me;",
        ),
        ("Requested time limit is invalid (missing or exceeds some limit)", "lower `hours`"),
        ("something new", "see what SLURM says"),
    ],
)
def test_each_refusal_has_its_advice(tools: Path, said: str, advice: str) -> None:
    _write(tools / "sbatch", f"echo 'sbatch: error: first line' >&2; echo 'allocation failure: {said}' >&2; exit 1")
    finding = check_request("train_sft", Request(ASKED))
    assert finding.found.startswith("4 x h100, 24 h, 400 GB: ") and said in finding.found
    assert finding.advice.startswith(advice)


def test_downloads_that_are_missing_without_internet(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.cluster.check_cluster.reaches_hub", lambda: False)
    write_json(tmp_path / "work/models/base/manifest.json", {})
    finding = check_downloads(config, tmp_path / "work")
    assert finding.found == f"1 of 2 that the hub has are in {tmp_path / 'work'}"
    assert finding.advice.endswith("not brought yet: benchmark piqa")
    monkeypatch.setattr("scripts.cluster.check_cluster.reaches_hub", lambda: True)
    assert check_downloads(config, tmp_path / "work").advice == ""


def test_a_disk_that_is_too_small(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_disk(config, tmp_path).found.endswith("GB are needed at most")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    assert check_disk(config, tmp_path).advice.startswith("free some")
