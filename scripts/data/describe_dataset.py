"""Write the card of a data set, as Markdown and as JSON with the same facts: source, licence, removed rows, lengths,
contents, overlap with the benchmarks and examples."""

import os
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json, write_json, write_text
from scripts.common.formats import DASH, count, percent
from scripts.common.markdown import Cells, Markdown, cut_end, escape, make_table
from scripts.common.records import BenchmarkOverlap, DataCard, Funnel, Lengths, Summary
from scripts.data.schemas import Row, sides

EXAMPLES = 3

LONGEST = 600
"""Characters of an example's turn that are shown."""

LANGUAGES = 8
"""Languages that are listed by name; the others are summed up."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="manifest of the downloaded data set")
    parser.add_argument("--train", type=Path, required=True, help="training rows, Parquet")
    parser.add_argument("--funnel", type=Path, required=True, help="funnel, JSON")
    parser.add_argument("--summary", type=Path, required=True, help="summary, JSON")
    parser.add_argument("--figures", type=Path, nargs="*", default=[], help="figures to include")
    parser.add_argument("--card", type=Path, required=True, help="card to write, Markdown")
    parser.add_argument("--facts", type=Path, required=True, help="the same facts to write, JSON")
    options = parser.parse_args()

    card: DataCard = {
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


def render_card(card: DataCard, figures: dict[str, str]) -> str:
    """The card as Markdown. All text from the data is escaped."""
    summary, funnel = card["summary"], card["funnel"]
    parts = [
        f"# Data set {escape(funnel['dataset'])}",
        render_source(card),
        "## Rows kept and removed",
        "Each row that was read is counted once below. `rejected.parquet` has each removed row with the reason.",
        render_funnel(funnel),
        *([f"![Rows left after each step]({figures['funnel']})"] if "funnel" in figures else []),
        *render_problems(summary),
        "## Lengths",
        render_lengths(summary["tokens"]["splits"]),
        *([f"![Tokens of a row]({figures['lengths']})"] if "lengths" in figures else []),
        "## Contents",
        render_contents(summary),
        "## Overlap with the benchmarks",
        *render_overlap(summary["benchmarks"]),
        "## Examples",
        *(render_example(number, row) for number, row in enumerate(card["examples"], start=1)),
    ]
    return "\n\n".join(parts) + "\n"


def render_source(card: DataCard) -> Markdown:
    """A table of the origin of the data set."""
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


def render_funnel(funnel: Funnel) -> Markdown:
    """A table of the rows that each step removed and kept, and of the splits."""
    rows: list[Cells] = [[s["step"], count(s["removed"]), count(s["rows"])] for s in funnel["steps"]]
    rows += [[f"→ {split}", DASH, count(size)] for split, size in funnel["splits"].items()]
    return make_table(["Step", "Removed", "Left"], rows, "lrr", "Funnel")


def render_problems(summary: Summary) -> list[str]:
    """A table of the first malformed rows."""
    if not summary["problems"]:
        return []
    rows: list[Cells] = [[problem["source_index"], cut_end(problem["reason"])] for problem in summary["problems"]]
    return [make_table(["Row", "Why it cannot be read"], rows, "rw", "The first malformed rows")]


def render_lengths(splits: dict[str, Lengths]) -> Markdown:
    """A table of the tokens of each split's rows, with the chat template applied."""
    rows: list[Cells] = [
        [
            *(split, count(of["rows"]), count(of["counted"]), count(of.get("total")), count(of.get("mean"))),
            *(count(of.get("min")), count(of.get("p5")), count(of.get("median")), count(of.get("p95"))),
            count(of.get("max")),
        ]
        for split, of in splits.items()
    ]
    return make_table(
        ["Split", "rows", "counted", "total", "mean", "min", "p5", "median", "p95", "max"],
        rows,
        "lrrrrrrrrr",
        "Tokens of a row with its chat template (a pair: its longer side). Totals are estimated from the counted rows",
    )


def render_contents(summary: Summary) -> Markdown:
    """A table of languages, parts, groups and labels."""
    found = sum(summary["languages"].values())
    shown = list(summary["languages"].items())
    most = ", ".join(f"{code} {percent(rows / found)} %" for code, rows in shown[:LANGUAGES])
    others = sum(rows for _, rows in shown[LANGUAGES:])
    rest = f", others {percent(others / found)} %" if others else ""
    rows: list[Cells] = [[f"Languages (detected in {found:,} of the kept rows)", (most + rest) or DASH]]
    for name, counts in (
        ("Rows of each part", summary["parts"]),
        ("Rows of each group", summary["groups"]),
        ("Rows of each label", summary["labels"]),
    ):
        if counts:
            rows.append([name, ", ".join(f"{value}: {size:,}" for value, size in list(counts.items())[:20])])
    return make_table(["Property", "Value"], rows, "lw", "Contents")


def render_overlap(benchmarks: list[BenchmarkOverlap]) -> list[str]:
    """Tables of the benchmark texts found in the rows that were read."""
    if not benchmarks:
        return ["No rows were compared with benchmarks."]
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
    header = ["Benchmark", "Items", "Items found", "Rows with one", "Share of compared rows", "These rows were"]
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
    """A table of one row's turns. A pair shows both answers."""
    first, *others = sides(row)
    turns = [(turn["role"], turn["content"]) for turn in first]
    turns += [("assistant (rejected)", turns[-1]["content"]) for turns in others]
    lines: list[Cells] = [[role, cut_end(text, LONGEST)] for role, text in turns]
    return make_table(["Turn", "Text"], lines, "lw", f"Example {number}, row {row['source_index']} of the source")


if __name__ == "__main__":
    run_script(main)
