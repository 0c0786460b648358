"""Estimate a benchmark: questions, tokens, FLOPs, memory and hours of a job. Each model has one job."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NotRequired, TypedDict

import yaml

from scripts.common.config import Benchmark, Config, PackageDataset
from scripts.common.files import read_json
from scripts.common.gpus import find_gpu
from scripts.common.paths import RunPaths
from scripts.common.records import BenchmarkPlan, Certainty
from scripts.plan.limits import gpu_memory, is_within
from scripts.plan.memory import FRAMEWORK
from scripts.plan.rates import cost_of
from scripts.plan.shape import Shape
from scripts.plan.throughput import forward_share, seconds_a_token, seconds_to_load

TABLE = Path(__file__).with_name("benchmarks.yaml")
"""What is known about tasks before their questions are downloaded."""

SMALL_BATCH = 16
"""Assumed smallest batch of answers, for benchmarks that find their batch size only when they run."""


class KnownTask(TypedDict):
    """An entry of the table, which documents its keys."""

    items: int
    tasks: NotRequired[int]
    shots: int
    passes: NotRequired[int]
    answer: NotRequired[int]
    prompt: int
    example: int


@dataclass(frozen=True)
class Items:
    """The questions of one job.

    Args:
        number: of questions; None if unknown.
        are: certainty of the number: `measured`, `expected` or `unknown`.
        passes: forward passes per question of a multiple-choice task; 0 if the model generates answers.
        length: estimated tokens of a prompt with its few-shot examples; None for unknown tasks.
        answer: tokens of the longest answer; 0 for multiple choice, None if unknown.
    """

    number: int | None
    are: Certainty
    passes: int
    length: int | None
    answer: int | None

    @property
    def read(self) -> int | None:
        """Tokens of all prompts over all forward passes."""
        return None if self.number is None or self.length is None else self.number * max(1, self.passes) * self.length

    @property
    def written(self) -> int | None:
        """Upper bound of the tokens of all answers."""
        return None if self.number is None or self.answer is None else self.number * self.answer


def plan_benchmark(config: Config, name: str, shape: Shape | None, paths: RunPaths) -> BenchmarkPlan:
    """The plan of a benchmark. Hours, GPU-hours, energy and money are for all models, all else is for one job."""
    section, models, resources = config.protocols[name], len(config.models), config.resources.evaluate
    items = count_items(config, name, paths)
    measured = [
        read_json(path)["provenance"]["seconds"] / 3600
        for path in (paths.score(model, name) for model in config.models)
        if path.is_file()
    ]
    estimate, work_is, source = estimate_hours(config, section, items, shape)
    used = sum(measured) / len(measured) if measured else None
    hours = estimate if used is None else used
    if measured:
        work_is, source = "measured", f"measured on {len(measured)} of {models} models"
    memory = estimate_memory(config, section, items, shape)
    size = sum(memory.values()) if memory else None
    limit = gpu_memory(config) if resources.gpus else None
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
        "hours_limit": resources.hours,
        "work_is": work_is,
        **cost_of(config, None if hours is None else hours * models, resources.gpus * section.processes),
        "verdict": {
            "fits_memory": is_within(size, limit),
            "fits_time": is_within(hours, resources.hours, work_is == "at most"),
            "over_time": "end",  # another attempt would start from the beginning
        },
        "estimated_job_hours": estimate,
        "used_job_hours": used,
    }


def count_items(config: Config, name: str, paths: RunPaths) -> Items:
    """The questions as downloaded, configured or published, with their estimated lengths."""
    section = config.protocols[name]
    known = _table().get(section.task)
    number, are = _count_questions(section, known, paths.benchmark(config.benchmark_of[name]))
    if number is not None and section.limit is not None:
        number = min(number, section.limit * (known.get("tasks", 1) if known else 1))
    if known is None:
        return Items(number, are, passes=0, length=None, answer=section.max_new_tokens)
    passes = known.get("passes", 0)
    shots = known["shots"] if section.shots is None else section.shots
    return Items(
        number=number,
        are=are,
        passes=passes,
        length=known["prompt"] + shots * known["example"],
        answer=0 if passes else section.max_new_tokens or known.get("answer"),
    )


@cache
def _table() -> dict[str, KnownTask]:
    return dict(yaml.safe_load(TABLE.read_text(encoding="utf-8")))


def _count_questions(section: Benchmark, known: KnownTask | None, manifest: Path) -> tuple[int | None, Certainty]:
    if manifest.is_file():
        return int(read_json(manifest)["facts"]["questions"]), "measured"
    if isinstance(section.source, PackageDataset):
        return section.source.size, "measured"
    return (known["items"], "expected") if known else (None, "unknown")


def count_flops(items: Items, shape: Shape | None, answer: int) -> float | None:
    """Model FLOPs of forward passes over all prompts, each with `answer` tokens appended."""
    if shape is None or items.read is None or items.length is None:
        return None
    length, sequences = items.length + answer, items.read / items.length
    return shape.cost(0).of(sequences * length, sequences * length**2, False)


def estimate_hours(
    config: Config, section: Benchmark, items: Items, shape: Shape | None
) -> tuple[float | None, Certainty, str]:
    """Hours of a job, their certainty, and their source.

    Loading takes an assumed time. Prompts are processed at an assumed share of the GPU's peak. A batch of answers grows
    by one token in an assumed time, which does not depend on the model.
    """
    if not config.resources.evaluate.gpus:
        return None, "unknown", "there is no estimate for CPUs"
    gpu = find_gpu(config.plan.gpu) if config.plan.gpu else None
    flops = count_flops(items, shape, 0)
    reading = flops / (forward_share() * gpu.flops) if flops and gpu else None
    if reading is None or items.answer is None:
        return None, "unknown", "the task, the model or the GPU in plan.gpu is unknown"
    how = f"assumed: {seconds_to_load():g} s to load, prompts at MFU {forward_share():.0%}"
    if not items.written:
        return (seconds_to_load() + reading / section.processes) / 3600, "expected", how
    at_once = SMALL_BATCH if section.batch_size == "auto" else section.batch_size
    seconds = reading + -(-items.written // at_once) * seconds_a_token()
    how += f", {seconds_a_token():g} s per token of {at_once} answers of the greatest length"
    return (seconds_to_load() + seconds / section.processes) / 3600, "at most", how


def estimate_memory(config: Config, section: Benchmark, items: Items, shape: Shape | None) -> dict[str, float] | None:
    """Bytes of one GPU by purpose; None on CPUs, and for unknown tasks and models.

    With a bytes for a number in the run's precision: a N for the weights (vLLM shards them over its processes); an
    assumed amount for libraries; and for each token of a batch 2 a V for logits and their logarithms, or 2 a k L for
    keys and values if answers are generated. `batch_size: auto` needs memory for one item, and uses what is free.
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
