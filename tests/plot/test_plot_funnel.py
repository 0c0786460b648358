"""The figure of the data funnel."""

from pathlib import Path

import pytest

from scripts.common.files import write_json
from scripts.plot import plot_funnel
from scripts.plot.plot_funnel import draw_funnels
from tests.plot.conftest import Draw
from tests.report.tables import make_funnel


def test_figure_shows_rows_left_and_removed(draw: Draw, tmp_path: Path) -> None:
    write_json(tmp_path / "sums.json", make_funnel("sums"))
    svg = draw(plot_funnel, "--funnels", tmp_path / "sums.json")
    for label in (
        ">sums<",
        ">read<",
        ">max tokens<",
        ">652<",
        ">640  (−12)<",
        ">rows; 600 train, 25 validation, 12 test<",
    ):
        assert label in svg


def test_bars_show_the_rows_left_from_top_to_bottom() -> None:
    figure = draw_funnels([make_funnel("one"), make_funnel("two")], "#336699")
    for axes in figure.axes:
        assert [bar.get_width() for bar in axes.patches] == [652, 640, 637]
        assert [bar.get_y() + bar.get_height() / 2 for bar in axes.patches] == pytest.approx([0, 1, 2])
        assert [label.get_text() for label in axes.get_yticklabels()] == ["read", "max tokens", "duplicates"]
        assert {text.get_text(): text.xy for text in axes.texts} == {
            "652": (652, 0),
            "640  (−12)": (640, 1),
            "637  (−3)": (637, 2),
        }
        bottom, top = axes.get_ylim()
        assert bottom > 2 and top < 0, "the first step is at the top"
        assert axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > 652, "bars must start at 0"


def test_each_data_set_has_a_panel(draw: Draw, tmp_path: Path) -> None:
    names = ["one", "two", "a-name-of-sixty-characters_that_is_wrapped_in_the_panels_title"]
    paths = [tmp_path / f"{name}.json" for name in names]
    for name, path in zip(names, paths, strict=True):
        write_json(path, make_funnel(name))
    svg = draw(plot_funnel, "--funnels", *paths)
    for label in (">one<", ">two<", ">a-name-of-sixty-<", ">characters_that_is_<"):
        assert label in svg


def test_steps_that_removed_nothing_are_not_drawn(draw: Draw, tmp_path: Path) -> None:
    write_json(tmp_path / "one.json", make_funnel("one"))
    svg = draw(plot_funnel, "--funnels", tmp_path / "one.json")
    assert ">read<" in svg and ">max tokens<" in svg
    assert ">schema<" not in svg


def test_a_data_set_without_rows_is_drawn(draw: Draw, tmp_path: Path) -> None:
    empty = {"dataset": "none", "steps": [{"step": "read", "removed": 0, "rows": 0}], "splits": {"train": 0}}
    write_json(tmp_path / "none.json", empty)
    assert ">0<" in draw(plot_funnel, "--funnels", tmp_path / "none.json")
