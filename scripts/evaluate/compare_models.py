"""Compare each trained model with its parent and with the base, item by item, on all that both were scored on."""

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from scripts.common.console import make_parser, run_script, say
from scripts.common.errors import UserError
from scripts.common.files import read_json, read_json_lines, write_json
from scripts.common.manifest import write_manifest

RESAMPLES = 10_000
"""Draws of the permutation test and of the bootstrap, at least."""

Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Family:
    """The comparisons of one run, whose errors are bounded together.

    Args:
        alpha: significance level.
        seed: of the resampling.
        comparisons: how many there are.
        margins: how many of them are held against a margin.
    """

    alpha: float
    seed: int
    comparisons: int = 1
    margins: int = 1

    @property
    def resamples(self) -> int:
        """So many draws that the smallest p value, 2 / (draws + 1), is below alpha even after Holm's correction."""
        return max(RESAMPLES, math.ceil(4 * self.comparisons / self.alpha))

    @property
    def alpha_of_a_margin(self) -> float:
        """Bonferroni's share for each: any wrong claim that a margin is kept has a probability of alpha at most."""
        return self.alpha / max(1, self.margins)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--alpha", type=float, required=True, help="significance level after Holm's correction")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resampling for scores that are not 0 or 1")
    parser.add_argument("--margins", type=json.loads, default={}, help="tolerated fall by benchmark, JSON")
    parser.add_argument("--pairs", nargs="*", default=[], help="baseline:model")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="scores; their items stand beside them")
    parser.add_argument("--output", type=Path, required=True, help="comparison to write, JSON")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()
    scores = {
        (s["model"], s["benchmark"]): s | {"items": read_items(path)}
        for path in options.scores
        for s in [read_json(path)]
    }

    pairs = [tuple(pair.split(":")) for pair in options.pairs]
    benchmarks = list(dict.fromkeys(benchmark for _, benchmark in scores))
    family = Family(
        options.alpha,
        options.seed,
        comparisons=len(pairs) * len(benchmarks),
        margins=len(pairs) * len(options.margins.keys() & set(benchmarks)),
    )
    rows = [
        compare(scores[baseline, benchmark], scores[model, benchmark], family, options.margins.get(benchmark))
        for benchmark in benchmarks
        for baseline, model in pairs
    ]
    conclude(rows, options.alpha)
    write_json(options.output, rows)
    found = sum(row["verdict"] in ("improved", "worsened") for row in rows)
    say(f"compare_models: {len(rows)} comparisons, {found} differences found")
    write_manifest(
        options.manifest,
        artefact="comparison",
        name="comparison",
        config={"alpha": options.alpha, "seed": options.seed, "margins": options.margins},
        inputs={str(f"{s['model']} on {s['benchmark']}"): path for path in options.scores for s in [read_json(path)]},
        facts={"comparisons": len(rows), "test": "exact McNemar, or sign-flip permutation; Holm over all"},
    )


def read_items(scores: Path) -> dict[str, float]:
    """Score of each item by its key; those that occur again, such as of equal rows, are numbered."""
    items: dict[str, float] = {}
    seen: Counter[str] = Counter()
    for item in read_json_lines(scores.with_suffix(".items.jsonl")):
        seen[item["key"]] += 1
        again = seen[item["key"]]
        items[item["key"] if again == 1 else f"{item['key']} ({again})"] = item["score"]
    return items


def compare(
    baseline: dict[str, Any], model: dict[str, Any], family: Family, margin: float | None = None
) -> dict[str, Any]:
    """One row of the comparison, without what depends on the other rows' outcome.

    Args:
        margin: the largest fall that is tolerated; `is_held` tells whether a larger one is excluded.

    Raises:
        UserError: the two were not scored on the same items, or not under the same protocol.
    """
    require_same(baseline, model)
    before = np.array([baseline["items"][key] for key in baseline["items"]])
    after = np.array([model["items"][key] for key in baseline["items"]])
    p_value, low, high = paired_test(before, after, family)
    return {
        "benchmark": model["benchmark"],
        "metric": model["metric"],
        "baseline": baseline["model"],
        "model": model["model"],
        "n": len(before),
        "baseline_score": float(before.mean()),
        "model_score": float(after.mean()),
        "difference": float(after.mean() - before.mean()),
        "ci_low": low,
        "ci_high": high,
        "smallest_difference": smallest_difference(before, after, family.alpha),
        "margin": margin,
        "is_held": None if margin is None else lowest_difference(before, after, family.alpha_of_a_margin) > -margin,
        "p_value": p_value,
    }


