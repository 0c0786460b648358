"""Parts of a benchmark's mirror: MMLU's development questions, nltk's tables, and commits of data sets."""

import importlib.resources
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.common.config import FileBenchmark
from scripts.common.errors import UserError
from scripts.evaluate.benchmark_mirror import find_revision, make_mirror, read_mmlu_development, write_sentence_tables
from scripts.evaluate.tasks import enter_mirror
from tests.common.running import OWN_TASKS


def test_refuses_a_mirror_that_is_not_a_folder(tmp_path: Path) -> None:
    source = FileBenchmark(kind="file", path=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"^benchmarks.mine.source.path: .*none is not a folder$"):
        make_mirror(source, tmp_path / "mirror", "arc_easy", OWN_TASKS, "mine")


def test_the_commit_comes_from_the_cache_folder() -> None:
    folder = f"/cache/openai___gsm8k/main/0.0.0/{'a1' * 20}"
    split = SimpleNamespace(cache_files=[{"filename": f"{folder}/gsm8k-test.arrow"}])
    task = SimpleNamespace(DATASET_PATH="openai/gsm8k", dataset={"test": split})
    assert find_revision(task) == {"openai/gsm8k": "a1" * 20}
    local = SimpleNamespace(cache_files=[{"filename": "/cache/parquet/main-0123/0.0.0/0123/test.arrow"}])
    assert find_revision(SimpleNamespace(DATASET_PATH="x/y", dataset={"test": local})) == {}


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
    # Subjects alternate, so the first questions cover all of them.
    assert len({row["subject"] for row in rows[:57]}) == 57
    anatomy = next(row for row in rows if row["subject"] == "abstract algebra")
    assert anatomy["question"].startswith("Statement 1 | Every element of a group generates a cyclic subgroup")
    assert anatomy["choices"] == ["True, True", "False, False", "True, False", "False, True"]
    assert anatomy["choices"][anatomy["answer"]] == "True, False"


def test_sentence_tables_work_in_a_shared_folder() -> None:
    """nltk refuses tables that others may write. The private folders of pytest would hide that."""
    import nltk

    with tempfile.TemporaryDirectory() as folder:
        mirror = Path(folder)
        mirror.chmod(0o755)
        before = list(nltk.data.path)
        write_sentence_tables(mirror / "nltk_data")
        nltk.data.path[:] = before
        assert not any(path.stat().st_mode & 0o022 for path in mirror.rglob("*"))
        with enter_mirror(mirror, unsafe_code=False):
            assert nltk.sent_tokenize("Dr. Smith came. He left.") == ["Dr. Smith came.", "He left."]
        nltk.data.path[:] = before
