"""Files that jobs read and no rule writes."""

from pathlib import Path
from typing import Any

import pytest

from scripts.common.config import Benchmark, BenchmarkSource, Dataset
from scripts.common.files import write_text
from scripts.common.job_inputs import local_files, mirror_files, own_scoring, own_task_files
from tests.common.running import OWN_TASKS, REPOSITORY


def dataset(source: dict[str, Any]) -> Dataset:
    return Dataset.model_validate({"source": source})


def benchmark_source(**fields: str) -> BenchmarkSource:
    return Benchmark.model_validate({"task": "piqa", "metric": "acc", "source": fields}).source


HUB = {"kind": "hub", "repository": "some/rows", "revision": "0" * 40}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with some files."""
    for name in ("b.jsonl", "a.jsonl", "a.csv", "deep/down/c.jsonl"):
        write_text(tmp_path / name, "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("a.csv", ["a.csv"]),
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "b.jsonl", "deep/down/c.jsonl"]),
        ("nowhere.jsonl", []),
        ("nowhere/**", []),
    ],
)
def test_files_of_a_data_set_are_sorted_by_name(folder: Path, pattern: str, files: list[str]) -> None:
    assert local_files(dataset({"kind": "file", "path": pattern})) == files
    absolute = [str(folder / file) for file in files]
    assert local_files(dataset({"kind": "file", "path": str(folder / pattern)})) == absolute


def test_files_of_all_parts_of_a_mixture(folder: Path) -> None:
    sources = [HUB, {"kind": "file", "path": "b.jsonl"}, {"kind": "file", "path": "a.*"}]
    parts = {f"part{number}": {"source": source} for number, source in enumerate(sources)}
    assert local_files(dataset({"kind": "mixture", "parts": parts})) == ["a.csv", "a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("source", [HUB, {"kind": "rejections", "model": "sft", "dataset": "sums"}], ids=["hub", "own"])
def test_other_data_sets_have_no_files(folder: Path, source: dict[str, Any]) -> None:
    assert local_files(dataset(source)) == []


def test_files_of_a_mirror_without_folders(folder: Path) -> None:
    expected = ["./a.csv", "./a.jsonl", "./b.jsonl", "./deep/down/c.jsonl"]
    assert mirror_files(benchmark_source(kind="file", path=".")) == expected
    assert mirror_files(benchmark_source(kind="file", path="nowhere")) == []
    assert mirror_files(benchmark_source(kind="hub")) == mirror_files(benchmark_source(kind="own")) == []


@pytest.mark.parametrize(
    ("task", "files"),
    [
        ("traps", ["traps.yaml", "traps.py", "traps.jsonl"]),
        ("chain_sum", ["chain_sum.yaml"]),
        ("hellaswag", []),
    ],
)
def test_files_of_our_own_tasks(task: str, files: list[str]) -> None:
    assert own_task_files(task) == [OWN_TASKS / file for file in files]


def test_only_tasks_with_code_have_a_scoring_module() -> None:
    (module,) = own_scoring("traps")
    assert module == REPOSITORY / "scripts/evaluate/rubric.py" and module.is_file()
    assert "scripts.evaluate.rubric" in (OWN_TASKS / "traps.py").read_text(encoding="utf-8")
    assert own_scoring("chain_sum") == own_scoring("hellaswag") == []
