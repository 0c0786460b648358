"""Tests of the figure of the scores."""

from pathlib import Path

import pytest

from scripts.common.files import write_json
from scripts.plot import plot_scores
from scripts.plot.plot_scores import fit_axis
from scripts.plot.style import TALLEST, WIDTH
from tests.plot.conftest import Draw
from tests.report.tables import Json, make_score


def write_scores(folder: Path, scores: list[Json]) -> list[Path]:
    paths = [folder / f"{place}.json" for place in range(len(scores))]
    for path, score in zip(paths, scores, strict=True):
        write_json(path, score)
    return paths


def test_figure_names_models_benchmarks_and_scores(draw: Draw, tmp_path: Path) -> None:
    scores = [make_score("base", "sums", "exact_match", 0.125), make_score("sft", "sums", "exact_match", 0.5)]
    svg = draw(plot_scores, "--models", "base", "sft", "--scores", *write_scores(tmp_path, scores))
    for label in (">base<", ">sft<", ">sums<", ">exact_match, n = 200<", ">12.5<", ">50.0<"):
        assert label in svg


def test_many_models_and_benchmarks_fit_one_page(draw: Draw, tmp_path: Path) -> None:
    models = ["base", "sft", "dpo", "dpo-beta_0-1", "a-stage-with-a-name-of-nearly-sixty-characters-in-all-it-has"]
    scores = [make_score(model, f"benchmark-{place}", "acc", 0.512) for place in range(12) for model in models]
    svg = draw(plot_scores, "--models", *models, "--scores", *write_scores(tmp_path, scores))
    assert all(f">{model}<" in svg for model in models)
    assert svg.count(">51.2<") == len(scores)
    assert f'width="{WIDTH * 72:g}pt" height="{TALLEST * 72:g}pt"' in svg


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_interval_that_ends_at_the_score_is_drawn(draw: Draw, tmp_path: Path, share: float) -> None:
    score = make_score("base", "sums", "acc", share) | {
        "ci_low": max(0, share - 1e-17),
        "ci_high": min(1, share + 0.01),
    }
    svg = draw(plot_scores, "--models", "base", "--scores", *write_scores(tmp_path, [score]))
    assert f">{100 * share:.1f}<" in svg


def test_axis_holds_all_intervals() -> None:
    scores = [make_score("base", "a", "acc", 0.33), make_score("base", "b", "acc", 0.52)]
    low, high = fit_axis(scores)
    assert (round(low), round(high)) == (19, 62)
