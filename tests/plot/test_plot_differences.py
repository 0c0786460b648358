"""The figure of the differences: a forest plot."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from scripts.common.files import write_json
from scripts.common.records import Comparison
from scripts.plot import plot_differences
from scripts.plot.plot_differences import draw_differences, fit_axis
from scripts.plot.style import GREY, TALLEST, WIDTH
from tests.plot.conftest import Draw
from tests.report.tables import make_comparison

COLOURS = ["#000001", "#000002", "#000003", "#000004", "#000005", "#000006"]


def _row(benchmark: str, baseline: str, model: str, difference: float, **changes: Any) -> Comparison:
    return make_comparison(baseline, model, benchmark, (0.5, 0.5 + difference), "improved", **changes)


ROWS = [
    _row("sums", "base", "sft", 0.3, expected="improves", outcome="confirmed"),
    _row("talk", "base", "sft", -0.02),
    _row("sums", "sft", "dpo", -0.2, expected="holds", outcome="contradicted", margin=0.1),
    _row("talk", "sft", "dpo", 0.04, expected="improves", outcome="not confirmed"),
]


def _markers(axes: Axes) -> list[tuple[Any, ...]]:
    """Position, colour, shape and face of each marker."""
    return [
        (*line.get_xydata()[0].round(6), line.get_color(), line.get_marker(), line.get_markerfacecolor())
        for line in axes.lines
        if line.get_marker() not in ("", "None", None)
    ]


def test_each_comparison_is_drawn_below_the_names_of_its_models() -> None:
    figure = draw_differences([ROWS[0], ROWS[2], ROWS[1], ROWS[3]], COLOURS)  # in any order
    (axes,) = figure.axes
    first, last = COLOURS[0], COLOURS[5]
    assert _markers(axes) == [
        (30.0, 1.0, first, "o", first),
        (-2.0, 2.0, GREY, "o", "white"),
        (-20.0, 4.2, last, "X", last),
        (4.0, 5.2, first, "o", "white"),
    ]
    labels = {label.get_text(): place for label, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    assert list(labels) == ["sums", "talk"] and axes.get_yticks() == pytest.approx([1, 2, 4.2, 5.2])
    texts = {text.get_text(): text.get_position()[1] for text in axes.texts if "against" in text.get_text()}
    assert texts == {"sft against base": 0.0, "dpo against sft": pytest.approx(3.2)}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["confirmed", "not confirmed", "contradicted", "exploratory"]


def test_intervals_and_the_tolerated_drop_are_drawn() -> None:
    (axes,) = draw_differences(ROWS, COLOURS).axes
    lines = [line.get_xydata().round(6).tolist() for line in axes.lines if len(line.get_xdata()) == 2]
    assert [[25.0, 1.0], [35.0, 1.0]] in lines and [[-25.0, 4.2], [-15.0, 4.2]] in lines
    dotted = [line.get_xdata() for line in axes.lines if line.get_linestyle() == ":"]
    assert [list(xs) for xs in dotted] == [[-10.0, -10.0]]
    values = {text.get_text() for text in axes.texts} - {"sft against base", "dpo against sft"}
    assert values == {"+30.0", "−2.0", "−20.0", "+4.0"}


def test_without_expectations_there_is_no_legend() -> None:
    assert draw_differences([ROWS[1]], COLOURS).legends == []


def test_the_axis_includes_all_intervals_and_zero() -> None:
    low, high = fit_axis(ROWS)
    assert low == pytest.approx(-30 - 0.02 * 70) and high == pytest.approx(40 + 0.1 * 70)
    assert fit_axis([_row("sums", "base", "sft", 0.3)])[0] == pytest.approx(-0.02 * 40)


def test_many_comparisons_fit_on_one_page(draw: Draw, tmp_path: Path) -> None:
    """Eleven benchmarks and four stages. Runs with the same data write the same bytes."""
    pairs = [("base", "a"), ("a", "b"), ("b", "c"), ("base", "b"), ("base", "c")]
    rows = [_row(f"benchmark_{place}", *pair, 0.1) for pair in pairs for place in range(11)]
    write_json(tmp_path / "comparison.json", rows)
    svg = draw(plot_differences, "--comparison", tmp_path / "comparison.json")
    assert svg.count(">+10.0<") == len(rows) and ">c against base<" in svg
    assert f'width="{WIDTH * 72:g}pt" height="{TALLEST * 72:g}pt"' in svg
