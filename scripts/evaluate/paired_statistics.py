"""Paired tests, intervals and corrections for comparing models item by item."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from scripts.common.config import Expected
from scripts.common.records import Conclusion, FamilyName, Outcome, Verdict

RESAMPLES = 10_000
"""Smallest number of draws of the permutation test and of the bootstrap."""

SMALLEST_ALPHA, LARGEST_ALPHA = 1e-12, 1 - 1e-9
"""Range of the p values of tests against a margin."""

Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Family:
    """The comparisons of one run, whose family-wise error rate is controlled.

    Args:
        alpha: significance level.
        seed: seed for resampling.
        comparisons: number of comparisons.
        margins: number of comparisons that have a margin.
    """

    alpha: float
    seed: int
    comparisons: int = 1
    margins: int = 1

    @property
    def resamples(self) -> int:
        """Enough draws that the smallest p value, 2 / (draws + 1), stays below alpha after Holm's correction."""
        return max(RESAMPLES, math.ceil(4 * self.comparisons / self.alpha))

    @property
    def alpha_of_a_margin(self) -> float:
        """Alpha of each margin by Bonferroni: the probability of any wrong claim of `held` is at most alpha."""
        return self.alpha / max(1, self.margins)


@dataclass(frozen=True)
class Tested:
    """A comparison before correction.

    Args:
        difference: mean difference.
        p_value: p value of no difference.
        is_held: whether the data exclude a drop beyond the margin; None without a margin.
        p_margin: p value of a drop by the margin or more; None without a margin.
        p_beyond: p value of any smaller drop; None without a margin.
        expected: what was expected of the score, if anything.
    """

    difference: float
    p_value: float
    is_held: bool | None = None
    p_margin: float | None = None
    p_beyond: float | None = None
    expected: Expected | None = None


def paired_test(before: Values, after: Values, family: Family) -> tuple[float, float, float]:
    """Test whether two models differ on the same items.

    Returns:
        Two-sided p value, and bounds of the 1 - alpha interval of the mean difference `after - before`.
    """
    if is_binary(before, after):
        return mcnemar(before, after), *newcombe(before, after, family.alpha)
    difference = after - before
    if len(difference) == 1:
        return 1.0, -1.0, 1.0  # one item says nothing about the others
    if not difference.any():
        return 1.0, 0.0, 0.0
    generator = np.random.default_rng(family.seed)
    drawn = {"n_resamples": family.resamples, "rng": generator}
    test = stats.permutation_test((difference,), np.mean, permutation_type="samples", **drawn)
    interval = stats.bootstrap(
        (difference,), np.mean, confidence_level=1 - family.alpha, method="percentile", **drawn
    ).confidence_interval
    return float(test.pvalue), float(interval.low), float(interval.high)


def is_binary(before: Values, after: Values) -> bool:
    """Whether all scores are 0 or 1."""
    return set(np.unique([before, after])) <= {0.0, 1.0}


def mcnemar(before: Values, after: Values) -> float:
    """P value of the exact McNemar test: a two-sided binomial test of the items that changed."""
    better = int(((after == 1) & (before == 0)).sum())
    worse = int(((after == 0) & (before == 1)).sum())
    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0


def newcombe(before: Values, after: Values, alpha: float) -> tuple[float, float]:
    """The 1 - alpha interval of the difference between two paired proportions.

    Method 10 of Newcombe, Statistics in Medicine 17 (1998) 2635-2650: Wilson's intervals of the two proportions,
    combined by their correlation phi, which has a continuity correction.
    """
    n = len(before)
    both = float(((before == 1) & (after == 1)).sum())
    gained = float(((before == 0) & (after == 1)).sum())
    lost = float(((before == 1) & (after == 0)).sum())
    neither = n - both - gained - lost
    new, old = (both + gained) / n, (both + lost) / n
    new_low, new_high = _wilson(int(both + gained), n, alpha)
    old_low, old_high = _wilson(int(both + lost), n, alpha)
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    determinant = both * neither - gained * lost
    if margins == 0:
        phi = 0.0
    elif determinant > n / 2:
        phi = (determinant - n / 2) / margins**0.5
    elif determinant >= 0:
        phi = 0.0
    else:
        phi = determinant / margins**0.5
    down = (new - new_low) ** 2 - 2 * phi * (new - new_low) * (old_high - old) + (old_high - old) ** 2
    up = (new_high - new) ** 2 - 2 * phi * (new_high - new) * (old - old_low) + (old - old_low) ** 2
    return new - old - max(down, 0.0) ** 0.5, new - old + max(up, 0.0) ** 0.5


def _wilson(successes: int, n: int, alpha: float) -> tuple[float, float]:
    interval = stats.binomtest(successes, n).proportion_ci(1 - alpha, method="wilson")
    return float(interval.low), float(interval.high)


