"""Bring what a run found out into one JSON: training, scores and a few answers of every model, and what differs."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json, read_json_lines, write_json

SAMPLES = 3
"""Answers of each model to each data set that are taken in."""

SHOWN = ("metric", "n", "score", "ci_low", "ci_high", "others")
"""What is taken in of a score; its file has the protocol and the provenance."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="manifest of each model, base first")
    parser.add_argument("--logs", type=Path, nargs="*", default=[], help="table of each stage's steps, in their order")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="scores of all models")
    parser.add_argument("--answers", type=Path, nargs="*", default=[], help="items of scores on held-out answers")
    parser.add_argument("--comparison", type=Path, required=True, help="the comparison of the models")
    parser.add_argument("--seed-comparison", type=Path, required=True, help="the comparison over seeds")
    parser.add_argument("--abilities", type=Path, required=True, help="the models' abilities")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()

    base, *stages = map(read_json, options.models)
    training = {base["name"]: None} | {
        stage["name"]: describe_training(stage["facts"], pq.read_table(log).to_pylist())
        for stage, log in zip(stages, options.logs, strict=True)
    }
    models: dict[str, Any] = {
        name: {"training": trained, "scores": {}, "samples": {}} for name, trained in training.items()
    }
    for path in options.scores:
        score = read_json(path)
        model, benchmark = models[score["model"]], score["benchmark"]
        model["scores"][benchmark] = {key: score[key] for key in SHOWN}
        by_item = path.with_suffix(".items.jsonl")
        if by_item in options.answers:
            shown = ("prompt", "target", "answer", "score")
            model["samples"][benchmark] = [{k: item[k] for k in shown} for item in read_json_lines(by_item)[:SAMPLES]]
    found = {
        "comparisons": read_json(options.comparison),
        "seed_comparisons": read_json(options.seed_comparison),
        "abilities": read_json(options.abilities),
    }
    write_json(options.output, {"run": options.run, "models": models} | found)
    say(f"collect_results: {options.output}")


def describe_training(facts: dict[str, Any], log: list[dict[str, Any]]) -> dict[str, Any]:
    """First and last logged loss, best and last validation loss (None where none was logged), steps, and seconds.

    Args:
        facts: those of the stage's manifest.
        log: its steps, in order.
    """
    losses = [row["loss"] for row in log if row.get("loss") is not None]
    validation = [row["eval_loss"] for row in log if row.get("eval_loss") is not None]
    return {
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "best_validation_loss": min(validation, default=None),
        "last_validation_loss": validation[-1] if validation else None,
        "steps": facts["steps"],
        "seconds": facts["train_seconds"],
    }


if __name__ == "__main__":
    run_script(main)
