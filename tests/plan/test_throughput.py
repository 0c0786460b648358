"""The pace of a stage is a measured one where a run is like it, and else an assumed one."""

from typing import Any, get_args

import pytest
import yaml

from scripts.common.config import Stage
from scripts.plan.throughput import TABLE, find_pace
from tests.plan.stages import make_stage

PARAMETERS = 4_000_000_000


def make_run(name: str, **changes: Any) -> dict[str, Any]:
    """A finished run on two H100s that reached 300 TFLOP/s on each."""
    run: dict[str, Any] = {
        "name": name,
        "device": "2 x NVIDIA H100 80GB HBM3",
        "created": "2026-11-22T10:00:00",
        "config": {"method": "sft", "tuning": "full", "args": {}},
        "facts": {"flops": 6e17, "train_seconds": 1_000.0, "processes": 2, "parameters": PARAMETERS},
    }
    run["facts"]["trainable_parameters"] = PARAMETERS
    for group in ("config", "facts"):
        run[group] |= changes.pop(group, {})
    return run | changes


def test_a_measured_run_goes_before_an_assumption() -> None:
    pace = find_pace(make_stage(), "H100", PARAMETERS, [make_run("mine")])
    assert pace is not None and pace.is_measured and pace.flops == 3e14
    assert pace.source == "measured by mine, 2026-11-22, 2 x NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "1 x NVIDIA A100-SXM4-80GB"},
        {"config": {"method": "dpo"}},
        {"config": {"tuning": "lora"}},
        {"config": {"args": {"packing": True}}},
        {"config": {"args": {"gradient_checkpointing": True}}},
        {"facts": {"parameters": PARAMETERS // 5}},
    ],
    ids=str,
)
def test_a_run_that_is_unlike_does_not_count(changes: dict[str, Any]) -> None:
    pace = find_pace(make_stage(), "H100", PARAMETERS, [make_run("other", **changes)])
    assert pace is not None and not pace.is_measured
    assert pace.flops == pytest.approx(0.105 * 989.4e12)


def test_of_several_runs_the_nearest_in_size_counts_and_then_the_newest() -> None:
    runs = [
        make_run("old"),
        make_run("new", created="2026-11-23T10:00:00"),
        make_run("larger", facts={"parameters": 2 * PARAMETERS}, created="2026-11-24T10:00:00"),
    ]
    pace = find_pace(make_stage(), "H100", PARAMETERS, runs)
    assert pace is not None and pace.source.startswith("measured by new")


@pytest.mark.parametrize("device", [None, "CPU", "Radeon"])
def test_nothing_is_assumed_of_devices_that_are_not_known(device: str | None) -> None:
    assert find_pace(make_stage(), device, PARAMETERS, []) is None


def test_every_method_and_tuning_has_an_assumption() -> None:
    def options(field: str) -> tuple[str, ...]:
        return get_args(Stage.model_fields[field].annotation)

    known = {(e["method"], e["tuning"]) for e in yaml.safe_load(TABLE.read_text())["mfu"] if not e["packed"]}
    assert known == {(method, tuning) for method in options("method") for tuning in options("tuning")}
