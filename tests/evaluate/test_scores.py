"""Scores are written with their n and interval, whatever was scored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scripts.common.files import read_json, read_json_lines
from scripts.evaluate.scores import describe_values, mean_interval, wilson, write_scores


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


@given(st.integers(1, 400), st.integers(0, 400))
def test_wilson_is_that_of_scipy(n: int, right: int) -> None:
    right = min(right, n)
    theirs = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right / n, n) == pytest.approx((theirs.low, theirs.high))


def test_values_that_are_no_shares_have_no_bounds() -> None:
    values = [np.array([value]) for value in (-3.0, 5.0, 10.0, 1.0)]
    described = describe_values(values, is_share=False)
    half = stats.t.ppf(0.975, 3) * np.std([-3, 5, 10, 1], ddof=1) / 2
    assert (described["ci_low"], described["ci_high"]) == pytest.approx((3.25 - half, 3.25 + half))


def test_items_with_several_values_are_drawn_together() -> None:
    """Ten items whose three values agree say no more than ten single values."""
    right = [i < 6 for i in range(10)]
    described = describe_values([np.full(3, float(value)) for value in right])
    assert (described["n"], described["score"]) == (30, pytest.approx(0.6))
    low, high = np.quantile(np.random.default_rng(1).binomial(10, 0.6, 100_000) / 10, [0.025, 0.975])
    assert (described["ci_low"], described["ci_high"]) == pytest.approx((low, high), abs=0.1)
    assert described["ci_high"] - described["ci_low"] > 0.5 > 2 * 1.96 * np.sqrt(0.24 / 30)


def test_a_single_value_that_is_no_share_has_no_bounds() -> None:
    row = describe_values([np.array([1.7])], is_share=False)
    assert row["score"] == 1.7 and row["ci_low"] is None and row["ci_high"] is None
