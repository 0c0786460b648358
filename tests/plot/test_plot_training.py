"""Tests of the figure of the training curves."""

from pathlib import Path

from scripts.plot import plot_training
from scripts.plot.plot_training import find_panels, read_series
from scripts.train.measure import write_steps
from tests.plot.conftest import Draw
from tests.report.tables import Json, make_log


def test_preference_training_shows_rewards_and_other_methods_token_accuracy() -> None:
    assert [panel.label for panel in find_panels(make_log("dpo"))] == ["loss", "reward accuracy", "reward margin"]
    assert [panel.label for panel in find_panels(make_log("sft"))] == ["loss", "token accuracy"]
    assert [panel.label for panel in find_panels([{"step": 1, "loss": 1.0}])] == ["loss"]


def test_series_has_the_rows_with_a_value() -> None:
    log: list[Json] = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "eval_loss": 3.0},
        {"step": 3, "loss": None},
        {"step": 4, "loss": 1.0},
    ]
    assert read_series(log, "loss") == ([1, 4], [2.0, 1.0])
    assert read_series(log, "eval_loss") == ([2], [3.0])


def test_figure_names_stages_and_quantities(draw: Draw, tmp_path: Path) -> None:
    write_steps(tmp_path / "sft.parquet", make_log("sft"))
    write_steps(tmp_path / "dpo.parquet", make_log("dpo"))
    logs = [tmp_path / "sft.parquet", tmp_path / "dpo.parquet"]
    svg = draw(plot_training, "--stages", "sft", "dpo-beta_0$1$", "--logs", *logs)
    for label in (
        ">sft<",
        ">dpo-beta_0$1$<",
        ">loss<",
        ">validation<",
        ">reward margin<",
        ">token accuracy<",
        ">step<",
    ):
        assert label in svg


def test_log_of_one_step_is_drawn(draw: Draw, tmp_path: Path) -> None:
    write_steps(tmp_path / "log.parquet", [{"step": 1, "loss": 1.0}])
    assert ">training<" in draw(plot_training, "--stages", "sft", "--logs", tmp_path / "log.parquet")
