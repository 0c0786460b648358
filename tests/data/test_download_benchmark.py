"""The questions of a benchmark are there before a compute job starts, whichever way they come."""

import importlib.resources
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub.constants import HF_HUB_CACHE

from scripts.common.config import FileBenchmark
from scripts.common.errors import UserError
from scripts.common.files import hash_file, read_json, read_json_lines
from scripts.data.download_benchmark import find_revision, make_mirror, read_mmlu_development
from tests.common.running import OWN_TASKS, call_main, run_script


def _options(task: str, source: dict[str, Any]) -> dict[str, Any]:
    made = {"questions": "benchmark/questions.jsonl", "manifest": "benchmark/manifest.json"}
    return {"name": "mine", "config": {"task": task, "source": source, "unsafe_code": False}, "tasks": OWN_TASKS} | made


def test_made_tasks(tmp_path: Path) -> None:
    source = {
        "kind": "package",
        "package": "reasoning-gym",
        "task": "chain_sum",
        "size": 12,
        "seed": 5,
        "parameters": {},
    }
    run = run_script("data.download_benchmark", tmp_path, **_options("chain_sum", source))
    assert run.returncode == 0, run.stderr
    mirror = tmp_path / "benchmark" / "mirror" / "posttrain" / "chain_sum" / "test.parquet"
    rows = pq.read_table(mirror).to_pylist()
    questions = read_json_lines(tmp_path / "benchmark" / "questions.jsonl")
    assert [row["question"] for row in rows] == [question["question"] for question in questions]
    facts = read_json(tmp_path / "benchmark" / "manifest.json")["facts"]
    assert facts["questions"] == facts["rows"] == 12
    assert facts["sha256"] == hash_file(mirror)


def test_a_stock_task_in_a_mirror_of_the_hub(tmp_path: Path, hub_mirror: Path) -> None:
    call_main("data.download_benchmark", tmp_path, **_options("arc_easy", {"kind": "file", "path": str(hub_mirror)}))
    questions = [row["question"] for row in read_json_lines(tmp_path / "benchmark" / "questions.jsonl")]
    assert len(questions) == 12
    assert questions[0] == "Question: Which word names what I saw, the stone?\nAnswer:"
    facts = read_json(tmp_path / "benchmark" / "manifest.json")["facts"]
    test = "allenai/ai2_arc/ARC-Easy/test.parquet"
    assert facts["files"][test] == hash_file(hub_mirror / test)
    assert (tmp_path / "benchmark" / "mirror" / test).is_file()


def test_a_stock_task_at_a_revision(tmp_path: Path, hub_mirror: Path) -> None:
    """Out of the hub's cache, where somebody has brought this commit."""
    commit = "0123456789abcdef" * 2 + "01234567"
    snapshot = Path(HF_HUB_CACHE) / "datasets--allenai--ai2_arc" / "snapshots" / commit
    shutil.copytree(hub_mirror / "allenai" / "ai2_arc", snapshot)
    source = {"kind": "hub", "repository": "allenai/ai2_arc", "revision": commit}
    try:
        call_main("data.download_benchmark", tmp_path, **_options("arc_easy", source))
        with pytest.raises(UserError, match=r"^benchmarks.mine.source: allenai/ai2_arc at v9 cannot be had: "):
            call_main("data.download_benchmark", tmp_path, **_options("arc_easy", source | {"revision": "v9"}))
    finally:
        shutil.rmtree(snapshot.parents[1])
    facts = read_json(tmp_path / "benchmark" / "manifest.json")["facts"]
    assert facts["revisions"] == {"allenai/ai2_arc": commit} and facts["questions"] == 12


def test_the_commit_is_found_in_the_cache() -> None:
    folder = f"/cache/openai___gsm8k/main/0.0.0/{'a1' * 20}"
    split = SimpleNamespace(cache_files=[{"filename": f"{folder}/gsm8k-test.arrow"}])
    task = SimpleNamespace(DATASET_PATH="openai/gsm8k", dataset={"test": split})
    assert find_revision(task) == {"openai/gsm8k": "a1" * 20}
    local = SimpleNamespace(cache_files=[{"filename": "/cache/parquet/main-0123/0.0.0/0123/test.arrow"}])
    assert find_revision(SimpleNamespace(DATASET_PATH="x/y", dataset={"test": local})) == {}


def test_a_mirror_without_the_data_is_one_line(tmp_path: Path, hub_mirror: Path) -> None:
    with pytest.raises(UserError) as caught:
        call_main("data.download_benchmark", tmp_path, **_options("gsm8k", {"kind": "file", "path": str(hub_mirror)}))
    assert str(caught.value).startswith("benchmarks.mine: the data of task gsm8k cannot be read: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "benchmark" / "manifest.json").exists()


def test_a_mirror_that_is_no_folder(tmp_path: Path) -> None:
    source = FileBenchmark(kind="file", path=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"^benchmarks.mine.source.path: .*none is no folder$"):
        make_mirror(source, tmp_path / "mirror", "arc_easy", OWN_TASKS, "mine")


def test_real_questions(tmp_path: Path, real_hub: Path) -> None:
    call_main("data.download_benchmark", tmp_path, **_options("gsm8k", {"kind": "file", "path": str(real_hub)}))
    questions = read_json_lines(tmp_path / "benchmark" / "questions.jsonl")
    assert len(questions) == 1319
    assert questions[0]["question"].startswith("Question: Janet")
    assert any(text.startswith("Janet") for text in questions[0]["texts"]), "a training row holds the bare question"


def test_development_questions_of_mmlu() -> None:
    rows, left_out = read_mmlu_development()
    prompts = importlib.resources.files("lm_eval") / "tasks" / "mmlu" / "flan_cot_fewshot" / "_cot_prompts.json"
    texts = json.loads(prompts.read_text(encoding="utf-8"))
    assert len(rows) + left_out == sum(text.count("\n\nQ: ") for text in texts.values()), "every question is counted"
    assert len(rows) > 250
    for row in rows:
        assert len(row["choices"]) == 4 and all(row["choices"]), row
        assert row["answer"] in range(4)
        assert row["question"] and "(A)" not in row["question"]
    # Subjects take turns, so that a first few questions are spread over them.
    assert len({row["subject"] for row in rows[:57]}) == 57
    anatomy = next(row for row in rows if row["subject"] == "abstract algebra")
    assert anatomy["question"].startswith("Statement 1 | Every element of a group generates a cyclic subgroup")
    assert anatomy["choices"] == ["True, True", "False, False", "True, False", "False, True"]
    assert anatomy["choices"][anatomy["answer"]] == "True, False"
