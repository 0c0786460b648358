"""What n can show: exact power of the tests, by hand and by simulation."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from scripts.common.config.loader import load_config
from scripts.common.paths import RunPaths
from scripts.common.records import ExpectationPlan
from scripts.evaluate.paired_statistics import mcnemar, p_above
from scripts.plan.power import (
    detectable_gain,
    excluded_drop,
    gain_power,
    largest_without_finding,
    plan_expectations,
    smallest_finding,
)
from scripts.plan.rendering import describe_power
from tests.evaluate.pairs import make_pairs
from tests.workflow.running import read_recipe


def test_power_by_hand() -> None:
    """Eight items, of which all change: only 8 of 8, 7 of 8 are not enough at 0.05 (p = 0.07)."""
    assert gain_power(8, 1.0, 1.0, 0.05) == pytest.approx(1.0)
    assert gain_power(8, 1.0, 0.8, 0.05) == pytest.approx(0.9**8)
    assert gain_power(8, 1.0, 0.8, 0.08) == pytest.approx(0.9**8 + 8 * 0.9**7 * 0.1)
    assert gain_power(8, 0.2, 0.8, 0.05) == pytest.approx(sum(_pmf(8, k, 0.8) for k in (6, 7, 8)))
    assert gain_power(5, 1.0, 1.0, 0.05) == 0.0


@pytest.mark.parametrize("alpha", [0.05, 0.03125, 0.0125, 0.0001])
def test_the_critical_values_are_those_of_the_binomial_distribution(alpha: float) -> None:
    changed = np.arange(1, 400)
    found = largest_without_finding(changed, alpha)
    assert found.tolist() == stats.binom.isf(alpha / 2, changed, 0.5).tolist()


def _pmf(n: int, k: int, p: float) -> float:
    ways = {6: 28, 7: 8, 8: 1}[k]
    return float(ways * p**k * (1 - p) ** (n - k))


@pytest.mark.parametrize(("n", "share", "gain", "alpha"), [(150, 0.2, 0.12, 0.0125), (60, 0.5, 0.3, 0.05)])
def test_power_is_the_share_of_simulated_runs_with_a_finding(n: int, share: float, gain: float, alpha: float) -> None:
    generator = np.random.default_rng(3)
    shares = [0.5 - share / 2, (share - gain) / 2, (share + gain) / 2, 0.5 - share / 2]
    found = [mcnemar(*make_pairs(*generator.multinomial(n, shares))) < alpha for _ in range(1_000)]
    assert gain_power(n, share, gain, alpha) == pytest.approx(np.mean(found), abs=0.045), "three standard errors"


def test_the_detectable_gain_is_the_smallest() -> None:
    gain = detectable_gain(150, 0.2, 0.0125)
    assert gain is not None
    assert gain_power(150, 0.2, gain, 0.0125) >= 0.8 > gain_power(150, 0.2, gain - 0.001, 0.0125)
    assert detectable_gain(5, 1.0, 0.05) is None


@pytest.mark.parametrize(
    ("n", "alpha", "smallest"),
    [(8, 0.05, 6 / 8), (8, 0.01, 1.0), (5, 0.05, None), (100, 0.05, 0.06), (100, 0.03125, 0.07)],
)
def test_the_smallest_finding(n: int, alpha: float, smallest: float | None) -> None:
    """Six changed items, all for the better, have p = 2 / 2**6 = 0.03125."""
    assert smallest_finding(n, alpha) == smallest


def test_an_excluded_drop_is_excluded_in_four_of_five_simulated_runs() -> None:
    generator = np.random.default_rng(4)
    margin = excluded_drop(400, 0.3, 0.02)
    assert margin == pytest.approx((2.326348 + 0.841621) * (0.3 / 400) ** 0.5, rel=1e-6)
    runs = (make_pairs(*generator.multinomial(400, [0.35, 0.15, 0.15, 0.35])) for _ in range(500))
    held = [p_above(before, after, -margin) < 0.02 for before, after in runs]
    assert np.mean(held) == pytest.approx(0.8, abs=0.07)


def _plans(folder: Path, expectations: dict[str, Any], **comparison: Any) -> list[ExpectationPlan]:
    recipe = copy.deepcopy(read_recipe("smoke")) | {"expectations": expectations, "comparison": comparison}
    return plan_expectations(load_config(recipe), RunPaths("smoke", folder))


def test_each_expectation_is_planned_with_its_items(tmp_path: Path) -> None:
    sums, pairs, talk, holds = _plans(
        tmp_path,
        {"sft": {"chain_sum": "improves"}, "dpo": {"pairs": "improves", "sums": "improves", "chain_sum": "holds"}},
    )
    assert [(one["n"], one["n_is"]) for one in (sums, pairs, talk, holds)] == [
        (16, "measured"),
        (8, "expected"),
        (4, "at most"),
        (16, "measured"),
    ]
    assert sums["smallest"] == 8 / 16, "alpha is 0.05 / 4: 2 / 2**8 is below it"
    assert sums["detectable"] == detectable_gain(16, 0.2, 0.0125) and sums["is_enough"]
    assert (talk["detectable"], talk["smallest"], talk["is_enough"]) == (None, None, False)
    assert holds["detectable"] == excluded_drop(16, 0.2, 0.0125) and holds["is_enough"]
    (few,) = _plans(tmp_path, {"dpo": {"chain_sum": "holds"}}, changed_share=0.9, alpha=0.01)
    assert few["detectable"] == excluded_drop(16, 0.9, 0.01) and few["is_enough"] is False
    assert _plans(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("n", "expected", "detectable", "smallest", "is_enough", "words"),
    [
        (150, "improves", 0.124, 8 / 150, True, "gains from 12.4 points; nothing under 5.33 points"),
        (7, "improves", None, 6 / 7, False, "nothing under 85.7 points, and no gain with this power: TOO FEW ITEMS"),
        (4, "improves", None, None, False, "nothing: TOO FEW ITEMS"),
        (150, "holds", 0.09, None, True, "no drop beyond 9 points"),
        (50, "holds", 0.2, None, False, "no drop beyond 20 points: TOO FEW ITEMS"),
        (None, "improves", None, None, None, "?"),
    ],
)
def test_words(
    n: int | None, expected: Any, detectable: float | None, smallest: float | None, is_enough: bool | None, words: str
) -> None:
    planned: ExpectationPlan = {
        "model": "sft",
        "baseline": "base",
        "benchmark": "sums",
        "expected": expected,
        "margin": None,
        "n": n,
        "n_is": "measured",
        "detectable": detectable,
        "smallest": smallest,
        "is_enough": is_enough,
    }
    assert describe_power(planned) == words
