"""Scores are written with their n and interval, whatever was scored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.common.files import read_json, read_json_lines
from scripts.evaluate.scores import mean_interval, write_scores


def test_wilson_by_hand() -> None:
    """81 of 263, the example of Newcombe (1998), Statistics in Medicine 17, 857-872: 0.2553 to 0.3662."""
    assert mean_interval(np.array([1.0] * 81 + [0.0] * 182)) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_all_right_and_all_wrong_still_have_an_interval() -> None:
    # Wilson at p = 1: n / (n + z^2), with z = 1.959964.
    bound = 10 / (10 + 1.959963985**2)
    assert mean_interval(np.ones(10)) == pytest.approx((bound, 1.0))
    assert mean_interval(np.zeros(10)) == pytest.approx((0.0, 1 - bound))


def test_student_by_hand() -> None:
    """Mean 0.5, deviation 0.1 * sqrt(2.5), t = 2.776 with four degrees of freedom."""
    half = 2.7764451 * 0.1 * 2.5**0.5 / 5**0.5
    assert mean_interval(np.array([0.3, 0.4, 0.5, 0.6, 0.7])) == pytest.approx((0.5 - half, 0.5 + half))
    assert mean_interval(np.array([0.3])) == (0.0, 1.0), "one item says nothing about others"


@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=30))
def test_the_interval_holds_the_mean_and_stays_a_share(values: list[float]) -> None:
    low, high = mean_interval(np.array(values))
    assert 0 <= low <= high <= 1
    assert low - 1e-9 <= np.mean(values) <= high + 1e-9


def test_what_is_written(tmp_path: Path) -> None:
    items: list[dict[str, Any]] = [
        {"key": str(i), "prompt": "p\u2028", "target": "t", "answer": "a", "score": float(i < 3)} for i in range(4)
    ]
    names = {"benchmark": "b", "model": "m", "task": "t", "metric": "acc"}
    score = write_scores(tmp_path / "b.json", tmp_path / "b.items.jsonl", items, protocol={"shots": 5}, **names)
    assert score == 0.75
    assert read_json_lines(tmp_path / "b.items.jsonl") == items
    written = read_json(tmp_path / "b.json")
    low, high = mean_interval(np.array([1.0, 1.0, 1.0, 0.0]))
    assert written == names | {"n": 4, "score": 0.75, "ci_low": low, "ci_high": high, "protocol": {"shots": 5}}
