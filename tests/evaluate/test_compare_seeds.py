"""Stages of several seeds: a claim needs more than one lucky seed, and more than a few lucky items."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json, write_json_lines
from scripts.evaluate.compare_models import Family, Values
from scripts.evaluate.compare_seeds import crossed_test
from tests.common.running import call_main

RUNS = 1_000

Draw = Callable[[np.random.Generator], Values]


def graded(items: int, seeds: int, of_items: float, of_seeds: float) -> Draw:
    """Differences of graded scores whose items, seeds and rest vary so much."""
    return lambda random: (
        random.normal(0, of_items, (items, 1))
        + random.normal(0, of_seeds, (1, seeds))
        + random.normal(0, 0.3, (items, seeds))
    )


def right_or_wrong(items: int, seeds: int, of_seeds: float) -> Draw:
    """Differences of right and wrong answers, where a seed makes all items a little easier or harder."""

    def draw(random: np.random.Generator) -> Values:
        ease = random.random(items)
        before = (random.random(items) < ease).astype(float)
        drifts = random.normal(0, of_seeds, seeds)
        after = [(random.random(items) < np.clip(ease + drift, 0, 1)).astype(float) for drift in drifts]
        return np.stack(after, axis=1) - before[:, None]

    return draw


NULLS = {
    "items vary": graded(200, 3, 1.0, 0.0),
    "both vary": graded(100, 5, 0.3, 0.1),
    "seeds vary": graded(200, 3, 0.3, 0.2),
    "two seeds": graded(30, 2, 0.3, 0.1),
    "right or wrong": right_or_wrong(200, 4, 0.1),
}


@pytest.mark.parametrize("name", NULLS)
def test_claims_of_a_difference_that_is_not_there_are_rare(name: str) -> None:
    """At most 5 % of so many runs, within what chance adds to such a share."""
    random = np.random.default_rng(0)
    claims = sum(crossed_test(NULLS[name](random), Family(0.05, 0))[0] < 0.05 for _ in range(RUNS))
    assert claims / RUNS <= 0.05 + 2 * (0.05 * 0.95 / RUNS) ** 0.5


def test_items_are_not_counted_once_a_seed() -> None:
    """Ten seeds of the same answers say no more than one of them."""
    once = np.random.default_rng(1).normal(0.3, 1, (40, 1))
    p_value, low, high = crossed_test(np.repeat(once, 10, axis=1), Family(0.05, 0))
    expected = stats.ttest_1samp(once[:, 0], 0)
    interval = expected.confidence_interval(0.95)
    assert p_value == pytest.approx(expected.pvalue)
    assert (low, high) == pytest.approx((interval.low, interval.high))


def test_seeds_that_disagree_widen_the_interval() -> None:
    random = np.random.default_rng(2)
    noise = random.normal(0, 0.3, (200, 3))
    agreeing, disagreeing = noise + 0.2, noise + np.array([0.0, 0.2, 0.4])
    assert crossed_test(agreeing, Family(0.05, 0))[0] < 0.05 < crossed_test(disagreeing, Family(0.05, 0))[0]


def test_the_interval_leaves_out_zero_where_p_is_below_alpha() -> None:
    for start in range(40):
        differences = np.random.default_rng(start).normal(0.05, 0.3, (60, 3))
        for alpha in (0.01, 0.05, 0.2):
            p_value, low, high = crossed_test(differences, Family(alpha, 0))
            assert (low > 0 or high < 0) is (p_value < alpha)


def test_what_has_no_variance_is_left_to_the_items() -> None:
    assert crossed_test(np.zeros((20, 3)), Family(0.05, 0))[0] == 1.0
    p_value, low, _ = crossed_test(np.ones((20, 3)), Family(0.05, 0))
    assert p_value < 1e-4 and low > 0.5, "twenty items that all three seeds have gained"
    assert crossed_test(np.ones((1, 3)), Family(0.05, 0)) == (1.0, -1.0, 1.0)


@pytest.fixture
def scored(tmp_path: Path) -> Callable[[str, list[float]], Path]:
    """Write the scores of a model on `sums`, item by item."""

    def write(model: str, values: list[float]) -> Path:
        path = tmp_path / model / "sums.json"
        write_json(path, {"model": model, "benchmark": "sums", "metric": "acc", "protocol": {"shots": len(values) % 2}})
        write_json_lines(path.with_suffix(".items.jsonl"), [{"key": str(i), "score": v} for i, v in enumerate(values)])
        return path

    return write


def run(folder: Path, paths: list[Path], comparisons: list[dict[str, Any]]) -> Any:
    call_main(
        "evaluate.compare_seeds",
        folder,
        alpha=0.05,
        seed=1,
        comparisons=json.dumps(comparisons),
        scores=paths,
        output="seeds.json",
        manifest="manifest.json",
    )
    return read_json(folder / "seeds.json")


def test_each_seed_is_compared_with_its_own_baseline(
    tmp_path: Path, scored: Callable[[str, list[float]], Path]
) -> None:
    paths = [scored(name, [0.0, 0.0, 1.0, 0.0] * 10) for name in ("old", "new")]
    paths += [scored("old_b", [1.0, 1.0, 1.0, 0.0] * 10), scored("new_b", [1.0] * 40), scored("stranger", [1.0])]
    (row,) = run(tmp_path, paths, [{"baseline": "old", "stage": "new", "pairs": [["old", "new"], ["old_b", "new_b"]]}])
    assert (row["benchmark"], row["stage"], row["seeds"], row["n"]) == ("sums", "new", 2, 40)
    assert row["differences"] == [0.0, 0.25] and row["difference"] == 0.125
    assert row["verdict"] == "no difference found", "two seeds that disagree"
    assert len(read_json(tmp_path / "manifest.json")["inputs"]) == 4
    assert run(tmp_path, paths, []) == []


def test_seeds_scored_under_different_protocols_are_refused(
    tmp_path: Path, scored: Callable[[str, list[float]], Path]
) -> None:
    paths = [scored("base", [0.0, 1.0]), scored("a", [0.0, 1.0]), scored("b", [0.0])]
    with pytest.raises(UserError, match="b against base on sums: scored under different protocols"):
        run(tmp_path, paths, [{"baseline": "base", "stage": "a", "pairs": [["base", "a"], ["base", "b"]]}])


def test_seeds_scored_on_different_items_are_refused(
    tmp_path: Path, scored: Callable[[str, list[float]], Path]
) -> None:
    paths = [scored("base", [0.0, 1.0, 0.0]), scored("a", [0.0, 1.0, 0.0]), scored("b", [0.0])]
    with pytest.raises(UserError, match="b against base on sums: scored on different items"):
        run(tmp_path, paths, [{"baseline": "base", "stage": "a", "pairs": [["base", "a"], ["base", "b"]]}])
