"""Common style of all figures: fonts, colours, markers, and files that are identical for identical data."""

import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pylopdf_fonts_zh_cn import sans_path

from scripts.common.files import written_whole

WIDTH = 6.5
"""Width of a figure in inches: that of the report's text, so figures are not scaled and fonts keep their size."""

TALLEST = 8.8
"""Largest height of a figure in inches, so that it fits on one page with heading and caption."""

FONT = "Noto Sans SC"
INK = "#222222"
GREY = "#6b6b6b"
BAND = "#f3f3f3"

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Markers of the models, so that they can be distinguished without colour."""


def look() -> dict[str, Any]:
    """Matplotlib's rcParams of all figures. Fonts have 7 to 9 points, and text stays text in the SVG."""
    font_manager.fontManager.addfont(sans_path())
    return {
        "font.family": [FONT, "DejaVu Sans"],
        "font.size": 8,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.labelsize": 8,
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "text.color": INK,
        "text.parse_math": False,  # dollar signs in names are literal
        "axes.edgecolor": GREY,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.5,
        "lines.linewidth": 1.3,
        "hatch.linewidth": 0.6,
        "figure.dpi": 100,
        "savefig.dpi": 200,
        "svg.fonttype": "none",
        "svg.hashsalt": "posttrain",
    }


def model_styles(models: Sequence[str], colours: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each model, by its position in the run. Both lists repeat."""
    return {model: (colours[place % len(colours)], MARKERS[place % len(MARKERS)]) for place, model in enumerate(models)}


def wrap(name: str, width: int) -> str:
    """Wrap a name to lines of at most `width` characters, after `-` or `_` if possible."""
    spaced = name.replace("_", "_\u200b").replace("-", "-\u200b")
    lines, line = [], ""
    for piece in spaced.split("\u200b"):
        if line and len(line) + len(piece) > width:
            lines.append(line)
            line = ""
        *full, line = textwrap.wrap(line + piece, width, break_on_hyphens=False) or [""]
        lines += full
    return "\n".join([*lines, line])


def make_figure(height: float) -> Figure:
    """An empty figure with the width of the report's text. `height` is in inches and is limited to that of a page."""
    return Figure(figsize=(WIDTH, min(height, TALLEST)), layout="constrained")


def draw_grid(axes: Axes, axis: Any) -> None:
    """Draw thin grid lines for one axis, `x` or `y`, and remove its tick marks."""
    axes.grid(axis=axis)
    axes.tick_params(axis=axis, length=0)


def save_figure(figure: Figure, paths: Iterable[Path]) -> None:
    """Write a figure to each path, in the format of its suffix. Equal figures give equal bytes."""
    undated = {".svg": {"Date": None}, ".png": {"Software": None}}
    for path in paths:
        with written_whole(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata=undated[path.suffix])


def styled() -> AbstractContextManager[None]:
    """Context for drawing and saving figures in our style, regardless of the user's matplotlibrc."""
    defaults: dict[Any, Any] = dict(matplotlib.rcParamsDefault)
    context: AbstractContextManager[None] = matplotlib.rc_context(defaults | look())
    return context
