"""Compare each trained model with its parent and with the base, paired by item, on every benchmark."""

import json
from pathlib import Path

import numpy as np

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import write_json
from scripts.common.manifest import describe
from scripts.common.records import Comparison, PairedDifference
from scripts.evaluate.paired_scores import ItemScores, read_scores, require_same
from scripts.evaluate.paired_statistics import (
    Family,
    conclude,
    lowest_difference,
    paired_test,
    smallest_difference,
)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--alpha", type=float, required=True, help="significance level after Holm's correction")
    parser.add_argument("--seed", type=int, required=True, help="seed for resampling scores that are not only 0 and 1")
    parser.add_argument("--margins", type=json.loads, default={}, help="tolerated drop of each benchmark, JSON")
    parser.add_argument("--pairs", nargs="*", default=[], help="pairs to compare, baseline:model")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="scores of all models, JSON")
    parser.add_argument("--items", type=Path, nargs="*", default=[], help="items of each score, in order, JSON lines")
    parser.add_argument("--output", type=Path, required=True, help="comparison to write, JSON")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()
    read = read_scores(options.scores, options.items)
    scores = {one.name: one for one in read}

    pairs = [tuple(pair.split(":")) for pair in options.pairs]
    benchmarks = list(dict.fromkeys(benchmark for _, benchmark in scores))
    family = Family(
        options.alpha,
        options.seed,
        comparisons=len(pairs) * len(benchmarks),
        margins=len(pairs) * len(options.margins.keys() & set(benchmarks)),
    )
    rows = correct(
        [
            compare(scores[baseline, benchmark], scores[model, benchmark], family, options.margins.get(benchmark))
            for benchmark in benchmarks
            for baseline, model in pairs
        ],
        options.alpha,
    )
    write_json(options.output, rows)
    found = sum(row["verdict"] in ("improved", "worsened") for row in rows)
    say(f"compare_models: {len(rows)} comparisons, {found} differences found")
    manifest = describe(
        artefact="comparison",
        name="comparison",
        config={"alpha": options.alpha, "seed": options.seed, "margins": options.margins},
        inputs={" on ".join(one.name): one.path for one in read},
        facts={"comparisons": len(rows), "test": "exact McNemar, or sign-flip permutation; Holm over all"},
    )
    write_json(options.manifest, manifest)


def compare(baseline: ItemScores, model: ItemScores, family: Family, margin: float | None = None) -> PairedDifference:
    """One row of the comparison, without the columns that depend on the other rows.

    Args:
        margin: largest tolerated drop, as a share; `is_held` is whether the data exclude a larger one.

    Raises:
        UserError: the models were scored on different items or under different protocols.
    """
    require_same(baseline, model)
    before = np.array([baseline.items[key] for key in baseline.items])
    after = np.array([model.items[key] for key in baseline.items])
    p_value, low, high = paired_test(before, after, family)
    return {
        "benchmark": model.score["benchmark"],
        "metric": model.score["metric"],
        "baseline": baseline.score["model"],
        "model": model.score["model"],
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


def correct(rows: list[PairedDifference], alpha: float) -> list[Comparison]:
    """Add adjusted p values and verdicts to the rows of one family."""
    tested = [(row["difference"], row["p_value"]) for row in rows]
    conclusions = conclude(tested, [row["is_held"] for row in rows], alpha)
    return [{**row, **conclusion} for row, conclusion in zip(rows, conclusions, strict=True)]


if __name__ == "__main__":
    run_script(main)
