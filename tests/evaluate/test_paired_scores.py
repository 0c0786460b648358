"""Reading scores with their items, and refusing pairs that do not match."""

from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.common.files import write_json, write_json_lines
from scripts.evaluate.paired_scores import ItemScores, read_scores, require_same
from tests.evaluate.pairs import make_item_scores
from tests.report.tables import make_score


def test_scores_and_items_are_matched_by_order(tmp_path: Path) -> None:
    """File names do not matter."""
    scores, items = [], []
    for place, (model, value) in enumerate((("sft", 1.0), ("base", 0.0))):
        scores.append(tmp_path / f"score{place}.json")
        items.append(tmp_path / f"lines{place}.jsonl")
        write_json(scores[-1], make_score(model, "sums", "acc", value))
        write_json_lines(items[-1], [{"key": "x", "score": value}])
    read = read_scores(scores, items)
    assert [(one.name, one.items) for one in read] == [(("sft", "sums"), {"x": 1.0}), (("base", "sums"), {"x": 0.0})]
    assert [one.path for one in read] == scores
    with pytest.raises(UserError, match=r"--scores has 2 files, and --items has 1; give the items of each score"):
        read_scores(scores, items[:1])


def test_items_of_other_models_are_not_read(tmp_path: Path) -> None:
    write_json(tmp_path / "b.json", make_score("base", "b", "acc", 0.5))
    assert read_scores([tmp_path / "b.json"], [tmp_path / "missing.jsonl"], {"sft"}) == []
    with pytest.raises(FileNotFoundError):
        read_scores([tmp_path / "b.json"], [tmp_path / "missing.jsonl"], {"sft", "base"})


def test_equal_rows_are_separate_items(tmp_path: Path) -> None:
    write_json(tmp_path / "b.json", make_score("base", "b", "acc", 0.5))
    write_json_lines(tmp_path / "b.jsonl", [{"key": "x", "score": s} for s in (0.0, 1.0, 1.0)])
    (read,) = read_scores([tmp_path / "b.json"], [tmp_path / "b.jsonl"])
    assert read.items == {"x": 0.0, "x (2)": 1.0, "x (3)": 1.0}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (make_item_scores("sft", {"x": 1.0, "z": 1.0}), "scored on different items"),
        (make_item_scores("sft", {"x": 1.0}), "scored on different items"),
        (make_item_scores("sft", {"x": 1.0, "y": 0.0}, "no shots"), "scored under different protocols"),
    ],
)
def test_refuses_different_items_and_protocols(other: ItemScores, words: str) -> None:
    base = make_item_scores("base", {"x": 1.0, "y": 0.0})
    require_same(base, make_item_scores("sft", {"y": 1.0, "x": 1.0}))
    with pytest.raises(UserError) as caught:
        require_same(base, other)
    assert str(caught.value) == f"sft against base on b: {words}; run both again"
