"""Average the scores of each model by ability, and give each mean a grade."""

import json
import math
from pathlib import Path
from statistics import fmean

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json, write_json
from scripts.common.records import Ability, MeanScore, Score


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--grades", type=json.loads, required=True, help="lowest mean score of each grade, JSON")
    parser.add_argument("--abilities", type=json.loads, required=True, help="ability of each benchmark, JSON")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="scores of the models on these benchmarks")
    parser.add_argument("--output", type=Path, required=True, help="table to write, JSON")
    options = parser.parse_args()

    groups: dict[tuple[str, str], list[Score]] = {}
    for score in map(read_json, options.scores):
        groups.setdefault((options.abilities[score["benchmark"]], score["model"]), []).append(score)
    rows: list[Ability] = [
        {"ability": ability, "model": model, **grade(scores, options.grades)}
        for (ability, model), scores in groups.items()
    ]
    write_json(options.output, rows)
    say(f"grade_abilities: {len(rows)} means")


def grade(scores: list[Score], grades: dict[str, float]) -> MeanScore:
    """Unweighted mean of a model's scores on some benchmarks, with its 95 % interval and grade.

    The benchmarks are independent samples. On each side, the margin of the mean is the square root of the sum of the
    squared margins of the scores, divided by their number (MOVER; Zou and Donner, Statistics in Medicine 27, 2008,
    1693-1702). A single score keeps its interval.

    Args:
        scores: scores of one model, at least one.
        grades: lowest mean score of each grade; one of them must be 0.
    """
    mean = fmean(score["score"] for score in scores)
    below = math.hypot(*(score["score"] - score["ci_low"] for score in scores)) / len(scores)
    above = math.hypot(*(score["ci_high"] - score["score"] for score in scores)) / len(scores)
    return {
        "benchmarks": [score["benchmark"] for score in scores],
        "n": sum(score["n"] for score in scores),
        "score": mean,
        "ci_low": mean - below,
        "ci_high": mean + above,
        "grade": max((name for name, least in grades.items() if mean >= least), key=grades.__getitem__),
    }


if __name__ == "__main__":
    run_script(main)
