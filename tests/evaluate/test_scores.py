"""Intervals of scores by hand and against SciPy, and the files of scores."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scripts.common.files import read_json, read_json_lines
from scripts.common.records import AnyManifest, Item
from scripts.evaluate.scores import describe_values, mean_interval, wilson, write_scores
from tests.report.tables import make_manifest, make_other


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
    assert mean_interval(np.array([0.3])) == (0.0, 1.0), "one item says nothing about the others"


@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=30))
def test_the_interval_contains_the_mean_and_stays_within_0_and_1(values: list[float]) -> None:
    low, high = mean_interval(np.array(values))
    assert 0 <= low <= high <= 1
    assert low - 1e-9 <= np.mean(values) <= high + 1e-9


def test_scores_and_items_are_written(tmp_path: Path) -> None:
    items: list[Item] = [
        {"key": str(i), "prompt": "p\u2028", "target": "t", "answer": "a", "score": float(i < 3)} for i in range(4)
    ]
    names = {"benchmark": "b", "model": "m", "task": "t", "metric": "acc"}
    others = [make_other("margin", 1.5, None, None, is_share=False)]
    provenance: AnyManifest = make_manifest("scores", "m on b", {}, {})
    score = write_scores(
        tmp_path / "b.json",
        tmp_path / "b.items.jsonl",
        items,
        others=others,
        protocol={"shots": 5},
        provenance=provenance,
        **names,
    )
    assert score == 0.75
    assert read_json_lines(tmp_path / "b.items.jsonl") == items
    written = read_json(tmp_path / "b.json")
    low, high = mean_interval(np.array([1.0, 1.0, 1.0, 0.0]))
    numbers = {"n": 4, "score": 0.75, "ci_low": low, "ci_high": high, "others": others}
    assert written == names | numbers | {"protocol": {"shots": 5}, "provenance": provenance}


@given(st.integers(1, 400), st.integers(0, 400))
def test_wilson_against_scipy(n: int, right: int) -> None:
    right = min(right, n)
    theirs = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right / n, n) == pytest.approx((theirs.low, theirs.high))


def test_intervals_of_other_numbers_are_not_limited() -> None:
    values = [np.array([value]) for value in (-3.0, 5.0, 10.0, 1.0)]
    described = describe_values(values, is_share=False)
    half = stats.t.ppf(0.975, 3) * np.std([-3, 5, 10, 1], ddof=1) / 2
    assert (described["ci_low"], described["ci_high"]) == pytest.approx((3.25 - half, 3.25 + half))


def test_values_of_an_item_are_resampled_together() -> None:
    """Ten items with three equal values prove no more than ten single values."""
    right = [i < 6 for i in range(10)]
    described = describe_values([np.full(3, float(value)) for value in right])
    assert described["n"] == 30 and described["score"] == pytest.approx(0.6)
    expected = np.quantile(np.random.default_rng(1).binomial(10, 0.6, 100_000) / 10, [0.025, 0.975])
    low, high = described["ci_low"], described["ci_high"]
    assert (low, high) == pytest.approx(tuple(expected), abs=0.1)
    assert low is not None and high is not None and high - low > 0.5 > 2 * 1.96 * np.sqrt(0.24 / 30)


def test_the_mean_is_over_values_not_items() -> None:
    """200 items have three values of 1, and 200 have one value of 0, so the mean of the 800 values is 0.75.

    By the delta method, the standard error of a ratio of sums is the standard deviation of `sum - 0.75 * size`, here
    0.75, divided by the mean size 2 and by the square root of 400: 0.01875.
    """
    described = describe_values([np.ones(3), np.zeros(1)] * 200)
    assert (described["n"], described["score"], described["is_share"]) == (800, 0.75, True)
    low, high = described["ci_low"], described["ci_high"]
    assert low is not None and 0.75 - low == pytest.approx(1.96 * 0.01875, rel=0.1)
    assert high is not None and high - 0.75 == pytest.approx(1.96 * 0.01875, rel=0.1)


def test_a_single_value_that_is_not_a_share_has_no_interval() -> None:
    row = describe_values([np.array([1.7])], is_share=False)
    assert row["score"] == 1.7 and row["ci_low"] is None and row["ci_high"] is None
