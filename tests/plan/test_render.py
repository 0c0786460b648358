"""The plan fits a terminal, and its Markdown shows the same."""

from pathlib import Path

import pytest

from scripts.plan.forecast import make_forecast
from scripts.plan.render import describe_verdict, gigabytes, magnitude, quantity, render_markdown, render_text
from tests.common.running import REPOSITORY
from tests.plan.stages import read_config

RUNS = ["config.yaml", *sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "recipes").glob("*.yaml"))]


@pytest.mark.parametrize("path", RUNS)
def test_every_run_that_we_ship_has_a_plan(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    config = read_config(path, tmp_path)
    config = config.model_copy(update={"plan": config.plan.model_copy(update={"per_gpu_hour": 2.5})})
    plan = make_forecast(config, tmp_path / "work" / "x", tmp_path / "results" / "x")
    text, page = render_text(plan), render_markdown(plan)
    assert max(map(len, text.splitlines())) <= 120
    for name in (*config.stages, *config.benchmarks):
        assert f"\n{name} " in text
        assert name.replace("_", r"\_") in page


def verdict(memory: bool | None, time: bool | None, over_time: str = "fit") -> str:
    return describe_verdict({"fits_memory": memory, "fits_time": time, "over_time": over_time})


def test_verdicts_in_words() -> None:
    assert verdict(True, True) == "fits"
    assert verdict(False, True) == "TOO LARGE"
    assert verdict(None, False) == "TOO LONG, will be cut"
    assert verdict(False, False, "refuse") == "TOO LARGE; TOO LONG, will be refused"
    assert verdict(True, False, "end") == "TOO LONG for its jobs"
    assert verdict(None, None) == "memory and time unknown"
    assert verdict(True, None) == "time unknown"


def test_numbers_in_words() -> None:
    assert [quantity(x) for x in (None, 0.01234, 3, 24.56, 123.4, 12_345)] == [
        "?",
        "0.0123",
        "3",
        "24.6",
        "123",
        "12,345",
    ]
    assert [magnitude(x) for x in (None, 12, 1_500, 134_515_008, 4.02e9, 2e12)] == [
        *("?", "12", "1.5k", "134.5M", "4.0B", "2.0T")
    ]
    assert gigabytes(1.55e9) == "1.6"
