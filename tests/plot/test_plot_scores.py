"""The figure of the scores."""

from pathlib import Path

import numpy as np
import pytest

from scripts.common.files import write_json
from scripts.common.records import Score
from scripts.plot import plot_scores
from scripts.plot.plot_scores import draw_scores, fit_axis
from scripts.plot.style import TALLEST, WIDTH
from tests.plot.conftest import Draw
from tests.report.tables import change, make_score


def write_scores(folder: Path, scores: list[Score]) -> list[Path]:
    paths = [folder / f"{place}.json" for place in range(len(scores))]
    for path, score in zip(paths, scores, strict=True):
        write_json(path, score)
    return paths


def test_figure_names_models_benchmarks_and_scores(draw: Draw, tmp_path: Path) -> None:
    scores = [make_score("base", "sums", "exact_match", 0.125), make_score("sft", "sums", "exact_match", 0.5)]
    svg = draw(plot_scores, "--models", "base", "sft", "--scores", *write_scores(tmp_path, scores))
    for label in (">base<", ">sft<", ">sums<", ">exact_match, n = 200<", ">12.5<", ">50.0<"):
        assert label in svg


def test_many_models_and_benchmarks_fit_on_one_page(draw: Draw, tmp_path: Path) -> None:
    models = ["base", "sft", "dpo", "dpo-beta_0-1", "a-stage-with-a-name-of-nearly-sixty-characters-in-all-it-has"]
    scores = [make_score(model, f"benchmark-{place}", "acc", 0.512) for place in range(12) for model in models]
    svg = draw(plot_scores, "--models", *models, "--scores", *write_scores(tmp_path, scores))
    assert all(f">{model}<" in svg for model in models)
    assert svg.count(">51.2<") == len(scores)
    assert f'width="{WIDTH * 72:g}pt" height="{TALLEST * 72:g}pt"' in svg


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_interval_that_ends_at_the_score_is_drawn(draw: Draw, tmp_path: Path, share: float) -> None:
    score = make_score("base", "sums", "acc", share)
    score |= {"ci_low": max(0, share - 1e-17), "ci_high": min(1, share + 0.01)}
    svg = draw(plot_scores, "--models", "base", "--scores", *write_scores(tmp_path, [score]))
    assert f">{100 * share:.1f}<" in svg


def test_markers_and_intervals_show_the_scores() -> None:
    """Within a benchmark, models are in order from top to bottom, each in its own colour, whatever the input order."""
    numbers = {
        ("base", "sums"): (0.3, 0.25, 0.45),
        ("sft", "sums"): (0.5, 0.35, 0.6),
        ("base", "talk"): (0.7, 0.68, 0.8),
        ("sft", "talk"): (0.9, 0.6, 0.95),
    }
    scores = [
        change(
            make_score(model, benchmark, "acc", share, n=100 if benchmark == "sums" else 2000), ci_low=low, ci_high=high
        )
        for (model, benchmark), (share, low, high) in reversed(numbers.items())
    ]
    figure = draw_scores(scores, ["base", "sft"], ["#111111", "#eeeeee"])
    (axes,) = figure.axes
    # Two lines and a gap of 0.6 for each benchmark; `talk` comes first in the scores.
    places = {("base", "talk"): 0, ("sft", "talk"): 1, ("base", "sums"): 2.6, ("sft", "sums"): 3.6}
    for model, colour, marker, bars in zip(("base", "sft"), ("#111111", "#eeeeee"), "os", axes.containers, strict=True):
        points, _, (lines,) = bars
        assert (bars.get_label(), points.get_color(), points.get_marker()) == (model, colour, marker)
        own = [
            name for name in (("sft", "talk"), ("base", "talk"), ("sft", "sums"), ("base", "sums")) if name[0] == model
        ]
        assert points.get_xdata() == pytest.approx([100 * numbers[name][0] for name in own])
        assert points.get_ydata() == pytest.approx([places[name] for name in own])
        segments = [[[100 * share, places[name]] for share in numbers[name][1:]] for name in own]
        assert np.array(lines.get_segments()) == pytest.approx(np.array(segments))
    shown = {text.get_text(): text.xy for text in axes.texts}
    assert shown == {
        f"{100 * share:.1f}": pytest.approx((100 * high, places[name])) for name, (share, _, high) in numbers.items()
    }
    labels = {label.get_text(): place for label, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    assert labels == pytest.approx({"talk\nacc, n = 2,000": 0.5, "sums\nacc, n = 100": 3.1})
    low, high = axes.get_xlim()
    assert 18 < low < 20 and 100 < high < 106
    top, bottom = axes.get_ylim()[::-1]
    assert top < 0 and bottom > 3.6, "the first benchmark is at the top"
    (band,) = axes.patches
    assert (band.get_y(), band.get_height()) == pytest.approx((-0.8, 2.6)), "every second benchmark has a band"


def test_the_axis_contains_all_intervals() -> None:
    scores = [make_score("base", "a", "acc", 0.33), make_score("base", "b", "acc", 0.52)]
    low, high = fit_axis(scores)
    assert (round(low), round(high)) == (19, 62)
    low, high = fit_axis([change(make_score("base", "a", "acc", 0.5), ci_low=0.08, ci_high=0.91)])
    assert (low, high) == pytest.approx((-2, 106)), "2 % of the range are added on the left, and 6 % on the right"
