"""Comparisons over items and seeds: neither one lucky seed nor a few lucky items make a difference."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from scripts.common.config import ExpectedChange
from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json, write_json_lines
from scripts.evaluate.compare_seeds import SMALLEST, crossed_test
from scripts.evaluate.paired_statistics import Family, Values
from tests.common.running import call_main
from tests.report.tables import make_registration

RUNS = 1_000

Draw = Callable[[np.random.Generator], Values]


def graded(items: int, seeds: int, of_items: float, of_seeds: float) -> Draw:
    """Differences of graded scores, with these standard deviations between items and seeds, and 0.3 within."""
    return lambda random: (
        random.normal(0, of_items, (items, 1))
        + random.normal(0, of_seeds, (1, seeds))
        + random.normal(0, 0.3, (items, seeds))
    )


def right_or_wrong(items: int, seeds: int, of_seeds: float) -> Draw:
    """Differences of binary scores, where each seed makes all items slightly easier or harder."""

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
def test_false_claims_of_a_difference_are_rare(name: str) -> None:
    """At most 5 % of the runs, plus two standard errors of that share."""
    random = np.random.default_rng(0)
    claims = sum(crossed_test(NULLS[name](random), Family(0.05, 0))[0] < 0.05 for _ in range(RUNS))
    assert claims / RUNS <= 0.05 + 2 * (0.05 * 0.95 / RUNS) ** 0.5


def test_items_do_not_count_once_for_each_seed() -> None:
    """Ten seeds with the same answers prove no more than one."""
    once = np.random.default_rng(1).normal(0.3, 1, (40, 1))
    p_value, low, high = crossed_test(np.repeat(once, 10, axis=1), Family(0.05, 0))
    expected = stats.ttest_1samp(once[:, 0], 0)
    interval = expected.confidence_interval(0.95)
    assert p_value == pytest.approx(expected.pvalue)
    assert (low, high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_only_seeds_vary(alpha: float) -> None:
    """If all items change equally, it is Student's t test of the seeds."""
    of_seeds = [0.1, 0.2, 0.15, 0.4]
    p_value, low, high = crossed_test(np.tile(of_seeds, (50, 1)), Family(alpha, 0))
    expected = stats.ttest_1samp(of_seeds, 0)
    interval = expected.confidence_interval(1 - alpha)
    assert p_value == pytest.approx(expected.pvalue)
    assert (low, high) == pytest.approx((interval.low, interval.high))


def test_margins_of_items_and_seeds_are_combined_by_hand() -> None:
    """Two items and two seeds.

    The item means, 0.2 and 0.4, have a standard error of 0.1, and the seed means, 0.25 and 0.35, of 0.05. t(0.75) with
    one degree of freedom is 1, so the margin at an alpha of 0.5 is the square root of 0.1^2 + 0.05^2.
    """
    differences = np.array([[0.15, 0.25], [0.35, 0.45]])
    p_value, low, high = crossed_test(differences, Family(0.5, 0))
    assert (low, high) == pytest.approx((0.3 - 0.0125**0.5, 0.3 + 0.0125**0.5))
    # At p, the quantile tan(pi (1 - p) / 2) times that root is 0.3.
    assert p_value == pytest.approx(1 - 2 / np.pi * np.arctan(0.3 / 0.0125**0.5))


def test_p_values_have_a_lower_limit() -> None:
    differences = 0.5 + np.random.default_rng(4).normal(0, 1e-4, (100, 20))
    p_value, low, high = crossed_test(differences, Family(0.05, 0))
    assert p_value == SMALLEST and 0.499 < low < high < 0.501


def test_seeds_that_disagree_widen_the_interval() -> None:
    random = np.random.default_rng(2)
    noise = random.normal(0, 0.3, (200, 3))
    agreeing, disagreeing = noise + 0.2, noise + np.array([0.0, 0.2, 0.4])
    assert crossed_test(agreeing, Family(0.05, 0))[0] < 0.05 < crossed_test(disagreeing, Family(0.05, 0))[0]


