"""Downloads of questions from all kinds of sources."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub.constants import HF_HUB_CACHE

from scripts.common.errors import UserError
from scripts.common.files import hash_file, read_json, read_json_lines
from tests.common.running import OWN_TASKS, call_main, run_script


def _options(task: str, source: dict[str, Any]) -> dict[str, Any]:
    made = {
        "questions": "benchmark/questions.jsonl",
        "mirror": "benchmark/mirror",
        "manifest": "benchmark/manifest.json",
    }
    return {"name": "mine", "config": {"task": task, "source": source, "unsafe_code": False}, "tasks": OWN_TASKS} | made


def test_generated_questions(tmp_path: Path) -> None:
    source = {
        "kind": "package",
        "package": "reasoning-gym",
        "task": "chain_sum",
        "size": 12,
        "seed": 5,
        "parameters": {},
    }
    run = run_script("evaluate.download_benchmark", tmp_path, **_options("chain_sum", source))
    assert run.returncode == 0, run.stderr
    mirror = tmp_path / "benchmark" / "mirror" / "posttrain" / "chain_sum" / "test.parquet"
    rows = pq.read_table(mirror).to_pylist()
    questions = read_json_lines(tmp_path / "benchmark" / "questions.jsonl")
    assert [row["question"] for row in rows] == [question["question"] for question in questions]
    facts = read_json(tmp_path / "benchmark" / "manifest.json")["facts"]
    assert facts["questions"] == facts["rows"] == 12
    assert facts["sha256"] == hash_file(mirror)


def test_a_stock_task_from_a_local_mirror(tmp_path: Path, hub_mirror: Path) -> None:
    call_main(
        "evaluate.download_benchmark", tmp_path, **_options("arc_easy", {"kind": "file", "path": str(hub_mirror)})
    )
    questions = [row["question"] for row in read_json_lines(tmp_path / "benchmark" / "questions.jsonl")]
    assert len(questions) == 12
    assert questions[0] == "Question: Which word names what I saw, the stone?\nAnswer:"
    facts = read_json(tmp_path / "benchmark" / "manifest.json")["facts"]
    test = "allenai/ai2_arc/ARC-Easy/test.parquet"
    assert facts["files"][test] == hash_file(hub_mirror / test)
    assert (tmp_path / "benchmark" / "mirror" / test).is_file()


def test_a_stock_task_at_a_revision(tmp_path: Path, hub_mirror: Path) -> None:
    """From the hub's cache, which has this commit."""
    commit = "0123456789abcdef" * 2 + "01234567"
    snapshot = Path(HF_HUB_CACHE) / "datasets--allenai--ai2_arc" / "snapshots" / commit
    shutil.copytree(hub_mirror / "allenai" / "ai2_arc", snapshot)
    source = {"kind": "hub", "repository": "allenai/ai2_arc", "revision": commit}
    try:
        call_main("evaluate.download_benchmark", tmp_path, **_options("arc_easy", source))
        with pytest.raises(UserError, match=r"^benchmarks.mine.source: allenai/ai2_arc at v9 cannot be loaded: "):
            call_main("evaluate.download_benchmark", tmp_path, **_options("arc_easy", source | {"revision": "v9"}))
    finally:
        shutil.rmtree(snapshot.parents[1])
    facts = read_json(tmp_path / "benchmark" / "manifest.json")["facts"]
    assert facts["revisions"] == {"allenai/ai2_arc": commit} and facts["questions"] == 12


def test_a_mirror_without_the_data_is_reported_in_one_line(tmp_path: Path, hub_mirror: Path) -> None:
    with pytest.raises(UserError) as caught:
        call_main(
            "evaluate.download_benchmark", tmp_path, **_options("gsm8k", {"kind": "file", "path": str(hub_mirror)})
        )
    assert str(caught.value).startswith("benchmarks.mine: the data of task gsm8k cannot be loaded: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "benchmark" / "manifest.json").exists()


def test_real_questions(tmp_path: Path, real_hub: Path) -> None:
    call_main("evaluate.download_benchmark", tmp_path, **_options("gsm8k", {"kind": "file", "path": str(real_hub)}))
    questions = read_json_lines(tmp_path / "benchmark" / "questions.jsonl")
    assert len(questions) == 1319
    assert questions[0]["question"].startswith("Question: Janet")
    assert any(text.startswith("Janet") for text in questions[0]["texts"]), "training rows contain the bare question"
