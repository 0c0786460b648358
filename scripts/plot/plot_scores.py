"""Draw the scores of all models on each benchmark, with 95 % intervals."""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.common.config import Plot
from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json
from scripts.common.records import Score
from scripts.plot.style import BAND, GREY, draw_grid, make_figure, model_styles, save_figure, styled, wrap

LINE = 0.15
"""Height of one model's line, in inches."""

GAP = 0.6
"""Gap between benchmarks, in lines."""

LEGEND_WIDTH = 96
"""Characters that fit in one line of the legend."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="section `plot` of the configuration, as JSON")
    parser.add_argument("--models", nargs="+", required=True, help="names of the models, in the order of the figure")
    parser.add_argument("--scores", type=Path, nargs="+", required=True, help="score of each model and benchmark")
    parser.add_argument("--output", type=Path, nargs="+", required=True, help="figures to write, .svg or .png")
    options = parser.parse_args()
    config = Plot.model_validate_json(options.config)

    with styled():
        figure = draw_scores([read_json(path) for path in options.scores], options.models, config.colours)
        save_figure(figure, options.output)
    say(f"plot_scores: {len(options.scores)} scores of {len(options.models)} models")


def draw_scores(scores: list[Score], models: list[str], colours: list[str]) -> Figure:
    """Benchmarks from top to bottom, in the order of the scores, with one line for each model."""
    benchmarks = list(dict.fromkeys(score["benchmark"] for score in scores))
    step = len(models) + GAP
    per_line = max(1, LEGEND_WIDTH // (max(map(len, models)) + 8))
    legend_lines = math.ceil(len(models) / per_line)
    figure = make_figure(0.55 + 0.18 * legend_lines + LINE * max(step, 3) * len(benchmarks))
    axes = figure.subplots()
    shade_benchmarks(axes, scores, benchmarks, step)
    for line, (model, style) in enumerate(model_styles(models, colours).items()):
        own = {benchmarks.index(score["benchmark"]) * step + line: score for score in scores if score["model"] == model}
        draw_model(axes, model, own, style)
    low, high = fit_axis(scores)
    axes.set_xlim(low, high)
    axes.set_xlabel("score in percent, with 95% interval")
    draw_grid(axes, "x")
    figure.legend(loc="outside upper left", ncols=min(per_line, len(models)), handletextpad=0.4, columnspacing=1.6)
    return figure


def shade_benchmarks(axes: Axes, scores: list[Score], benchmarks: list[str], step: float) -> None:
    """Label the benchmarks on the left, and shade every second one."""
    middle = (step - GAP - 1) / 2
    metrics = {score["benchmark"]: (score["metric"], score["n"]) for score in scores}
    labels = [f"{wrap(name, 26)}\n{wrap(f'{metrics[name][0]}, n = {metrics[name][1]:,}', 34)}" for name in benchmarks]
    axes.set_yticks([place * step + middle for place in range(len(benchmarks))], labels, linespacing=1.15)
    axes.tick_params(axis="y", length=0)
    half = max(step, 3) / 2
    axes.set_ylim((len(benchmarks) - 1) * step + middle + half, middle - half)
    for place in range(0, len(benchmarks), 2):
        axes.axhspan(place * step + middle - step / 2, place * step + middle + step / 2, color=BAND, zorder=0, lw=0)


def draw_model(axes: Axes, model: str, scores: dict[float, Score], style: tuple[str, str]) -> None:
    """Draw each score of a model as a marker, with its interval as a line and its value to the right.

    Args:
        scores: scores by vertical position.
        style: colour and marker of the model.
    """
    colour, marker = style
    values = [100 * score["score"] for score in scores.values()]
    # At 0 and 1 the interval ends at the score, and rounding may put its end on the wrong side.
    lows = [max(0.0, 100 * (score["score"] - score["ci_low"])) for score in scores.values()]
    highs = [max(0.0, 100 * (score["ci_high"] - score["score"])) for score in scores.values()]
    axes.errorbar(
        values,
        list(scores),
        xerr=[lows, highs],
        label=model,
        color=colour,
        marker=marker,
        markersize=4.5,
        markeredgecolor="black",
        markeredgewidth=0.5,
        linestyle="none",
        elinewidth=1.2,
        capsize=2,
    )
    for value, high, place in zip(values, highs, scores, strict=True):
        axes.annotate(
            f"{value:.1f}", (value + high, place), (4, 0), textcoords="offset points", va="center", size=7, color=GREY
        )


def fit_axis(scores: list[Score]) -> tuple[float, float]:
    """Limits of the axis in percent: multiples of ten around all intervals, with room for the values on the right."""
    low = min(90, 10 * math.floor(10 * min(score["ci_low"] for score in scores)))
    high = max(low + 10, 10 * math.ceil(10 * max(score["ci_high"] for score in scores)))
    return low - 0.02 * (high - low), high + 0.06 * (high - low)


if __name__ == "__main__":
    run_script(main)
