"""Draw the training curves of each stage from its training log."""

from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scripts.common.config import BASE, Plot
from scripts.common.console import make_parser, run_script, say
from scripts.common.records import TrainingStep
from scripts.plot.style import INK, draw_grid, make_figure, model_styles, save_figure, styled, wrap

FEW = 25
"""A curve with at most this many points has a dot at each, so that a single point is visible."""


class Panel(NamedTuple):
    """A quantity of a training log. The key of its validation value has the prefix `eval_`."""

    key: str
    label: str


LOSS = Panel("loss", "loss")
TOKEN_ACCURACY = Panel("mean_token_accuracy", "token accuracy")
REWARDS = (Panel("rewards/accuracies", "reward accuracy"), Panel("rewards/margins", "reward margin"))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="section `plot` of the configuration, as JSON")
    parser.add_argument("--stages", nargs="+", required=True, help="names of the stages, parents first")
    parser.add_argument("--logs", type=Path, nargs="+", required=True, help="training log of each stage")
    parser.add_argument("--output", type=Path, nargs="+", required=True, help="figures to write, .svg or .png")
    options = parser.parse_args()
    config = Plot.model_validate_json(options.config)

    logs = {stage: pq.read_table(path).to_pylist() for stage, path in zip(options.stages, options.logs, strict=True)}
    with styled():
        save_figure(draw_training(logs, config.colours), options.output)
    say(f"plot_training: {len(logs)} stages")


def draw_training(logs: dict[str, list[TrainingStep]], colours: list[str]) -> Figure:
    """One row of panels for each stage, in the stage's colour, with validation in black."""
    styles = model_styles([BASE, *logs], colours)
    figure = make_figure(1.75 * len(logs))
    rows = figure.subfigures(len(logs), 1, squeeze=False)[:, 0]
    for row, (stage, log) in zip(rows, logs.items(), strict=True):
        panels = find_panels(log)
        row.suptitle(wrap(stage, 60), x=0.01, ha="left", size=9)
        grid = row.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(grid, panels, strict=True):
            draw_panel(axes, panel, log, styles[stage][0])
        handles, labels = grid[0].get_legend_handles_labels()
        row.legend(handles, labels, loc="upper right", ncols=2, handlelength=2.2, fontsize=7)
    return figure


def find_panels(log: list[TrainingStep]) -> list[Panel]:
    """The loss, and the rewards of preference training or else the token accuracy, if the method logs them."""
    keys = {key for row in log for key in row}
    rewards = [panel for panel in REWARDS if panel.key in keys]
    return [LOSS, *(rewards or [panel for panel in [TOKEN_ACCURACY] if panel.key in keys])]


def draw_panel(axes: Axes, panel: Panel, log: list[TrainingStep], colour: str) -> None:
    """Draw a quantity over the steps: training as a solid line, validation as a dashed line with open circles."""
    steps, values = read_series(log, panel.key)
    axes.plot(steps, values, color=colour, marker="." if len(steps) <= FEW else None, markersize=4, label="training")
    steps, values = read_series(log, f"eval_{panel.key}")
    if steps:
        axes.plot(steps, values, color=INK, linestyle="--", marker="o", markersize=3.5, mfc="white", label="validation")
    axes.set_ylabel(panel.label)
    axes.set_xlabel("step")
    axes.set_xlim(0, 1.03 * max(read_series(log, "step")[0]))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    draw_grid(axes, "y")


def read_series(log: list[TrainingStep], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of the rows that have a value for the key."""
    points = [(row["step"], value) for row in log if (value := row.get(key)) is not None]
    return [step for step, _ in points if step is not None], [value for _, value in points]


if __name__ == "__main__":
    run_script(main)
