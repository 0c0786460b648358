"""The throughput of a stage in model FLOP/s per process, measured in finished runs or else assumed."""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from scripts.common.config import Stage
from scripts.common.files import read_json
from scripts.common.gpus import find_gpu
from scripts.common.records import StageManifest

TABLE = Path(__file__).with_name("throughput.yaml")
"""Assumed throughputs."""

ALIKE = 4
"""Largest ratio between the parameters of two models that are considered similar."""


@dataclass(frozen=True)
class Throughput:
    """The throughput of one process.

    Args:
        flops: model FLOP/s.
        is_measured: whether a finished run reached it, including recomputed activations.
        source: where it comes from.
    """

    flops: float
    is_measured: bool
    source: str


def read_runs(manifests: list[Path], but: Path) -> list[StageManifest]:
    """The manifests of trained models with measured FLOPs, except `but`.

    `but` is the planned stage itself, whose own measurement is no forecast.
    """
    read = [read_json(path) for path in manifests if path != but]
    return [manifest for manifest in read if manifest["facts"].get("flops") and manifest["facts"]["train_seconds"]]


def find_throughput(stage: Stage, device: str | None, parameters: int, runs: list[StageManifest]) -> Throughput | None:
    """The throughput of a stage; None if nothing is known.

    A finished run is similar if device, method, tuning, packing and checkpointing are equal and the model has a similar
    size. Of several, the one nearest in size is used, and of those the newest.

    Args:
        stage: the stage.
        device: name of the GPU, `CPU`, or None if unknown.
        parameters: number of parameters of the model.
        runs: result of `read_runs`.
    """
    alike = [run for run in runs if device and _is_alike(run, stage, device, parameters)]
    if alike:
        best = min(sorted(alike, key=_age, reverse=True), key=lambda run: _distance(run, parameters))
        facts = best["facts"]
        assert facts["flops"] is not None  # `read_runs` omits all others
        pace = facts["flops"] / facts["train_seconds"] / facts["processes"]
        return Throughput(pace, True, f"measured by {best['name']}, {best['created'][:10]}, {best['device']}")
    gpu = find_gpu(device) if device else None
    if gpu is None:
        return None
    wanted = {"method": stage.method, "tuning": stage.tuning, "packed": stage.is_packed and stage.method == "sft"}
    entry = next((entry for entry in _table()["mfu"] if wanted.items() <= entry.items()), None)
    return Throughput(entry["mfu"] * gpu.flops, False, f"MFU {entry['mfu']:.1%}: {entry['source']}") if entry else None


def seconds_a_token() -> float:
    """Assumed seconds in which a batch of answers grows by one token on a GPU."""
    return float(_table()["decoding"]["seconds"])


def seconds_to_load() -> float:
    """Assumed seconds of a benchmark's job on a GPU before the first prompt."""
    return float(_table()["loading"]["seconds"])


def forward_share() -> float:
    """Assumed share of a GPU's peak in forward passes over prompts."""
    return float(_table()["forward"]["mfu"])


@cache
def _table() -> dict[str, Any]:
    return dict(yaml.safe_load(TABLE.read_text(encoding="utf-8")))


def _is_alike(run: StageManifest, stage: Stage, device: str, parameters: int) -> bool:
    other, again = run["config"], "gradient_checkpointing"
    is_packed = bool(other["args"].get("packing") or other["args"].get("padding_free"))
    return (
        device.lower() in run["device"].lower()
        and (other["method"], other["tuning"], is_packed) == (stage.method, stage.tuning, stage.is_packed)
        and bool(other["args"].get(again)) == bool(stage.args.get(again))
        and _distance(run, parameters) <= math.log(ALIKE)
    )


def _distance(run: StageManifest, parameters: int) -> float:
    facts = run["facts"]
    adapters = facts["trainable_parameters"] if run["config"]["tuning"] != "full" else 0
    return abs(math.log((facts["parameters"] - adapters) / parameters))


def _age(run: StageManifest) -> str:
    return run["created"]
