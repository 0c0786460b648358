"""How many model FLOPs a second a stage reaches in each of its processes: as measured, else as assumed."""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from scripts.common.config import Stage
from scripts.common.files import read_json
from scripts.common.gpus import find_gpu

TABLE = Path(__file__).with_name("throughput.yaml")
"""What is assumed."""

ALIKE = 4
"""A measured model counts for one of up to so many times its parameters, or of as small a part."""


@dataclass(frozen=True)
class Pace:
    """What a process reaches.

    Args:
        flops: model FLOPs a second.
        is_measured: a finished run reached it, recomputed activations and all.
        source: where it comes from.
    """

    flops: float
    is_measured: bool
    source: str


def read_runs(work: Path, but: Path) -> list[dict[str, Any]]:
    """Manifests of the trained models of all runs in a work folder that measured their FLOPs, `but` one.

    That one is the planned stage's own: what it used is no forecast of it.
    """
    manifests = [read_json(path) for path in sorted(work.glob("*/models/*/manifest.json")) if path != but]
    return [m for m in manifests if m["facts"].get("flops") and m["facts"]["train_seconds"]]


def find_pace(stage: Stage, device: str | None, parameters: int, runs: list[dict[str, Any]]) -> Pace | None:
    """The pace of a stage.

    A finished run counts where device, method, tuning, packing and checkpointing are the same and the model is of about
    the same size; of several the one nearest in size, and the newest of those.

    Args:
        device: name of the GPU, `CPU`, or None when it is not known.
        parameters: of the model.
        runs: what `read_runs` gives.
    """
    alike = [run for run in runs if device and _is_alike(run, stage, device, parameters)]
    if alike:
        best = min(sorted(alike, key=_age, reverse=True), key=lambda run: _distance(run, parameters))
        facts = best["facts"]
        pace = facts["flops"] / facts["train_seconds"] / facts["processes"]
        return Pace(pace, True, f"measured by {best['name']}, {best['created'][:10]}, {best['device']}")
    gpu = find_gpu(device) if device else None
    if gpu is None:
        return None
    wanted = {"method": stage.method, "tuning": stage.tuning, "packed": stage.is_packed and stage.method == "sft"}
    entry = next((entry for entry in _table()["mfu"] if wanted.items() <= entry.items()), None)
    return Pace(entry["mfu"] * gpu.flops, False, f"MFU {entry['mfu']:.1%}: {entry['source']}") if entry else None


def seconds_a_token() -> float:
    """Seconds in which a batch of answers is assumed to grow by a token on a GPU."""
    return float(_table()["decoding"]["seconds"])


def seconds_to_load() -> float:
    """Seconds that a benchmark's job is assumed to take on a GPU before it reads the first prompt."""
    return float(_table()["loading"]["seconds"])


def forward_share() -> float:
    """Share of a GPU's peak that forward passes over prompts are assumed to reach."""
    return float(_table()["forward"]["mfu"])


@cache
def _table() -> dict[str, Any]:
    return dict(yaml.safe_load(TABLE.read_text(encoding="utf-8")))


def _is_alike(run: dict[str, Any], stage: Stage, device: str, parameters: int) -> bool:
    other, again = run["config"], "gradient_checkpointing"
    is_packed = bool(other["args"].get("packing") or other["args"].get("padding_free"))
    return (
        device.lower() in run["device"].lower()
        and (other["method"], other["tuning"], is_packed) == (stage.method, stage.tuning, stage.is_packed)
        and bool(other["args"].get(again)) == bool(stage.args.get(again))
        and _distance(run, parameters) <= math.log(ALIKE)
    )


def _distance(run: dict[str, Any], parameters: int) -> float:
    facts = run["facts"]
    adapters = facts["trainable_parameters"] if run["config"]["tuning"] != "full" else 0
    return abs(math.log((facts["parameters"] - adapters) / parameters))


def _age(run: dict[str, Any]) -> str:
    return str(run["created"])