def require_same(baseline: dict[str, Any], model: dict[str, Any]) -> None:
    """Raise UserError unless both were scored under one protocol on the same items."""
    where = f"{model['model']} against {baseline['model']} on {model['benchmark']}"
    if baseline["protocol"] != model["protocol"]:
        raise UserError(f"{where}: scored under different protocols; run both again")
    if baseline["items"].keys() != model["items"].keys():
        raise UserError(f"{where}: scored on different items; run both again")


def paired_test(before: Values, after: Values, family: Family) -> tuple[float, float, float]:
    """Two-sided p value of no difference, and the 1 - alpha interval of the mean difference `after - before`."""
    if is_binary(before, after):
        return mcnemar(before, after), *newcombe(before, after, family.alpha)
    difference = after - before
    if len(difference) == 1:
        return 1.0, -1.0, 1.0  # one item says nothing about others
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
    """All items are right or wrong."""
    return set(np.unique([before, after])) <= {0.0, 1.0}


def mcnemar(before: Values, after: Values) -> float:
    """Exact McNemar test: of the items that changed, are as many better as worse? (binomial, two-sided)"""
    better = int(((after == 1) & (before == 0)).sum())
    worse = int(((after == 0) & (before == 1)).sum())
    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0


def newcombe(before: Values, after: Values, alpha: float) -> tuple[float, float]:
    """Interval of the difference of two paired proportions.

    Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10: Wilson's intervals of the two proportions, joined
    by their correlation, with his correction of it for small tables.
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
    """The mean difference that so many pairs, which differ among each other as these do, would show with this power.

    By the normal approximation: (z(1 - alpha / 2) + z(power)) standard errors of the mean difference. Pairs that are
    all alike say little about how much others vary; one more, in which a right answer was gained, is added.
    """
    differences = np.append(after - before, 1.0)
    error = differences.std() / np.sqrt(len(before))
    return min(1.0, float((stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)) * error))


def lowest_difference(before: Values, after: Values, alpha: float) -> float:
    """The lower bound, at 1 - alpha on both sides, that a tolerated fall is held against.

    Newcombe's interval of right and wrong has a width even where nothing changed. That of graded scores is Student's t,
    which has none when all pairs differ alike: so one more pair is added, in which a right answer was lost.
    """
    if is_binary(before, after):
        return newcombe(before, after, alpha)[0]
    differences = np.append(after - before, -1.0)
    quantile = float(stats.t.ppf(1 - alpha / 2, len(before)))
    return float(differences.mean() - quantile * differences.std(ddof=1) / np.sqrt(len(before)))


def adjust_holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment: p values that may be held against alpha one by one (Holm, 1979)."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def conclude(rows: list[dict[str, Any]], alpha: float) -> None:
    """Add to each row of a family what depends on all of them: `p_adjusted` by Holm, and `verdict`."""
    for row, adjusted in zip(rows, adjust_holm([row["p_value"] for row in rows]), strict=True):
        row["p_adjusted"] = adjusted
        row["verdict"] = verdict(row["difference"], adjusted, alpha, row.get("is_held"))


def verdict(difference: float, p_adjusted: float, alpha: float, is_held: bool | None = None) -> str:
    """What the numbers allow to say.

    Args:
        is_held: whether a fall beyond the benchmark's margin is excluded; None where it has no margin.
    """
    if p_adjusted < alpha:
        return "improved" if difference > 0 else "worsened"
    return "held" if is_held else "no difference found"


if __name__ == "__main__":
    run_script(main)
