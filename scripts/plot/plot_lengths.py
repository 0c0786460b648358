"""Draw the lengths of the training rows of each data set, in tokens."""

from itertools import zip_longest
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scripts.common.config import Plot
from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json
from scripts.common.records import Summary
from scripts.plot.style import GREY, draw_grid, make_figure, save_figure, styled, wrap

COLUMNS = 3
"""Most panels in one row."""

HEIGHT = 1.55
"""Height of one row of panels, in inches."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="section `plot` of the configuration, as JSON")
    parser.add_argument("--summaries", type=Path, nargs="+", required=True, help="summary.json of each data set")
    parser.add_argument("--output", type=Path, nargs="+", required=True, help="figures to write, .svg or .png")
    options = parser.parse_args()
    config = Plot.model_validate_json(options.config)

    with styled():
        figure = draw_lengths([read_json(path) for path in options.summaries], config.colours[0])
        save_figure(figure, options.output)
    say(f"plot_lengths: {len(options.summaries)} data sets")


def draw_lengths(summaries: list[Summary], colour: str) -> Figure:
    """One panel for each data set, in rows of three, with the histogram of the tokens of its training rows."""
    columns = min(COLUMNS, len(summaries))
    lines = [summaries[start : start + columns] for start in range(0, len(summaries), columns)]
    figure = make_figure(HEIGHT * len(lines))
    grid = figure.subplots(len(lines), columns, squeeze=False)
    for row, line in zip(grid, lines, strict=True):
        for axes, summary in zip_longest(row, line):
            if summary is None:
                axes.axis("off")
            else:
                draw_histogram(axes, summary, columns, colour)
    return figure


def draw_histogram(axes: Axes, summary: Summary, columns: int, colour: str) -> None:
    """Draw training rows by tokens, with a line at the median. The last bar contains all longer rows."""
    edges, train = summary["tokens"]["edges"], summary["tokens"]["splits"]["train"]
    axes.set_title(wrap(summary["dataset"], 70 // columns))
    if not train["counted"]:
        axes.set_xlabel("no row was counted", color=GREY)
        return
    # Lengths are integers, so each bar is centred on its lengths.
    axes.stairs(train["counts"], [edge - 0.5 for edge in edges], fill=True, color=colour)
    axes.axvline(train["median"], color=GREY, linewidth=0.8)
    axes.set_xlabel(f"tokens; median {train['median']:,}, longest {train['max']:,}", color=GREY)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    draw_grid(axes, "y")


if __name__ == "__main__":
    run_script(main)
