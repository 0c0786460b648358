"""Write the card of a trained model: its lineage, what it was trained on, how, and how it scores.

It is Markdown, so that it can go out with the model as its README.md. The cards of its data sets stand in it whole.
"""

import re
from pathlib import Path
from typing import Any

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json, write_text
from scripts.report.markdown import Cells, Markdown, escape, make_table
from scripts.report.words import DASH, count, duration, magnitude, p_value, percent, signed_points

_HEADING = re.compile(r"^(#+) ", re.MULTILINE)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="manifests from the base to the model")
    parser.add_argument("--cards", type=Path, nargs="*", default=[], help="cards of the data sets it was trained on")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="its scores")
    parser.add_argument("--comparison", type=Path, required=True, help="comparison.json")
    parser.add_argument("--output", type=Path, required=True, help="card to write, Markdown")
    options = parser.parse_args()

    lineage = [read_json(path) for path in options.models]
    name = lineage[-1]["name"]
    comparisons = [row for row in read_json(options.comparison) if row["model"] == name]
    parts = [
        f"# {escape(name)}",
        f"Trained from {escape(lineage[0]['facts']['origin'])} by posttrain.",
        "## Lineage",
        render_lineage(lineage),
        "## Scores",
        render_scores([read_json(path) for path in options.scores]),
        render_comparisons(comparisons),
        "## Use",
        "The model folder holds safetensors, the tokenizer, the chat template (ChatML) and generation settings.",
        "# Data",
        *(_HEADING.sub(r"#\1 ", path.read_text(encoding="utf-8")) for path in options.cards),
    ]
    write_text(options.output, "\n\n".join(part.strip() for part in parts if part) + "\n")
    say(f"write_model_card {name}: {options.output}")


def render_lineage(lineage: list[dict[str, Any]]) -> Markdown:
    """One line a training, parents first."""
    base, *stages = lineage
    rows: list[Cells] = [
        [base["name"], DASH, base["facts"]["origin"], DASH, magnitude(base["facts"].get("parameters")), DASH]
    ]
    for stage in stages:
        config, facts = stage["config"], stage["facts"]
        how = f"{config['method'].upper()}, {config['tuning']}, seed {config['seed']}"
        took = duration(facts["train_seconds"])
        rows.append([stage["name"], how, config["dataset"], count(facts["train_rows"]), count(facts["steps"]), took])
    header = ["Model", "Method", "From, or trained on", "Rows", "Parameters, or steps", "Time"]
    return make_table(header, rows, "llwrrr", "Lineage")


def render_scores(scores: list[dict[str, Any]]) -> Markdown:
    """Each score with its n and its interval."""
    rows: list[Cells] = [
        [
            *(score["benchmark"], score["metric"], count(score["n"]), percent(score["score"])),
            Markdown(f"{percent(score['ci_low'])} to {percent(score['ci_high'])}"),
        ]
        for score in scores
    ]
    return make_table(["Benchmark", "Metric", "n", "Score, %", "Interval"], rows, "llrrr", "Scores")


def render_comparisons(comparisons: list[dict[str, Any]]) -> Markdown | None:
    """The model against its parent and the base, paired by item; None when there is nothing to compare with."""
    rows: list[Cells] = [
        [
            *(row["baseline"], row["benchmark"], count(row["n"]), signed_points(row["difference"])),
            Markdown(f"{signed_points(row['ci_low'])} to {signed_points(row['ci_high'])}"),
            *(p_value(row["p_adjusted"]), row["verdict"]),
        ]
        for row in comparisons
    ]
    header = ["Against", "Benchmark", "n", "Points", "Interval", "Adjusted p", "Verdict"]
    return make_table(header, rows, "llrrrrl", "Differences, paired by item") if rows else None


if __name__ == "__main__":
    run_script(main)
