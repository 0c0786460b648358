"""Compare each trained model with its parent and with the base, paired by item, on every benchmark."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scripts.common.config import Expected
from scripts.common.console import make_parser, run_script, say
from scripts.common.files import write_json
from scripts.common.manifest import describe
from scripts.common.records import Comparison, PairedDifference
from scripts.evaluate.expectations import Compared, read_expected
from scripts.evaluate.paired_scores import ItemScores, read_scores, require_same, split_difference
from scripts.evaluate.paired_statistics import (
    Family,
    Tested,
    conclude,
    lowest_difference,
    p_above,
    paired_test,
    smallest_difference,
)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--alpha", type=float, required=True, help="significance level after Holm's correction")
    parser.add_argument("--seed", type=int, required=True, help="seed for resampling scores that are not only 0 and 1")
    parser.add_argument("--margins", type=json.loads, default={}, help="tolerated drop of each benchmark, JSON")
    parser.add_argument("--pairs", nargs="*", default=[], help="pairs to compare, baseline:model")
    parser.add_argument("--expectations", type=Path, required=True, help="what was expected of the run, JSON")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="scores of all models, JSON")
    parser.add_argument("--items", type=Path, nargs="*", default=[], help="items of each score, in order, JSON lines")
    parser.add_argument("--output", type=Path, required=True, help="comparison to write, JSON")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()
    read = read_scores(options.scores, options.items)
    expected = read_expected(options.expectations)
    pairs = [(baseline, model) for baseline, model in (pair.split(":") for pair in options.pairs)]
    rows = compare_all(read, pairs, options.margins, expected, options.alpha, options.seed)
    write_json(options.output, rows)
    found = sum(row["verdict"] in ("improved", "worsened") for row in rows)
    say(f"compare_models: {len(rows)} comparisons, {found} differences found")
    manifest = describe(
        artefact="comparison",
        name="comparison",
        config={"alpha": options.alpha, "seed": options.seed, "margins": options.margins},
        inputs={" on ".join(one.name): one.path for one in read} | {"expectations": options.expectations},
        facts={
            "comparisons": len(rows),
            "expected": len(expected),
            "test": "exact McNemar, or sign-flip permutation; Holm over each family",
        },
    )
    write_json(options.manifest, manifest)


def compare_all(
    read: list[ItemScores],
    pairs: list[tuple[str, str]],
    margins: Mapping[str, float],
    expected: Mapping[Compared, Expected],
    alpha: float,
    seed: int,
) -> list[Comparison]:
    """One row for each benchmark and pair of models, with Holm's correction over each family.

    Args:
        read: scores of all models.
        pairs: (baseline, model).
        margins: tolerated drop by benchmark.
        expected: what is expected of some comparisons.
    """
    scores = {one.name: one for one in read}
    compared = [
        (baseline, model, benchmark)
        for benchmark in dict.fromkeys(benchmark for _, benchmark in scores)
        for baseline, model in pairs
    ]
    rows = []
    for case in compared:
        baseline, model, benchmark = case
        own_family = [other for other in compared if (other in expected) == (case in expected)]
        family = Family(alpha, seed, len(compared), margins=sum(other[2] in margins for other in own_family))
        rows.append(compare(scores[baseline, benchmark], scores[model, benchmark], family, margins.get(benchmark)))
    return correct(rows, [expected.get(case) for case in compared], alpha)


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
        "origin": split_difference(baseline, model),
        "ci_low": low,
        "ci_high": high,
        "smallest_difference": smallest_difference(before, after, family.alpha),
        "margin": margin,
        "is_held": None if margin is None else lowest_difference(before, after, family.alpha_of_a_margin) > -margin,
        "p_margin": None if margin is None else p_above(before, after, -margin),
        "p_beyond": None if margin is None else p_above(after, before, margin),
        "p_value": p_value,
    }


def correct(rows: list[PairedDifference], expected: list[Expected | None], alpha: float) -> list[Comparison]:
    """Add families, outcomes, adjusted p values and verdicts to the rows of a run."""
    tested = [
        Tested(row["difference"], row["p_value"], row["is_held"], row["p_margin"], row["p_beyond"], expectation)
        for row, expectation in zip(rows, expected, strict=True)
    ]
    corrected: list[Comparison] = []
    for row, conclusion in zip(rows, conclude(tested, alpha), strict=True):
        is_held = row["is_held"]
        if conclusion["expected"] == "holds":  # by Holm's correction, which is less strict than Bonferroni's
            is_held = conclusion["outcome"] == "confirmed"
        corrected.append({**row, "is_held": is_held, **conclusion})
    return corrected


if __name__ == "__main__":
    run_script(main)
