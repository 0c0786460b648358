"""Write the card of a data set: where it comes from, what was done to it, what it is like, and what of the benchmarks
stands in it. As Markdown for people, and as JSON with the same facts."""

import os
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json, write_json, write_text
from scripts.data.schemas import Row, sides
from scripts.report.markdown import Cells, Markdown, cut_end, escape, make_table
from scripts.report.words import DASH, count, percent

EXAMPLES = 3

LONGEST = 600
"""Characters of one turn of an example that are shown."""

LANGUAGES = 8
"""Languages that are named; the others stand together."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="manifest of the data set as brought in")
    parser.add_argument("--train", type=Path, required=True, help="training rows, Parquet")
    parser.add_argument("--funnel", type=Path, required=True, help="funnel, JSON")
    parser.add_argument("--summary", type=Path, required=True, help="summary, JSON")
    parser.add_argument("--figures", type=Path, nargs="*", default=[], help="figures to show")
    parser.add_argument("--card", type=Path, required=True, help="card to write, Markdown")
    parser.add_argument("--facts", type=Path, required=True, help="the same as JSON")
    options = parser.parse_args()

    card = {
        "source": read_json(options.source),
        "funnel": read_json(options.funnel),
        "summary": read_json(options.summary),
        "columns": {field.name: str(field.type) for field in pq.read_schema(options.train)},
        "examples": read_examples(options.train),
    }
    figures = {path.stem: os.path.relpath(path, options.card.parent) for path in options.figures}
    write_json(options.facts, card)
    write_text(options.card, render_card(card, figures))
    say(f"describe_dataset {card['funnel']['dataset']}: {options.card}")


def read_examples(path: Path) -> list[Row]:
    """The first training rows."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        return list(islice((row for batch in file.iter_batches(EXAMPLES) for row in batch.to_pylist()), EXAMPLES))


def render_card(card: dict[str, Any], figures: dict[str, str]) -> str:
    """The card as Markdown. Everything that comes from the data is escaped."""
    summary, funnel = card["summary"], card["funnel"]
    parts = [
        f"# Data set {escape(funnel['dataset'])}",
        render_source(card),
        "## What became of the rows",
        "Every row that was read is in one of these lines; `rejected.parquet` has each removed one with its reason.",
        render_funnel(funnel),
        *([f"![Rows left after each step]({figures['funnel']})"] if "funnel" in figures else []),
        *render_problems(summary),
        "## Lengths",
        render_lengths(summary["tokens"]["splits"]),
        *([f"![Tokens of a row]({figures['lengths']})"] if "lengths" in figures else []),
        "## What it holds",
        render_contents(summary),
        "## Overlap with the benchmarks",
        *render_overlap(summary["benchmarks"]),
        "## Examples",
        *(render_example(number, row) for number, row in enumerate(card["examples"], start=1)),
    ]
    return "\n\n".join(parts) + "\n"


def render_source(card: dict[str, Any]) -> Markdown:
    """Where the data set comes from."""
    facts = card["source"]["facts"]
    rows: list[Cells] = [
        ["Source", facts["origin"]],
        ["Revision", facts.get("revision") or DASH],
        ["Licence", facts.get("licence") or "not stated by the source"],
        ["SHA-256 of the rows", Markdown(f"`{facts['sha256']}`")],
        *([f"SHA-256 of {name}", Markdown(f"`{digest}`")] for name, digest in facts.get("files", {}).items()),
        ["Columns", ", ".join(f"{name} ({kind})" for name, kind in card["columns"].items())],
        ["Fetched", card["source"]["created"]],
    ]
    return make_table(["Fact", "Value"], rows, "lw", "Source")


def render_funnel(funnel: dict[str, Any]) -> Markdown:
    """Rows that each step removed and left, then the splits."""
    rows: list[Cells] = [[s["step"], count(s["removed"]), count(s["rows"])] for s in funnel["steps"]]
    rows += [[f"→ {split}", DASH, count(size)] for split, size in funnel["splits"].items()]
    return make_table(["Step", "Removed", "Left"], rows, "lrr", "Funnel")


def render_problems(summary: dict[str, Any]) -> list[str]:
    """The first rows that could not be read."""
    if not summary["problems"]:
        return []
    rows: list[Cells] = [[problem["source_index"], cut_end(problem["reason"])] for problem in summary["problems"]]
    return [make_table(["Row", "Why it cannot be read"], rows, "rw", "The first malformed rows")]


def render_lengths(splits: dict[str, Any]) -> Markdown:
    """Tokens of the templated rows of each split."""
    names = ("rows", "counted", "total", "mean", "min", "p5", "median", "p95", "max")
    rows: list[Cells] = [[split, *(count(lengths.get(name)) for name in names)] for split, lengths in splits.items()]
    return make_table(
        ["Split", *names],
        rows,
        "lrrrrrrrrr",
        "Tokens of a templated row; of a pair, of its longer side. Totals follow from the mean of the rows counted",
    )


def render_contents(summary: dict[str, Any]) -> Markdown:
    """Languages, parts, groups and labels."""
    found = sum(summary["languages"].values())
    shown = list(summary["languages"].items())
    most = ", ".join(f"{code} {percent(rows / found)} %" for code, rows in shown[:LANGUAGES])
    others = sum(rows for _, rows in shown[LANGUAGES:])
    rest = f", others {percent(others / found)} %" if others else ""
    rows: list[Cells] = [[f"Languages (found in {found:,} of the rows kept)", (most + rest) or DASH]]
    for name, key in (
        ("Rows of each part", "parts"),
        ("Rows of each group", "groups"),
        ("Rows of each label", "labels"),
    ):
        if summary[key]:
            rows.append([name, ", ".join(f"{value}: {size:,}" for value, size in list(summary[key].items())[:20])])
    return make_table(["What", "Found"], rows, "lw", "Contents")


def render_overlap(benchmarks: list[dict[str, Any]]) -> list[str]:
    """How much of each benchmark stood in the rows that were read, and where."""
    if not benchmarks:
        return ["No benchmark was looked for."]
    rows: list[Cells] = [
        [
            *(
                b["benchmark"],
                count(b["items"]),
                count(b["items_hit"]),
                count(b["rows_hit"]),
                f"{percent(b['share'])} %",
            ),
            "removed" if b["removed"] else ("kept" if b["rows_hit"] else DASH),
        ]
        for b in benchmarks
    ]
    header = ["Benchmark", "Items", "Items found", "Rows with one", "Share of rows compared", "These rows"]
    examples: list[Cells] = [
        [b["benchmark"], hit["item"], hit["source_index"], f"{percent(hit['share'])} %", cut_end(hit["span"])]
        for b in benchmarks
        for hit in b["examples"]
    ]
    tables: list[str] = [make_table(header, rows, "lrrrrl", "Benchmark texts found in the rows that were read")]
    if examples:
        names = ["Benchmark", "Item", "Row", "Covered", "Longest matching span"]
        tables.append(make_table(names, examples, "lrrrw", "The most complete overlaps"))
    return tables


def render_example(number: int, row: Row) -> Markdown:
    """One row, turn by turn; of a pair both answers."""
    first, *others = sides(row)
    turns = [(turn["role"], turn["content"]) for turn in first]
    turns += [("assistant (rejected)", turns[-1]["content"]) for turns in others]
    lines: list[Cells] = [[role, cut_end(text, LONGEST)] for role, text in turns]
    return make_table(["Turn", "Text"], lines, "lw", f"Example {number}, row {row['source_index']} of the source")


if __name__ == "__main__":
    run_script(main)
