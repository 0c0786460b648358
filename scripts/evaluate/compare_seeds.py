"""Compare stages that were trained with several seeds with what they started from, over items and seeds at once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json, write_json
from scripts.common.manifest import write_manifest
from scripts.evaluate.compare_models import Family, Values, conclude, paired_test, read_items, require_same

SMALLEST = 1e-15
"""Smallest p value that is told."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--alpha", type=float, required=True, help="significance level after Holm's correction")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resampling where no model differs")
    parser.add_argument(
        "--comparisons", type=json.loads, required=True, help="JSON list: baseline, stage, pairs of (baseline, model)"
    )
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="scores; their items stand beside them")
    parser.add_argument("--output", type=Path, required=True, help="comparison to write, JSON")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()

    wanted = {model for comparison in options.comparisons for pair in comparison["pairs"] for model in pair}
    read = [(score, path) for path in options.scores for score in [read_json(path)] if score["model"] in wanted]
    scores = {(score["model"], score["benchmark"]): score | {"items": read_items(path)} for score, path in read}
    metrics = {score["benchmark"]: score["metric"] for score, _ in read}
    family = Family(options.alpha, options.seed, comparisons=len(metrics) * len(options.comparisons))
    rows = []
    for benchmark, metric in metrics.items():
        for comparison in options.comparisons:
            told = {"benchmark": benchmark, "metric": metric, **comparison}
            pairs = [(scores[old, benchmark], scores[new, benchmark]) for old, new in comparison["pairs"]]
            rows.append(told | compare(pairs, family))
    conclude(rows, options.alpha)
    write_json(options.output, rows)
    say(f"compare_seeds: {len(rows)} comparisons")
    write_manifest(
        options.manifest,
        artefact="comparison",
        name="seed_comparison",
        config={"alpha": options.alpha, "seed": options.seed, "comparisons": options.comparisons},
        inputs={f"{score['model']} on {score['benchmark']}": path for score, path in read},
        facts={"comparisons": len(rows), "test": "margins of items and of seeds joined; Holm over all"},
    )


def compare(pairs: list[tuple[dict[str, Any], dict[str, Any]]], family: Family) -> dict[str, Any]:
    """One row, without what depends on the other rows.

    Args:
        pairs: for each seed the scores of the model before and after, with their items by key.

    Raises:
        UserError: models were scored on different items, or not under the same protocol.
    """
    first = pairs[0][0]
    for score in (score for pair in pairs for score in pair):
        require_same(first, score)
    keys = list(first["items"])
    differences = np.array([[after["items"][key] - before["items"][key] for before, after in pairs] for key in keys])
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
    """Whether the mean difference is 0 over other items and other seeds than these.

    Student's margins of error of the n means of items and of the k means of seeds are joined as the sides of a right
    angle (Banerjee, Sankhya 23, 1961, for two means): whatever the two variances are, the interval then errs on the
    safe side. The p value is the smallest alpha whose interval leaves out 0.

    Args:
        differences: shape (items, seeds), two seeds or more.
        family: its seed is for where neither items nor seeds differ from each other.

    Returns:
        Two-sided p value, and the 1 - alpha interval of the mean difference.
    """
    n, k = differences.shape
    of_items, of_seeds, mean = differences.mean(axis=1), differences.mean(axis=0), float(differences.mean())
    if n == 1:
        return 1.0, -1.0, 1.0  # one item says nothing about others
    errors = of_items.std(ddof=1) / n**0.5, of_seeds.std(ddof=1) / k**0.5
    if not any(error > 1e-12 for error in errors):
        return paired_test(np.zeros(n), of_items, family)

    def margin(level: float) -> float:
        return float(np.hypot(*(stats.t.isf(level / 2, (n - 1, k - 1)) * errors)))

    p_value = brentq(lambda level: margin(level) - abs(mean), SMALLEST, 1) if margin(SMALLEST) > abs(mean) else SMALLEST
    return float(p_value), max(-1.0, mean - margin(family.alpha)), min(1.0, mean + margin(family.alpha))


if __name__ == "__main__":
    run_script(main)
