"""What a benchmark takes: questions, tokens, FLOPs, memory and hours of a job, of which each model has one."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from scripts.common.config import Benchmark, Config
from scripts.common.data_config import PackageDataset
from scripts.common.files import read_json
from scripts.common.gpus import find_gpu
from scripts.plan.limits import gpu_memory, is_within
from scripts.plan.memory import FRAMEWORK
from scripts.plan.rates import cost_of
from scripts.plan.shape import Shape
from scripts.plan.throughput import forward_share, seconds_a_token, seconds_to_load

Json = dict[str, Any]

TABLE = Path(__file__).with_name("benchmarks.yaml")
"""What is known of tasks before their questions are here."""

SMALL_BATCH = 16
"""Items that a benchmark is taken to answer at once, at least, where its batch size is found only when it runs."""


@dataclass(frozen=True)
class Items:
    """What one job goes through.

    Args:
        number: of questions; None when nobody knows.
        are: how sure that is: `measured`, `expected` or `unknown`.
        passes: forward passes of a question whose answers are given; 0 where the task writes answers.
        length: tokens of a prompt, with its examples; an estimate, None for a task that is not known.
        answer: tokens of the longest answer; 0 where answers are given, None when it is not known.
    """

    number: int | None
    are: str
    passes: int
    length: int | None
    answer: int | None

    @property
    def read(self) -> int | None:
        """Tokens of all prompts, as often as each goes through the model."""
        return None if self.number is None or self.length is None else self.number * max(1, self.passes) * self.length

    @property
    def written(self) -> int | None:
        """Tokens of all answers, at most."""
        return None if self.number is None or self.answer is None else self.number * self.answer


def plan_benchmark(config: Config, name: str, shape: Shape | None, work: Path, results: Path) -> Json:
    """What a benchmark takes: `hours`, GPU-hours, energy and money for all models of the run, all else for one.

    Args:
        work: the run's folder of heavy files.
        results: the run's results.
    """
    section, models, wanted = config.benchmarks[name], len(config.models), config.resources.evaluate
    items = count_items(config, name, work)
    taken = [
        read_json(path)["provenance"]["seconds"] / 3600
        for path in (results / "scores" / model / f"{name}.json" for model in config.models)
        if path.is_file()
    ]
    estimate, work_is, source = estimate_hours(config, section, items, shape)
    used = sum(taken) / len(taken) if taken else None
    hours = estimate if used is None else used
    if taken:
        work_is, source = "measured", f"measured on {len(taken)} of {models} models"
    memory = estimate_memory(config, section, items, shape)
    size = sum(memory.values()) if memory else None
    limit = gpu_memory(config) if wanted.gpus else None
    return {
        "name": name,
        "rows": items.number,
        "rows_are": items.are,
        "models": models,
        "read_tokens": items.read,
        "answers": not items.passes,
        "generated_tokens": items.written or None,
        "flops": None if items.answer is None else count_flops(items, shape, items.answer),
        "memory": memory,
        "memory_bytes": size,
        "memory_limit_bytes": limit,
        "job_hours": hours,
        "hours": None if hours is None else hours * models,
        "hours_are": source,
        "hours_limit": wanted.hours,
        "work_is": work_is,
        **cost_of(config, None if hours is None else hours * models, wanted.gpus * section.processes),
        "verdict": {
            "fits_memory": is_within(size, limit),
            "fits_time": is_within(hours, wanted.hours, work_is == "at most"),
            "over_time": "end",  # another attempt would begin anew
        },
        "estimated_job_hours": estimate,
        "used_job_hours": used,
    }


def count_items(config: Config, name: str, work: Path) -> Items:
    """Questions as downloaded, as the section tells, or as published; and what is known of their lengths."""
    section = config.benchmarks[name]
    known = _table().get(section.task, {})
    number, are = _count_questions(section, known, work / "benchmarks" / name / "manifest.json")
    if number is not None and section.limit is not None:
        number = min(number, section.limit * known.get("tasks", 1))
    passes = known.get("passes", 0)
    shots = known.get("shots") if section.shots is None else section.shots
    return Items(
        number=number,
        are=are,
        passes=passes,
        length=known["prompt"] + shots * known["example"] if known else None,
        answer=0 if passes else section.max_new_tokens or known.get("answer"),
    )


@cache
def _table() -> dict[str, Json]:
    return dict(yaml.safe_load(TABLE.read_text(encoding="utf-8")))


def _count_questions(section: Benchmark, known: Json, manifest: Path) -> tuple[int | None, str]:
    if manifest.is_file():
        return int(read_json(manifest)["facts"]["questions"]), "measured"
    if isinstance(section.source, PackageDataset):
        return section.source.size, "measured"
    return (known["items"], "expected") if known else (None, "unknown")


def count_flops(items: Items, shape: Shape | None, answer: int) -> float | None:
    """Model FLOPs of forward passes over all prompts, each with an answer of so many tokens behind it."""
    if shape is None or items.read is None or items.length is None:
        return None
    whole, sequences = items.length + answer, items.read / items.length
    return shape.cost(0).of(sequences * whole, sequences * whole**2, False)


def estimate_hours(
    config: Config, section: Benchmark, items: Items, shape: Shape | None
) -> tuple[float | None, str, str]:
    """Hours of a job, how sure they are, and where they come from.

    It loads for an assumed time, and reads prompts at an assumed share of the GPU's peak. Answers of a batch grow by a
    token at a time, each of which is assumed to take so long, whatever the model.
    """
    if not config.resources.evaluate.gpus:
        return None, "unknown", "nothing is assumed of CPUs"
    gpu = find_gpu(config.plan.gpu) if config.plan.gpu else None
    flops = count_flops(items, shape, 0)
    reading = flops / (forward_share() * gpu.flops) if flops and gpu else None
    if reading is None or items.answer is None:
        return None, "unknown", "the task, the model, or what plan.gpu names is not known here"
    how = f"assumed are {seconds_to_load():g} s to load, prompts at MFU {forward_share():.0%}"
    if not items.written:
        return (seconds_to_load() + reading / section.processes) / 3600, "expected", how
    at_once = SMALL_BATCH if section.batch_size == "auto" else section.batch_size
    seconds = reading + -(-items.written // at_once) * seconds_a_token()
    how += f", and {seconds_a_token():g} s a token of {at_once} answers that are as long as they may be"
    return (seconds_to_load() + seconds / section.processes) / 3600, "at most", how


def estimate_memory(config: Config, section: Benchmark, items: Items, shape: Shape | None) -> dict[str, float] | None:
    """Bytes of one GPU by what they are held for; None on CPUs, and of tasks and models that are not known.

    With a the bytes of a number in the run's precision: the weights, a N (vLLM spreads them over its processes); what
    libraries are assumed to take; and of each token of a batch the logits and their logarithms, 2 a V, or where answers
    are written keys and values, 2 a k L. `batch_size: auto` needs room for one item, and takes what there is.
    """
    if not config.resources.evaluate.gpus or shape is None or items.length is None or items.answer is None:
        return None
    a = 2 if config.model.dtype == "bfloat16" else 4
    at_once = 1 if section.batch_size == "auto" else section.batch_size
    a_token = 2 * a * (shape.vocabulary if items.passes else shape.keys * shape.layers)
    return {
        "weights": a * shape.parameters / (section.processes if section.engine == "vllm" else 1),
        "batch": float(at_once * (items.length + items.answer) * a_token),
        "framework": FRAMEWORK["gpu"],
    }
