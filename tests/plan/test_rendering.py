"""The plan fits a terminal, and its Markdown has the same content."""

from pathlib import Path

import pytest

from scripts.common.paths import REPOSITORY, RunPaths
from scripts.common.records import OverTime
from scripts.plan.forecast import make_plan
from scripts.plan.rendering import describe_verdict, gigabytes, magnitude, quantity, render_markdown, render_text
from tests.plan.stages import read_config

RUNS = ["config.yaml", *sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "recipes").glob("*.yaml"))]


@pytest.mark.parametrize("path", RUNS)
def test_every_recipe_has_a_plan(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    config = read_config(path, tmp_path)
    config = config.model_copy(update={"plan": config.plan.model_copy(update={"per_gpu_hour": 2.5})})
    plan = make_plan(config, RunPaths("x", tmp_path))
    text, page = render_text(plan), render_markdown(plan)
    assert max(map(len, text.splitlines())) <= 120
    for name in (*config.stages, *config.benchmarks):
        assert f"\n{name} " in text
        assert name.replace("_", r"\_") in page


@pytest.mark.parametrize(("gpus", "marked"), [(0, True), (1, False)])
def test_memory_that_is_an_upper_bound_is_marked(tmp_path: Path, gpus: int, marked: bool) -> None:
    """On CPUs the memory of a stage is an upper bound, since some processors keep kernels."""
    resources = {"train": {"gpus": gpus}}
    config = read_config("recipes/smoke.yaml", tmp_path, resources=resources, plan={"gpu": "H100"})
    plan = make_plan(config, RunPaths("x", tmp_path))
    heads, sft, *_ = (line.split() for line in render_text(plan).partition("\nStages\n")[2].splitlines())
    size = plan["stages"][0]["memory_bytes"]
    assert size is not None and sft[heads.index("GB")] == ("≤" if marked else "") + f"{size / 1e9:.1f}"


def verdict(memory: bool | None, time: bool | None, over_time: OverTime = "fit") -> str:
    return describe_verdict({"fits_memory": memory, "fits_time": time, "over_time": over_time})


def test_verdicts() -> None:
    assert verdict(True, True) == "fits"
    assert verdict(False, True) == "TOO LARGE"
    assert verdict(None, False) == "TOO LONG, will be cut"
    assert verdict(False, False, "refuse") == "TOO LARGE; TOO LONG, will be refused"
    assert verdict(True, False, "end") == "TOO LONG for its jobs"
    assert verdict(None, None) == "memory and time unknown"
    assert verdict(True, None) == "time unknown"


def test_formats_of_numbers() -> None:
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