def smallest_difference(before: Values, after: Values, alpha: float, power: float = 0.8) -> float:
    """The smallest mean difference that a test on this many pairs, with this variance, detects with the given power.

    By the normal approximation, it is (z(1 - alpha / 2) + z(power)) standard errors of the mean difference. One pair
    with a difference of 1 is added, since the variance of pairs that are all alike would be 0.
    """
    differences = np.append(after - before, 1.0)
    error = differences.std() / np.sqrt(len(before))
    return min(1.0, float((stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)) * error))


def lowest_difference(before: Values, after: Values, alpha: float) -> float:
    """Lower bound of the two-sided 1 - alpha interval of the difference, to compare with a tolerated drop.

    If all scores are 0 or 1, it is Newcombe's, which has a width even if no item changed. For graded scores it is
    Student's t. One pair with a difference of -1 is added, since the interval of equal differences would have no width.
    """
    if is_binary(before, after):
        return newcombe(before, after, alpha)[0]
    differences = np.append(after - before, -1.0)
    quantile = float(stats.t.ppf(1 - alpha / 2, len(before)))
    return float(differences.mean() - quantile * differences.std(ddof=1) / np.sqrt(len(before)))


def p_above(before: Values, after: Values, bound: float) -> float:
    """P value of the hypothesis that the mean difference is at most `bound`.

    It is the alpha whose interval has its lower bound at `bound`, to a relative 1e-4.
    """

    def distance(log_alpha: float) -> float:
        return lowest_difference(before, after, math.exp(log_alpha)) - bound

    widest, narrowest = math.log(SMALLEST_ALPHA), math.log(LARGEST_ALPHA)
    if distance(narrowest) <= 0:
        return 1.0
    if distance(widest) > 0:
        return SMALLEST_ALPHA
    return math.exp(brentq(distance, widest, narrowest, xtol=1e-4))


def adjust_holm(p_values: list[float]) -> list[float]:
    """P values after Holm's step-down adjustment (Holm, 1979). Each can be compared with alpha."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def conclude(tested: Sequence[Tested], alpha: float) -> list[Conclusion]:
    """Adjusted p value, verdict and outcome of each comparison of a run.

    Without expectations, all comparisons are one family. Otherwise the expected ones are the confirmatory family, and
    the others the exploratory one. Holm's correction runs over each family.
    """
    expected = [one for one in tested if one.expected]
    others = [one for one in tested if not one.expected]
    confirmed, explored = iter(confirm(expected, alpha)), iter(explore(others, alpha, bool(expected)))
    return [next(confirmed if one.expected else explored) for one in tested]


def explore(tested: Sequence[Tested], alpha: float, is_exploratory: bool) -> list[Conclusion]:
    """The conclusions of a family of comparisons of which nothing was expected."""
    family: FamilyName = "exploratory" if is_exploratory else "all"
    return [
        {
            "family": family,
            "expected": None,
            "outcome": None,
            "p_adjusted": p_adjusted,
            "verdict": judge(one.difference, p_adjusted, alpha, one.is_held),
        }
        for one, p_adjusted in zip(tested, adjust_holm([one.p_value for one in tested]), strict=True)
    ]


def confirm(tested: Sequence[Tested], alpha: float) -> list[Conclusion]:
    """The conclusions of the family of expected comparisons.

    Holm's correction runs over one p value of each: `p_value` of a score that should improve, `p_margin` of one that
    should hold. So the probability that any expectation is confirmed although it is wrong is at most alpha. Whether a
    score that should hold dropped is tested by Bonferroni's correction.
    """
    adjusted = adjust_holm([one.p_value if one.expected == "improves" else one.p_margin or 0.0 for one in tested])
    conclusions: list[Conclusion] = []
    for one, p_adjusted in zip(tested, adjusted, strict=True):
        if one.expected == "improves":
            verdict = judge(one.difference, p_adjusted, alpha)
            outcomes: dict[Verdict, Outcome] = {"improved": "confirmed", "worsened": "contradicted"}
            outcome = outcomes.get(verdict, "not confirmed")
        elif p_adjusted < alpha:
            verdict, outcome = "held", "confirmed"
        else:
            verdict = judge(one.difference, one.p_value * len(tested), alpha)
            outcome = "contradicted" if (one.p_beyond or 0.0) * len(tested) < alpha else "not confirmed"
        conclusions.append(
            {
                "family": "confirmatory",
                "expected": one.expected,
                "outcome": outcome,
                "p_adjusted": p_adjusted,
                "verdict": verdict,
            }
        )
    return conclusions


def judge(difference: float, p_adjusted: float, alpha: float, is_held: bool | None = None) -> Verdict:
    """The verdict of one comparison.

    Args:
        is_held: whether the data exclude a drop beyond the margin; None without a margin.
    """
    if p_adjusted < alpha:
        return "improved" if difference > 0 else "worsened"
    return "held" if is_held else "no difference found"
