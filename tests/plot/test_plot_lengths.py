"""The figure of the lengths of rows."""

from pathlib import Path

import pytest

from scripts.common.files import write_json
from scripts.common.records import Summary
from scripts.plot import plot_lengths
from scripts.plot.plot_lengths import draw_lengths
from scripts.plot.style import TALLEST, WIDTH
from tests.plot.conftest import Draw
from tests.report.tables import change, make_lengths, make_summary


def write_summaries(folder: Path, summaries: list[Summary]) -> list[Path]:
    paths = [folder / f"{place}.json" for place in range(len(summaries))]
    for path, summary in zip(paths, summaries, strict=True):
        write_json(path, summary)
    return paths


def test_figure_shows_median_and_longest(draw: Draw, tmp_path: Path) -> None:
    summary = make_summary("sums")
    summary["tokens"]["splits"]["train"] |= {"median": 1024, "max": 2048}
    svg = draw(plot_lengths, "--summaries", *write_summaries(tmp_path, [summary]))
    for label in (">sums<", ">tokens; median 1,024, longest 2,048<"):
        assert label in svg


def test_each_data_set_has_a_panel(draw: Draw, tmp_path: Path) -> None:
    names = ["one", "two", "three", "four", "a-name-of-sixty-characters_that_is_wrapped_in_the_panels_title"]
    svg = draw(plot_lengths, "--summaries", *write_summaries(tmp_path, [make_summary(name) for name in names]))
    for label in (">one<", ">two<", ">three<", ">four<", ">a-name-of-sixty-<"):
        assert label in svg
    assert svg.count(">tokens; median 27, longest 40<") == len(names)


def test_bars_are_the_counts(tmp_path: Path) -> None:
    summary = make_summary("sums")
    figure = draw_lengths([summary], "#336699")
    (axes,) = figure.axes
    values, edges, _ = axes.patches[0].get_data()
    assert values.tolist() == summary["tokens"]["splits"]["train"]["counts"]
    # Bars are centred on integers.
    assert edges.tolist() == [edge - 0.5 for edge in summary["tokens"]["edges"]]
    assert axes.lines[0].get_xdata() == [27, 27]


def test_a_single_length_is_drawn(draw: Draw, tmp_path: Path) -> None:
    summary = make_summary("same")
    lengths = change(make_lengths(600, 4200, [600]), median=7, max=7)
    summary["tokens"] = {"edges": [7, 8], "splits": {"train": lengths}}
    assert ">tokens; median 7, longest 7<" in draw(plot_lengths, "--summaries", *write_summaries(tmp_path, [summary]))


def test_a_data_set_without_counted_rows(draw: Draw, tmp_path: Path) -> None:
    """A small sample of a very large data set may contain none of the rows whose tokens are counted."""
    summary = make_summary("sampled")
    summary["tokens"] = {"edges": [0, 1], "splits": {"train": {"rows": 3, "counted": 0}}}
    svg = draw(plot_lengths, "--summaries", *write_summaries(tmp_path, [summary, make_summary("other")]))
    for label in (">sampled<", ">no row was counted<", ">tokens; median 27, longest 40<"):
        assert label in svg


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7])
def test_a_row_has_three_panels(number: int) -> None:
    figure = draw_lengths([make_summary(f"set {place}") for place in range(number)], "#336699")
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") or axes.get_title() for axes in shown] == [f"set {i}" for i in range(number)]
    assert {axes.get_subplotspec().colspan.start for axes in shown} == set(range(min(3, number)))


def test_many_data_sets_fit_on_one_page() -> None:
    figure = draw_lengths([make_summary(f"set {place}") for place in range(30)], "#336699")
    assert figure.get_size_inches().tolist() == [WIDTH, TALLEST]
