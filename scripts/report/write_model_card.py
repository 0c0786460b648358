"""Write the card of a trained model: lineage, data, training and scores.

It is Markdown, so it can be published with the model as its README.md. It includes the cards of the data sets.
"""

import re
from pathlib import Path

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json, write_text
from scripts.common.formats import DASH, count, duration, magnitude, p_value, percent, signed_points
from scripts.common.markdown import Cells, Markdown, escape, make_table
from scripts.common.records import BaseManifest, Comparison, Score, StageManifest

_HEADING = re.compile(r"^(#+) ", re.MULTILINE)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--models", type=Path, nargs="+", required=True, help="manifests of the lineage, from the base to the model"
    )
    parser.add_argument(
        "--cards", type=Path, nargs="*", default=[], help="cards of the data sets it was trained on, Markdown"
    )
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="its scores")
    parser.add_argument("--comparison", type=Path, required=True, help="comparison.json")
    parser.add_argument("--output", type=Path, required=True, help="card to write, Markdown")
    options = parser.parse_args()

    base, *stages = map(read_json, options.models)
    name = stages[-1]["name"]
    comparisons = [row for row in read_json(options.comparison) if row["model"] == name]
    parts = [
        f"# {escape(name)}",
        f"Post-trained from {escape(base['facts']['origin'])} with posttrain.",
        "## Lineage",
        render_lineage(base, stages),
        "## Scores",
        render_scores([read_json(path) for path in options.scores]),
        render_comparisons(comparisons),
        "## Use",
        "The model folder has the weights (safetensors), tokenizer, chat template (ChatML) and generation config.",
        "# Data",
        *(_HEADING.sub(r"#\1 ", path.read_text(encoding="utf-8")) for path in options.cards),
    ]
    write_text(options.output, "\n\n".join(part.strip() for part in parts if part) + "\n")
    say(f"write_model_card {name}: {options.output}")


def render_lineage(base: BaseManifest, stages: list[StageManifest]) -> Markdown:
    """Table of the base and of each training, parents first."""
    rows: list[Cells] = [
        [base["name"], DASH, base["facts"]["origin"], DASH, magnitude(base["facts"]["parameters"]), DASH]
    ]
    for stage in stages:
        config, facts = stage["config"], stage["facts"]
        how = f"{config['method'].upper()}, {config['tuning']}, seed {config['seed']}"
        took = duration(facts["train_seconds"])
        rows.append([stage["name"], how, config["dataset"], count(facts["train_rows"]), count(facts["steps"]), took])
    header = ["Model", "Method", "Source or data set", "Rows", "Parameters or steps", "Time"]
    return make_table(header, rows, "llwrrr", "Lineage")


def render_scores(scores: list[Score]) -> Markdown:
    """Table of the scores with n and interval."""
    rows: list[Cells] = [
        [
            *(score["benchmark"], score["metric"], count(score["n"]), percent(score["score"])),
            Markdown(f"{percent(score['ci_low'])} to {percent(score['ci_high'])}"),
        ]
        for score in scores
    ]
    return make_table(["Benchmark", "Metric", "n", "Score, %", "Interval"], rows, "llrrr", "Scores")


def render_comparisons(comparisons: list[Comparison]) -> Markdown | None:
    """Table of the comparisons with the parent and the base; None if there are none."""
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
