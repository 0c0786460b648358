"""Parts of the report on where differences come from: answers that could not be read, and answers that were wrong."""

from scripts.common.formats import count, signed_points
from scripts.common.markdown import Cells, Markdown, make_table
from scripts.common.records import Comparison, Contribution
from scripts.report.words import Words

SHOWN = 0.0005
"""Smallest part of a difference that is shown in a sentence: half of a tenth of a point."""


def origins(comparisons: list[Comparison], words: Words) -> list[Markdown]:
    """A sentence for each improvement of which a part comes from baseline answers that could not be read."""
    return [
        words(
            "origin",
            model=row["model"],
            baseline=row["baseline"],
            benchmark=row["benchmark"],
            difference=signed_points(row["difference"]),
            part=signed_points(row["origin"]["unreadable"]["difference"]),
            items=count(row["origin"]["unreadable"]["items"]),
            n=count(row["n"]),
        )
        for row in comparisons
        if row["verdict"] == "improved" and row["origin"] and row["origin"]["unreadable"]["difference"] >= SHOWN
    ]


def origin_table(comparisons: list[Comparison], words: Words) -> Markdown | None:
    """Table of the parts of each difference; None if no benchmark has a filter that extracts answers."""
    rows: list[Cells] = [
        [
            row["benchmark"],
            words("comparison_value", model=row["model"], baseline=row["baseline"]),
            signed_points(row["difference"]),
            *(describe_part(row["origin"][kind]) for kind in ("unreadable", "wrong", "right")),
        ]
        for row in comparisons
        if row["origin"]
    ]
    header = [words("benchmark"), words("comparison"), words("difference")]
    header += [words(f"origin_{kind}") for kind in ("unreadable", "wrong", "right")]
    return make_table(header, rows, "llrrrr", words("origins_caption")) if rows else None


def describe_part(part: Contribution) -> Markdown:
    """A part of a difference with its number of items: `+48.0 (72)`."""
    return Markdown(f"{signed_points(part['difference'])} ({count(part['items'])})")
