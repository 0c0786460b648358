"""Draw the differences between models on each score, with their intervals: a forest plot.

What was expected of a comparison is drawn by its outcome, all other comparisons in grey.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from scripts.common.config import Plot
from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json
from scripts.common.formats import signed_points
from scripts.common.records import Comparison, Outcome
from scripts.plot.style import GREY, INK, draw_grid, make_figure, save_figure, styled, wrap

LINE = 0.2
"""Height of one comparison, in inches."""

Look = tuple[str, str, bool]
"""Colour of a marker, its shape, and whether it is filled."""

EXPLORATORY: Look = (GREY, "o", False)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="section `plot` of the configuration, as JSON")
    parser.add_argument("--comparison", type=Path, required=True, help="comparison.json")
    parser.add_argument("--output", type=Path, nargs="+", required=True, help="figures to write, .svg or .png")
    options = parser.parse_args()
    config = Plot.model_validate_json(options.config)
    comparisons: list[Comparison] = read_json(options.comparison)

    with styled():
        save_figure(draw_differences(comparisons, config.colours), options.output)
    say(f"plot_differences: {len(comparisons)} comparisons")


def draw_differences(comparisons: Sequence[Comparison], colours: Sequence[str]) -> Figure:
    """A line for each comparison, below the name of its two models. A vertical mark is the drop that is tolerated."""
    looks = outcome_looks(colours)
    pairs: dict[tuple[str, str], list[Comparison]] = {}
    for row in comparisons:
        pairs.setdefault((row["model"], row["baseline"]), []).append(row)
    figure = make_figure(0.85 + LINE * sum(len(rows) + 1.2 for rows in pairs.values()))
    axes = figure.subplots()
    place, places, labels = 0.0, [], []
    for (model, baseline), rows in pairs.items():
        axes.text(0.01, place, f"{model} against {baseline}", transform=axes.get_yaxis_transform(), va="center")
        for row in rows:
            place += 1
            places.append(place)
            labels.append(wrap(row["benchmark"], 26))
            draw_comparison(axes, row, place, looks[row["outcome"]] if row["outcome"] else EXPLORATORY)
        place += 1.2
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(place - 0.4, -0.8)
    axes.set_xlim(*fit_axis(comparisons))
    axes.set_xlabel("difference in percentage points, with interval")
    draw_grid(axes, "x")
    if handles := legend_handles(comparisons, looks):
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), handletextpad=0.4)
    return figure


def legend_handles(comparisons: Sequence[Comparison], looks: Mapping[Outcome, Look]) -> list[Line2D]:
    """A marker for each outcome that occurs, and one for comparisons without; empty if nothing was expected."""
    outcomes = {row["outcome"] for row in comparisons}
    handles = [make_marker(look, outcome) for outcome, look in looks.items() if outcome in outcomes]
    return [*handles, *([make_marker(EXPLORATORY, "exploratory")] if None in outcomes else [])] if handles else []


def outcome_looks(colours: Sequence[str]) -> dict[Outcome, Look]:
    """How each outcome is drawn. Shapes and filling differ too, so that the figure can be read in grey."""
    first, last = colours[0], colours[min(5, len(colours) - 1)]
    return {"confirmed": (first, "o", True), "not confirmed": (first, "o", False), "contradicted": (last, "X", True)}


def draw_comparison(axes: Axes, row: Comparison, place: float, look: Look) -> None:
    """Draw the difference as a marker with its interval, its value on the right, and the tolerated drop."""
    colour, marker, is_filled = look
    value, low, high = (100 * row[key] for key in ("difference", "ci_low", "ci_high"))
    axes.plot([low, high], [place, place], color=colour, linewidth=1.2, solid_capstyle="butt", zorder=2)
    face = colour if is_filled else "white"
    axes.plot([value], [place], marker=marker, markersize=5, color=colour, markerfacecolor=face, zorder=3)
    if row["margin"] is not None and row["expected"] == "holds":
        margin = -100 * row["margin"]
        axes.plot([margin, margin], [place - 0.35, place + 0.35], color=colour, linewidth=1.4, linestyle=":", zorder=2)
    text = signed_points(row["difference"])
    axes.annotate(text, (max(high, value), place), (5, 0), textcoords="offset points", va="center", size=7, color=GREY)


def make_marker(look: Look, label: str) -> Line2D:
    """A marker of the legend."""
    colour, marker, is_filled = look
    face = colour if is_filled else "white"
    return Line2D([], [], color=colour, marker=marker, markerfacecolor=face, markersize=5, linestyle="", label=label)


def fit_axis(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """Limits of the axis in points: multiples of ten around all intervals and zero, with room for the values."""
    low = 10 * math.floor(10 * min(0.0, *(row["ci_low"] for row in comparisons)))
    high = 10 * math.ceil(10 * max(0.0, *(row["ci_high"] for row in comparisons)))
    return low - 0.02 * (high - low), high + 0.1 * (high - low)


if __name__ == "__main__":
    run_script(main)
