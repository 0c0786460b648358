"""Collect the results of a run in one JSON file: losses, scores, a few answers of each model, and comparisons."""

from pathlib import Path

import pyarrow.parquet as pq

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json, read_json_lines, write_json
from scripts.common.records import (
    Item,
    ModelResults,
    Results,
    Sample,
    Score,
    ScoreSummary,
    StageFacts,
    TrainingStep,
    TrainingSummary,
)

SAMPLES = 3
"""Answers of each model to each data set that are included."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="manifest of each model, base first")
    parser.add_argument("--logs", type=Path, nargs="*", default=[], help="training log of each stage, in order")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="scores of all models")
    parser.add_argument("--answers", type=Path, nargs="*", default=[], help="items of the scores on held-out rows")
    parser.add_argument("--answered", nargs="*", default=[], help="model:data set of each of --answers, in order")
    parser.add_argument("--comparison", type=Path, required=True, help="comparison.json")
    parser.add_argument("--seed-comparison", type=Path, required=True, help="seed_comparison.json")
    parser.add_argument("--abilities", type=Path, required=True, help="abilities.json")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()

    base, *stages = map(read_json, options.models)
    models: dict[str, ModelResults] = {base["name"]: {"training": None, "scores": {}, "samples": {}}}
    for stage, log in zip(stages, options.logs, strict=True):
        training = describe_training(stage["facts"], pq.read_table(log).to_pylist())
        models[stage["name"]] = {"training": training, "scores": {}, "samples": {}}
    for score in map(read_json, options.scores):
        models[score["model"]]["scores"][score["benchmark"]] = summarise_score(score)
    for name, path in zip(options.answered, options.answers, strict=True):
        model, _, dataset = name.partition(":")
        models[model]["samples"][dataset] = [show_item(item) for item in read_json_lines(path)[:SAMPLES]]
    results: Results = {
        "run": options.run,
        "models": models,
        "comparisons": read_json(options.comparison),
        "seed_comparisons": read_json(options.seed_comparison),
        "abilities": read_json(options.abilities),
    }
    write_json(options.output, results)
    say(f"collect_results: {options.output}")


def summarise_score(score: Score) -> ScoreSummary:
    """A score without its protocol and provenance."""
    return {
        "metric": score["metric"],
        "n": score["n"],
        "score": score["score"],
        "ci_low": score["ci_low"],
        "ci_high": score["ci_high"],
        "others": score["others"],
    }


def show_item(item: Item) -> Sample:
    """The parts of an item that are included."""
    return {"prompt": item["prompt"], "target": item["target"], "answer": item["answer"], "score": item["score"]}


def describe_training(facts: StageFacts, log: list[TrainingStep]) -> TrainingSummary:
    """First and last loss, best and last validation loss (None if none was logged), steps and seconds of a stage.

    Args:
        facts: facts of the stage's manifest.
        log: its training log, in order.
    """
    losses = [loss for row in log if (loss := row.get("loss")) is not None]
    validation = [loss for row in log if (loss := row.get("eval_loss")) is not None]
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
