"""Draw how many rows of each data set are left after each filter."""

from itertools import zip_longest
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scripts.common.config import Plot
from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json
from scripts.common.records import Funnel, FunnelStep
from scripts.plot.style import GREY, draw_grid, make_figure, save_figure, styled, wrap

COLUMNS = 3
"""Most panels in one row."""

BAR_HEIGHT = 0.17
"""Height of a bar with its gap, in inches: enough for a label of 7.5 points."""

LABEL_ROOM = 0.014
"""Width of one character of a label, as a share of the width of a single panel."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="section `plot` of the configuration, as JSON")
    parser.add_argument("--funnels", type=Path, nargs="+", required=True, help="funnel.json of each data set")
    parser.add_argument("--output", type=Path, nargs="+", required=True, help="figures to write, .svg or .png")
    options = parser.parse_args()
    config = Plot.model_validate_json(options.config)

    with styled():
        figure = draw_funnels([read_json(path) for path in options.funnels], config.colours[0])
        save_figure(figure, options.output)
    say(f"plot_funnel: {len(options.funnels)} data sets")


def draw_funnels(funnels: list[Funnel], colour: str) -> Figure:
    """One panel for each data set, in rows of three. All bars have the same thickness."""
    columns = min(COLUMNS, len(funnels))
    lines = [funnels[start : start + columns] for start in range(0, len(funnels), columns)]
    bars = [max(len(drawn_steps(funnel)) for funnel in line) for line in lines]
    heights = [0.65 + BAR_HEIGHT * count for count in bars]
    figure = make_figure(sum(heights))
    grid = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
    for row, line, places in zip(grid, lines, bars, strict=True):
        for axes, funnel in zip_longest(row, line):
            if funnel is None:
                axes.axis("off")
            else:
                draw_funnel(axes, funnel, places, columns, colour)
    return figure


def drawn_steps(funnel: Funnel) -> list[FunnelStep]:
    """The first step and the steps that removed rows. The others would repeat the bar above them."""
    return [step for place, step in enumerate(funnel["steps"]) if place == 0 or step["removed"]]


def draw_funnel(axes: Axes, funnel: Funnel, places: int, columns: int, colour: str) -> None:
    """Draw one bar for each step, from top to bottom, labelled with the rows left and, in brackets, those removed.

    Args:
        places: number of bars that the panel has room for.
        columns: number of panels in its row.
    """
    steps = drawn_steps(funnel)
    rows = [step["rows"] for step in steps]
    labels = [f"{step['rows']:,}" + (f"  (−{step['removed']:,})" if step["removed"] else "") for step in steps]
    axes.barh(range(len(steps)), rows, height=0.62, color=colour)
    for place, (end, label) in enumerate(zip(rows, labels, strict=True)):
        axes.annotate(label, (end, place), (3, 0), textcoords="offset points", va="center", size=7)
    axes.set_yticks(range(len(steps)), [wrap(step["step"].replace("_", " "), 40 // columns) for step in steps])
    axes.set_ylim(places - 0.4, -0.6)
    axes.set_xlim(0, max(*rows, 1) / (1 - LABEL_ROOM * columns * max(map(len, labels))))
    axes.set_title(wrap(funnel["dataset"], 70 // columns))
    splits = ", ".join(f"{size:,} {split}" for split, size in funnel["splits"].items() if size)
    axes.set_xlabel(wrap(f"rows; {splits}", 105 // columns), color=GREY)
    axes.xaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(axis="y", length=0)
    draw_grid(axes, "x")


if __name__ == "__main__":
    run_script(main)
