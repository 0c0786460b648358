"""What the items of a run can show: the smallest difference that each expectation would be confirmed with.

All scores are counted as right or wrong. Graded scores vary less, so they can show smaller differences.
"""

from typing import Any

import numpy as np
from scipy import special  # scipy.stats takes as long to import as all the rest of a plan

from scripts.common.config import Config, ExpectedChange
from scripts.common.paths import RunPaths
from scripts.common.records import Certainty, ExpectationPlan
from scripts.plan.evaluation import count_items

Numbers = np.ndarray[Any, np.dtype[Any]]

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
    if benchmark in config.protocols:
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
    changed = np.arange(1, n + 1)
    found = special.bdtrc(largest_without_finding(changed, alpha), changed, (1 + gain / share) / 2)
    ways = special.gammaln(n + 1) - special.gammaln(changed + 1) - special.gammaln(n - changed + 1)
    probability = np.exp(ways + special.xlogy(changed, share) + special.xlog1py(n - changed, -share))
    return float((probability * found).sum())


def largest_without_finding(changed: Numbers, alpha: float) -> Numbers:
    """The largest number of items that changed for the better with which the test finds no gain, of each number.

    It is the smallest x for which more than x of as many fair coins have a probability of at most alpha / 2.
    """
    guess = np.ceil(special.bdtrik(1 - alpha / 2, changed, 0.5))
    return np.where(special.bdtrc(guess - 1, changed, 0.5) <= alpha / 2, guess - 1, guess)


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
    return float((special.ndtri(1 - alpha / 2) + special.ndtri(POWER)) * np.sqrt(share / n))
