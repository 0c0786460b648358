"""Reading scores with their items, and refusing pairs that do not match."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.common.errors import UserError
from scripts.common.files import write_json, write_json_lines
from scripts.evaluate.paired_scores import ItemScores, read_scores, require_same, split_difference
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


# --- where a difference comes from -----------------------------------------------------------------


def _read(folder: Path, model: str, items: list[dict[str, object]]) -> ItemScores:
    write_json(folder / f"{model}.json", make_score(model, "b", "acc", 0.5))
    write_json_lines(folder / f"{model}.jsonl", items)
    (read,) = read_scores([folder / f"{model}.json"], [folder / f"{model}.jsonl"])
    return read


def test_a_difference_is_split_by_the_answers_of_the_baseline(tmp_path: Path) -> None:
    """By hand: of ten items, base gave four without a number, three wrong and three right numbers."""
    before = [(False, 0)] * 4 + [(True, 0)] * 3 + [(True, 1)] * 3
    after = [1, 1, 1, 0, 1, 0, 0, 1, 1, 0]
    keys = [str(place) for place in range(10)]
    base = _read(
        tmp_path,
        "base",
        [{"key": key, "score": score, "is_readable": read} for key, (read, score) in zip(keys, before, strict=True)],
    )
    items = [{"key": key, "score": score, "is_readable": True} for key, score in zip(keys, after, strict=True)]
    sft = _read(tmp_path, "sft", items[::-1])
    assert base.unreadable == frozenset("0123") and sft.unreadable == frozenset()
    assert split_difference(base, sft) == {
        "unreadable": {"items": 4, "difference": 0.3},
        "wrong": {"items": 3, "difference": 0.1},
        "right": {"items": 3, "difference": -0.1},
    }
    back = split_difference(sft, base)
    assert back is not None and back["unreadable"] == {"items": 0, "difference": 0.0}


def test_without_a_filter_there_is_no_split(tmp_path: Path) -> None:
    base = _read(tmp_path, "base", [{"key": "x", "score": 1.0}])
    assert base.unreadable is None and split_difference(base, base) is None


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60))
def test_the_parts_add_up_exactly(items: list[tuple[bool, float, float]]) -> None:
    """Of any scores: the sums over items of the parts are that of the difference, to the last bit that floats keep."""
    keys = [str(place) for place in range(len(items))]
    score = make_score("base", "b", "acc", 0.5)
    unread = frozenset(key for key, (read, _, _) in zip(keys, items, strict=True) if not read)
    base = ItemScores(Path("a"), score, {key: one[1] for key, one in zip(keys, items, strict=True)}, unread)
    sft = ItemScores(Path("b"), score, {key: one[2] for key, one in zip(keys, items, strict=True)}, unread)
    origin = split_difference(base, sft)
    assert origin is not None
    parts = [origin["unreadable"], origin["wrong"], origin["right"]]
    assert sum(part["items"] for part in parts) == len(items)
    difference = math.fsum(after - before for _, before, after in items) / len(items)
    assert math.fsum(part["difference"] for part in parts) == pytest.approx(difference, abs=4e-16)
    assert origin["unreadable"]["items"] == len(unread)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_parts_of_right_and_wrong_answers_are_whole_items(items: list[tuple[bool, bool, bool]]) -> None:
    keys = [str(place) for place in range(len(items))]
    score = make_score("base", "b", "acc", 0.5)
    unread = frozenset(key for key, (read, _, _) in zip(keys, items, strict=True) if not read)
    base = ItemScores(Path("a"), score, {key: float(one[1]) for key, one in zip(keys, items, strict=True)}, unread)
    sft = ItemScores(Path("b"), score, {key: float(one[2]) for key, one in zip(keys, items, strict=True)}, unread)
    origin = split_difference(base, sft)
    assert origin is not None
    wholes = [
        round(part["difference"] * len(items)) for part in (origin["unreadable"], origin["wrong"], origin["right"])
    ]
    assert sum(wholes) == sum(after - before for _, before, after in items)
