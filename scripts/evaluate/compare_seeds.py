"""Compare stages that were trained with several seeds with their parents and the base, over items and seeds."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from scripts.common.config import Expected, SeedGroup
from scripts.common.console import make_parser, run_script, say
from scripts.common.files import write_json
from scripts.common.manifest import describe
from scripts.common.records import SeedComparison, SeedDifference
from scripts.evaluate.expectations import Compared, read_expected
from scripts.evaluate.paired_scores import ItemScores, read_scores, require_same
from scripts.evaluate.paired_statistics import Family, Tested, Values, conclude, paired_test

SMALLEST = 1e-15
"""Smallest p value that is reported."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--alpha", type=float, required=True, help="significance level after Holm's correction")
    parser.add_argument("--seed", type=int, required=True, help="seed for resampling if neither items nor seeds vary")
    parser.add_argument(
        "--comparisons",
        type=json.loads,
        required=True,
        help="JSON list of baseline, stage, and (baseline, model) of each seed",
    )
    parser.add_argument("--expectations", type=Path, required=True, help="what was expected of the run, JSON")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="scores of all models, JSON")
    parser.add_argument("--items", type=Path, nargs="*", default=[], help="items of each score, in order, JSON lines")
    parser.add_argument("--output", type=Path, required=True, help="comparison to write, JSON")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()
    groups: list[SeedGroup] = options.comparisons

    wanted = {model for group in groups for pair in group["pairs"] for model in pair}
    read = read_scores(options.scores, options.items, wanted)
    scores = {one.name: one for one in read}
    expected = read_expected(options.expectations)
    rows = compare_all(scores, groups, expected, options.alpha, options.seed)
    write_json(options.output, rows)
    say(f"compare_seeds: {len(rows)} comparisons")
    manifest = describe(
        artefact="comparison",
        name="seed_comparison",
        config={"alpha": options.alpha, "seed": options.seed, "comparisons": groups},
        inputs={" on ".join(one.name): one.path for one in read} | {"expectations": options.expectations},
        facts={"comparisons": len(rows), "test": "margins of items and of seeds joined; Holm over each family"},
    )
    write_json(options.manifest, manifest)


def compare_all(
    scores: dict[tuple[str, str], ItemScores],
    groups: list[SeedGroup],
    expected: Mapping[Compared, Expected],
    alpha: float,
    seed: int,
) -> list[SeedComparison]:
    """One row for each benchmark and group, with Holm's correction over each family.

    Args:
        scores: scores by (model, benchmark).
        expected: what is expected of some comparisons. `holds` is not tested over seeds.
        seed: seed for resampling if neither items nor seeds vary.
    """
    metrics = {one.score["benchmark"]: one.score["metric"] for one in scores.values()}
    family = Family(alpha, seed, comparisons=len(metrics) * len(groups))
    cases = [(benchmark, metric, group) for benchmark, metric in metrics.items() for group in groups]
    compared = [
        compare([(scores[old, benchmark], scores[new, benchmark]) for old, new in group["pairs"]], family)
        for benchmark, _, group in cases
    ]
    rising = {case for case, expectation in expected.items() if expectation == "improves"}
    tested = [
        Tested(
            row["difference"],
            row["p_value"],
            expected="improves" if (group["baseline"], group["stage"], benchmark) in rising else None,
        )
        for (benchmark, _, group), row in zip(cases, compared, strict=True)
    ]
    conclusions = conclude(tested, alpha)
    return [
        {"benchmark": benchmark, "metric": metric, **group, **row, **conclusion}
        for (benchmark, metric, group), row, conclusion in zip(cases, compared, conclusions, strict=True)
    ]


def compare(pairs: list[tuple[ItemScores, ItemScores]], family: Family) -> SeedDifference:
    """One row of the comparison, without the columns that depend on the other rows.

    Args:
        pairs: scores of the baseline and of the model, for each seed.

    Raises:
        UserError: models were scored on different items or under different protocols.
    """
    first = pairs[0][0]
    for score in (score for pair in pairs for score in pair):
        require_same(first, score)
    keys = list(first.items)
    differences = np.array([[after.items[key] - before.items[key] for before, after in pairs] for key in keys])
    p_value, low, high = crossed_test(differences, family)
    return {
        "n": len(keys),
        "seeds": len(pairs),
        "differences": differences.mean(axis=0).tolist(),
        "difference": float(differences.mean()),
        "seed_deviation": float(differences.mean(axis=0).std(ddof=1)),
        "ci_low": low,
        "ci_high": high,
        "p_value": p_value,
    }


def crossed_test(differences: Values, family: Family) -> tuple[float, float, float]:
    """Test whether the mean difference is 0 in the populations of items and of seeds.

    The margin of error is the square root of the sum of the squares of two Student's t margins: that of the n item
    means and that of the k seed means (Banerjee, Sankhya 23, 1961, for two means). Whatever the two variances are, the
    interval is conservative. The p value is the smallest alpha whose interval excludes 0.

    Args:
        differences: shape (items, seeds), with at least two seeds.
        family: its seed is used if neither items nor seeds vary.

    Returns:
        Two-sided p value, and bounds of the 1 - alpha interval of the mean difference.
    """
    n, k = differences.shape
    of_items, of_seeds, mean = differences.mean(axis=1), differences.mean(axis=0), float(differences.mean())
    if n == 1:
        return 1.0, -1.0, 1.0  # one item says nothing about the others
    errors = of_items.std(ddof=1) / n**0.5, of_seeds.std(ddof=1) / k**0.5
    if not any(error > 1e-12 for error in errors):
        return paired_test(np.zeros(n), of_items, family)

    def margin(level: float) -> float:
        return float(np.hypot(*(stats.t.isf(level / 2, (n - 1, k - 1)) * errors)))

    p_value = brentq(lambda level: margin(level) - abs(mean), SMALLEST, 1) if margin(SMALLEST) > abs(mean) else SMALLEST
    return float(p_value), max(-1.0, mean - margin(family.alpha)), min(1.0, mean + margin(family.alpha))


if __name__ == "__main__":
    run_script(main)
