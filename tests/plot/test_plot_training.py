"""The figure of the training curves."""

import re
from pathlib import Path

import pytest

from scripts.common.records import TrainingStep
from scripts.plot import plot_training
from scripts.plot.plot_training import FEW, draw_training, find_panels, read_series
from scripts.plot.style import INK
from scripts.train.meter import write_steps
from tests.plot.conftest import Draw
from tests.report.tables import make_log


def test_panels_depend_on_what_the_method_logs() -> None:
    assert [panel.label for panel in find_panels(make_log("dpo"))] == ["loss", "reward accuracy", "reward margin"]
    assert [panel.label for panel in find_panels(make_log("sft"))] == ["loss", "token accuracy"]
    assert [panel.label for panel in find_panels([{"step": 1, "loss": 1.0}])] == ["loss"]


def test_a_series_has_only_rows_with_a_value() -> None:
    log: list[TrainingStep] = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "eval_loss": 3.0},
        {"step": 3, "loss": None},
        {"step": 4, "loss": 1.0},
    ]
    assert read_series(log, "loss") == ([1, 4], [2.0, 1.0])
    assert read_series(log, "eval_loss") == ([2], [3.0])


def test_each_panel_shows_its_own_quantity() -> None:
    """Each stage has a row of panels in its colour. Validation is black and dashed."""
    logs = {"sft": make_log("sft"), "dpo": make_log("dpo")}
    figure = draw_training(logs, ["#111111", "#777777", "#eeeeee"])
    assert [row.get_suptitle() for row in figure.subfigs] == ["sft", "dpo"]
    panels = {"sft": ["loss", "mean_token_accuracy"], "dpo": ["loss", "rewards/accuracies", "rewards/margins"]}
    for row, (stage, keys), colour in zip(figure.subfigs, panels.items(), ["#777777", "#eeeeee"], strict=True):
        for axes, key in zip(row.axes, keys, strict=True):
            training, validation = axes.lines
            values = [value for line in logs[stage] if (value := line.get(key)) is not None]
            assert training.get_xdata().tolist() == list(range(1, 21)) and training.get_ydata().tolist() == values
            assert (training.get_label(), training.get_color(), training.get_linestyle()) == ("training", colour, "-")
            # The validation values of the log are 1.05 times those of training, at steps 10 and 20.
            assert validation.get_xdata().tolist() == [10, 20]
            assert validation.get_ydata() == pytest.approx([1.05 * values[9], 1.05 * values[19]])
            drawn = validation.get_label(), validation.get_color(), validation.get_linestyle()
            assert drawn == ("validation", INK, "--")
            assert axes.get_xlim() == pytest.approx((0, 20.6))


def test_figure_names_stages_and_quantities(draw: Draw, tmp_path: Path) -> None:
    logs = [tmp_path / "sft.parquet", tmp_path / "dpo.parquet"]
    for path in logs:
        write_steps(path, list(map(dict, make_log(path.stem))))
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
    titles_and_panels = re.findall(">(sft|dpo-beta_0[$]1[$]|token accuracy|reward margin)<", svg)
    # Matplotlib writes the title of a row after its panels.
    assert titles_and_panels == ["token accuracy", "sft", "reward margin", "dpo-beta_0$1$"]


@pytest.mark.parametrize(("steps", "marker"), [(1, "."), (FEW, "."), (FEW + 1, "None")])
def test_few_points_have_dots(steps: int, marker: str) -> None:
    """A line through a single point would be invisible."""
    figure = draw_training(
        {"sft": [{"step": step, "loss": 1.0} for step in range(1, steps + 1)]}, ["#111111", "#222222"]
    )
    (axes,) = figure.axes
    assert [line.get_marker() for line in axes.lines] == [marker]


def test_a_log_of_one_step_is_drawn(draw: Draw, tmp_path: Path) -> None:
    write_steps(tmp_path / "log.parquet", [{"step": 1, "loss": 1.0}])
    assert ">training<" in draw(plot_training, "--stages", "sft", "--logs", tmp_path / "log.parquet")
