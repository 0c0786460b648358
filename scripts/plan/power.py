"""What the items of a run can show: the smallest difference that each expectation would be confirmed with.

All scores are counted as right or wrong. Graded scores vary less, so they can show smaller differences.
"""

import numpy as np
from scipy import stats

from scripts.common.config import Config, ExpectedChange
from scripts.common.paths import RunPaths
from scripts.common.records import Certainty, ExpectationPlan
from scripts.plan.evaluation import count_items

POWER = 0.8
"""Probability with which a true difference should be confirmed."""


def plan_expectations(config: Config, paths: RunPaths) -> list[ExpectationPlan]:
    """What each expectation of a run can show, at alpha divided by their number."""
    changes = config.expected_changes
    return [_plan_expectation(config, change, config.comparison.alpha / len(changes), paths) for change in changes]


def _plan_expectation(config: Config, change: ExpectedChange, alpha: float, paths: RunPaths) -> ExpectationPlan:
    share = config.comparison.changed_share
    number, are = count_scored(config, change["benchmark"], paths)
    detectable = smallest = is_enough = None
    if number and change["expected"] == "improves":
        detectable, smallest = detectable_gain(number, share, alpha), smallest_finding(number, alpha)
        is_enough = detectable is not None
    elif number and change["margin"] is not None:
        detectable = excluded_drop(number, share, alpha)
        is_enough = detectable <= change["margin"]
    return {**change, "n": number, "n_is": are, "detectable": detectable, "smallest": smallest, "is_enough": is_enough}


def count_scored(config: Config, score: str, paths: RunPaths) -> tuple[int | None, Certainty]:
    """Number of items of a score, and its certainty. Held-out rows are those that the configuration asks for."""
    benchmark = config.judged.get(score, score)
    if benchmark in config.benchmarks:
        items = count_items(config, benchmark, paths)
        return items.number, items.are
    dataset = config.datasets[score]
    if score in config.held_out_pairs:
        return dataset.test, "expected"
    return min(config.responses.rows, dataset.test or dataset.validation), "at most"


def gain_power(n: int, share: float, gain: float, alpha: float) -> float:
    """Probability that the exact McNemar test finds a true gain.

    Each of n items changes with probability `share` (at least `gain`), independently, and for the better with
    probability (1 + gain / share) / 2.
    """
    share = max(share, gain)
    changed = np.arange(n + 1)
    needed = stats.binom.isf(alpha / 2, changed, 0.5)  # more than these must have changed for the better
    found = stats.binom.sf(needed, changed, (1 + gain / share) / 2)
    return float((stats.binom.pmf(changed, n, share) * found).sum())


def detectable_gain(n: int, share: float, alpha: float) -> float | None:
    """The smallest true gain that is found with a probability of POWER, to a tenth of a point; None if none is."""
    gains = np.arange(1, 1001) / 1000
    low, high = 0, len(gains) - 1
    if gain_power(n, share, gains[high], alpha) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        if gain_power(n, share, gains[middle], alpha) < POWER:
            low = middle + 1
        else:
            high = middle
    return float(gains[low])


def smallest_finding(n: int, alpha: float) -> float | None:
    """The smallest difference that can be found at all: every changed item is better, and 2 / 2^k is below alpha."""
    needed = int(np.floor(np.log2(2 / alpha))) + 1
    return needed / n if needed <= n else None


def excluded_drop(n: int, share: float, alpha: float) -> float:
    """The smallest drop that is excluded with a probability of POWER if there is none, by the normal approximation."""
    return float((stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(POWER)) * np.sqrt(share / n))