def test_the_interval_excludes_zero_if_and_only_if_p_is_below_alpha() -> None:
    for start in range(40):
        differences = np.random.default_rng(start).normal(0.05, 0.3, (60, 3))
        for alpha in (0.01, 0.05, 0.2):
            p_value, low, high = crossed_test(differences, Family(alpha, 0))
            assert (low > 0 or high < 0) is (p_value < alpha)


def test_without_variance_only_the_number_of_items_counts() -> None:
    assert crossed_test(np.zeros((20, 3)), Family(0.05, 0))[0] == 1.0
    p_value, low, _ = crossed_test(np.ones((20, 3)), Family(0.05, 0))
    assert p_value < 1e-4 and low > 0.5, "all three seeds gained all twenty items"
    assert crossed_test(np.ones((1, 3)), Family(0.05, 0)) == (1.0, -1.0, 1.0)


@pytest.fixture
def scored(tmp_path: Path) -> Callable[..., Path]:
    """Write the scores of a model on a benchmark, item by item."""

    def write(model: str, values: list[float], benchmark: str = "sums", metric: str = "acc") -> Path:
        path = tmp_path / model / f"{benchmark}.json"
        facts = {"benchmark": benchmark, "metric": metric, "protocol": {"shots": len(values) % 2}}
        write_json(path, {"model": model} | facts)
        write_json_lines(path.with_suffix(".items.jsonl"), [{"key": str(i), "score": v} for i, v in enumerate(values)])
        return path

    return write


def run(
    folder: Path, paths: list[Path], comparisons: list[dict[str, Any]], *expected: ExpectedChange, alpha: float = 0.05
) -> Any:
    write_json(folder / "expectations.json", [make_registration(*expected)])
    call_main(
        "evaluate.compare_seeds",
        folder,
        alpha=alpha,
        seed=1,
        comparisons=json.dumps(comparisons),
        expectations="expectations.json",
        scores=paths,
        items=[path.with_suffix(".items.jsonl") for path in paths],
        output="seeds.json",
        manifest="manifest.json",
    )
    return read_json(folder / "seeds.json")


def test_each_seed_is_compared_with_its_own_baseline(tmp_path: Path, scored: Callable[..., Path]) -> None:
    paths = [scored(name, [0.0, 0.0, 1.0, 0.0] * 10) for name in ("old", "new")]
    paths += [scored("old_b", [1.0, 1.0, 1.0, 0.0] * 10), scored("new_b", [1.0] * 40), scored("stranger", [1.0])]
    (row,) = run(tmp_path, paths, [{"baseline": "old", "stage": "new", "pairs": [["old", "new"], ["old_b", "new_b"]]}])
    assert (row["benchmark"], row["stage"], row["seeds"], row["n"]) == ("sums", "new", 2, 40)
    assert row["differences"] == [0.0, 0.25] and row["difference"] == 0.125
    assert row["seed_deviation"] == pytest.approx(0.25 / 2**0.5), "with n - 1 = 1"
    assert row["verdict"] == "no difference found", "the two seeds disagree"
    manifest = read_json(tmp_path / "manifest.json")
    assert len(manifest["inputs"]) == 5 and manifest["facts"]["comparisons"] == 1
    assert manifest["config"]["comparisons"][0]["stage"] == "new" and manifest["config"]["alpha"] == 0.05
    assert run(tmp_path, paths, []) == []


