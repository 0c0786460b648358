"""The throughput of a stage is measured in a similar run, or else assumed."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from scripts.common.config import Stage
from scripts.common.files import write_json
from scripts.common.paths import RunPaths
from scripts.common.records import StageManifest
from scripts.plan.throughput import TABLE, find_throughput, read_runs
from tests.plan.stages import make_manifest, make_stage

PARAMETERS = 4_000_000_000
H100 = {"device": "2 x NVIDIA H100 80GB HBM3"}


def make_run(
    name: str, config: dict[str, Any] | None = None, facts: dict[str, Any] | None = None, **fields: Any
) -> StageManifest:
    """A finished run with 300 TFLOP/s on each of two H100s."""
    reached = {"flops": 6e17, "train_seconds": 1_000.0, "processes": 2}
    sizes = {"parameters": PARAMETERS, "trainable_parameters": PARAMETERS}
    return make_manifest(name, config, reached | sizes | (facts or {}), **H100 | fields)


def test_a_measured_run_overrides_an_assumption() -> None:
    pace = find_throughput(make_stage(), "H100", PARAMETERS, [make_run("mine")])
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
def test_dissimilar_runs_are_ignored(changes: dict[str, Any]) -> None:
    pace = find_throughput(make_stage(), "H100", PARAMETERS, [make_run("other", **changes)])
    assert pace is not None and not pace.is_measured
    assert pace.flops == pytest.approx(0.105 * 989.4e12)


@pytest.mark.parametrize(
    ("tuning", "parameters", "counts"),
    [
        ("full", 4 * PARAMETERS, True),
        ("full", 4 * PARAMETERS + 10**9, False),
        ("full", PARAMETERS // 4, True),
        ("lora", 4 * PARAMETERS + 10**9, True),
    ],
)
def test_a_model_of_four_times_the_size_is_similar(tuning: str, parameters: int, counts: bool) -> None:
    """Adapters, here with a billion parameters, do not count."""
    facts = {"parameters": parameters, "trainable_parameters": 10**9}
    run = make_run("other", config={"tuning": tuning}, facts=facts)
    pace = find_throughput(make_stage(tuning=tuning), "H100", PARAMETERS, [run])
    assert pace is not None and pace.is_measured is counts


def test_runs_with_measured_flops_are_read(tmp_path: Path) -> None:
    """Runs of all folders are read, except the planned stage itself and runs without known FLOPs or seconds."""
    paths = RunPaths("mine", tmp_path)
    for run, stage, facts in (
        *(("mine", "sft", {}), ("mine", "dpo", {}), ("other", "sft", {})),
        *(("experts", "sft", {"flops": None}), ("empty", "sft", {"train_seconds": 0.0})),
    ):
        write_json(RunPaths(run, tmp_path).model(stage), make_run(f"{run} {stage}", facts=facts))
    write_json(paths.model("base"), {"name": "base", "facts": {}})
    assert [run["name"] for run in read_runs(paths.models_of_all_runs(), but=paths.model("sft"))] == [
        "mine dpo",
        "other sft",
    ]


def test_packed_rows_have_another_assumed_pace() -> None:
    for args, share in (({}, 0.105), ({"packing": True}, 0.35), ({"padding_free": True}, 0.35)):
        pace = find_throughput(make_stage(args=args), "H100", PARAMETERS, [])
        assert pace is not None and pace.flops == pytest.approx(share * 989.4e12)


def test_the_run_nearest_in_size_is_used_and_then_the_newest() -> None:
    runs = [
        make_run("old"),
        make_run("new", created="2026-11-23T10:00:00"),
        make_run("larger", facts={"parameters": 2 * PARAMETERS}, created="2026-11-24T10:00:00"),
    ]
    pace = find_throughput(make_stage(), "H100", PARAMETERS, runs)
    assert pace is not None and pace.source.startswith("measured by new")


@pytest.mark.parametrize("device", [None, "CPU", "Radeon"])
def test_unknown_devices_have_no_assumed_pace(device: str | None) -> None:
    assert find_throughput(make_stage(), device, PARAMETERS, []) is None


def test_every_method_and_tuning_has_an_assumed_pace() -> None:
    def options(field: str) -> tuple[str, ...]:
        return get_args(Stage.model_fields[field].annotation)

    known = {(e["method"], e["tuning"]) for e in yaml.safe_load(TABLE.read_text())["mfu"] if not e["packed"]}
    assert known == {(method, tuning) for method in options("method") for tuning in options("tuning")}