def test_holm_covers_all_benchmarks_and_stages(tmp_path: Path, scored: Callable[..., Path]) -> None:
    """Both seeds of a stage have the same scores, so each p value is that of Student's t test over items."""
    random = np.random.default_rng(3)
    gains = {
        (stage, benchmark): random.normal(shift, 0.1, 30).round(3)
        for stage, benchmark, shift in (
            ("sft", "sums", 0.04),
            ("dpo", "sums", 0.0),
            ("sft", "talk", -0.035),
            ("dpo", "talk", 0.2),
        )
    }
    paths = []
    for benchmark, metric in (("talk", "rougeL"), ("sums", "acc")):
        paths.append(scored("base", [0.5] * 30, benchmark, metric))
        for stage in ("sft", "dpo"):
            values = (0.5 + gains[stage, benchmark]).tolist()
            paths += [scored(f"{stage}{seed}", values, benchmark, metric) for seed in (1, 2)]
    wanted: list[dict[str, Any]] = [
        {"baseline": "base", "stage": stage, "pairs": [["base", f"{stage}1"], ["base", f"{stage}2"]]}
        for stage in ("sft", "dpo")
    ]
    rows = run(tmp_path, paths, wanted, alpha=0.1)
    places = [(row["stage"], row["benchmark"]) for row in rows]
    assert places == [("sft", "talk"), ("dpo", "talk"), ("sft", "sums"), ("dpo", "sums")]
    assert [row["metric"] for row in rows] == ["rougeL", "rougeL", "acc", "acc"]
    assert [row["difference"] for row in rows] == pytest.approx([gains[place].mean() for place in places])
    p_values = [max(SMALLEST, stats.ttest_1samp(gains[place], 0).pvalue) for place in places]
    assert [row["p_value"] for row in rows] == pytest.approx(p_values)
    is_found, adjusted, *_ = multipletests(p_values, alpha=0.1, method="holm")
    assert [row["p_adjusted"] for row in rows] == pytest.approx(adjusted.tolist())
    assert is_found.tolist() == [True, True, True, False]
    assert [row["verdict"] for row in rows] == ["worsened", "improved", "improved", "no difference found"]
    assert max(row["p_adjusted"] for row in rows[:3]) > 0.05, "at 0.05 the verdict would differ"


def test_draws_are_enough_for_all_comparisons(tmp_path: Path, scored: Callable[..., Path]) -> None:
    """If neither items nor seeds vary, signs are flipped, often enough for such a small alpha."""
    paths = [
        scored(model, [value] * 30, benchmark)
        for benchmark in ("one", "two", "three")
        for model, value in (("base", 0.25), ("a", 0.75), ("b", 0.75))
    ]
    comparison = {"baseline": "base", "stage": "a", "pairs": [["base", "a"], ["base", "b"]]}
    rows = run(tmp_path, paths, [comparison], alpha=0.0004)
    assert [row["verdict"] for row in rows] == ["improved"] * 3


def test_refuses_different_protocols(tmp_path: Path, scored: Callable[..., Path]) -> None:
    paths = [scored("base", [0.0, 1.0]), scored("a", [0.0, 1.0]), scored("b", [0.0])]
    with pytest.raises(UserError, match="b against base on sums: scored under different protocols"):
        run(tmp_path, paths, [{"baseline": "base", "stage": "a", "pairs": [["base", "a"], ["base", "b"]]}])


def test_refuses_different_items(tmp_path: Path, scored: Callable[..., Path]) -> None:
    paths = [scored("base", [0.0, 1.0, 0.0]), scored("a", [0.0, 1.0, 0.0]), scored("b", [0.0])]
    with pytest.raises(UserError, match="b against base on sums: scored on different items"):
        run(tmp_path, paths, [{"baseline": "base", "stage": "a", "pairs": [["base", "a"], ["base", "b"]]}])


def test_expected_stages_are_a_family_of_their_own(tmp_path: Path, scored: Callable[..., Path]) -> None:
    paths = [
        scored(model, values, benchmark)
        for benchmark in ("one", "two")
        for model, values in (("base", [0.0] * 40), ("a", [1.0] * 20 + [0.0] * 20), ("b", [1.0] * 20 + [0.0] * 20))
    ]
    wanted = [{"baseline": "base", "stage": "a", "pairs": [["base", "a"], ["base", "b"]]}]
    change: ExpectedChange = {
        "model": "a",
        "baseline": "base",
        "benchmark": "one",
        "expected": "improves",
        "margin": None,
    }
    held: ExpectedChange = {**change, "benchmark": "two", "expected": "holds", "margin": 0.1}
    one, two = run(tmp_path, paths, wanted, change, held)
    assert (one["family"], one["outcome"], one["p_adjusted"]) == ("confirmatory", "confirmed", one["p_value"])
    assert (two["family"], two["outcome"], two["expected"]) == ("exploratory", None, None)
