"""The plan of a run as plain data: what each stage and each benchmark takes, how sure that is, and whether it fits."""

from pathlib import Path
from typing import Any

from scripts.common.config import Config, Stage
from scripts.common.files import read_json
from scripts.plan.evaluation import plan_benchmark
from scripts.plan.limits import gpu_memory, is_within, stage_hours
from scripts.plan.memory import Setup, estimate_memory
from scripts.plan.rates import RATES, add_up, cost_of
from scripts.plan.rows import Rows, bound_lengths, read_rows
from scripts.plan.shape import Shape, find_shape
from scripts.plan.steps import check_numbers, count_steps, max_length, setting
from scripts.plan.throughput import find_pace, read_runs
from scripts.plan.work import count_sequences, count_work, cut_rows, make_batch

Json = dict[str, Any]

USABLE_TIME = 0.95
"""Share of a stage's time that its steps may take; the rest is for saving (`scripts/train/budget.py`)."""


def make_forecast(config: Config, work: Path, results: Path, attempts: int | None = None) -> Json:
    """The plan.

    Args:
        work: the run's folder of heavy files; other runs' stand beside it.
        results: the run's results.
        attempts: at a job that its time limit ends; None where nobody ends jobs, or when it is not known.

    Returns:
        `run`, `device`, `model` (shape, and where it was found), `stages`, `benchmarks`, `totals`. What nobody knows is
        null. Hours, GPU-hours, energy (kWh) and money are of the whole stage, memory is in bytes of one GPU or process.

    Raises:
        UserError: a stage has arguments that cannot be counted with, or too few rows.
    """
    shape, found = find_shape(config.model.source, work / "models" / "base" / "manifest.json", Path(config.run.cache))
    stages = forecast_stages(config, shape, work, attempts)
    benchmarks = [plan_benchmark(config, name, shape, work, results) for name in config.benchmarks]
    totals = {rate: add_up([entry[rate] for entry in (*stages, *benchmarks)]) for rate in RATES}
    return {
        "run": config.run.name,
        "device": describe_device(config),
        "model": {
            "parameters": shape.parameters if shape else None,
            "found_in": found if shape or found.startswith("nothing") else f"{found}, but it is of a kind unknown here",
        },
        "currency": config.plan.currency,
        "stages": stages,
        "benchmarks": benchmarks,
        "totals": totals
        | {
            "training_gpu_hours": add_up([stage["gpu_hours"] for stage in stages]),
            "evaluation_gpu_hours": add_up([benchmark["gpu_hours"] for benchmark in benchmarks]),
        },
    }


def forecast_stages(config: Config, shape: Shape | None, work: Path, attempts: int | None = None) -> list[Json]:
    """The stages of the plan, parents before children."""
    return [_plan_stage(config, name, shape, work, attempts) for name in config.lineage()]


def describe_device(config: Config) -> str:
    """What stages train on, in words."""
    wanted = config.resources.train
    if not wanted.gpus:
        return f"{wanted.processes} x CPU, {wanted.cpus} threads"
    return f"{wanted.processes} x {config.plan.gpu or 'GPU of a kind that plan.gpu does not name'}"


def _plan_stage(config: Config, name: str, shape: Shape | None, work: Path, attempts: int | None) -> Json:
    stage, manifest = config.stages[name], work / "models" / name / "manifest.json"
    check_numbers(name, stage)
    processes = config.resources.train.processes
    rows = bound_lengths(read_rows(config, stage.dataset, work), max_length(stage))
    planned: Json = {
        "name": name,
        "method": stage.method,
        "tuning": stage.tuning,
        "rows": rows.train,
        "rows_are": rows.rows_are,
        "tokens_are": rows.tokens_are,
    }
    rows = cut_rows(stage, rows)
    sequences = count_sequences(stage, rows)
    schedule = count_steps(name, stage, sequences, processes) if sequences is not None else None
    planned |= {
        "steps": schedule.steps if schedule else max(0, setting(stage, "max_steps")) or None,
        "steps_are": _describe_steps(stage, rows),
        "epochs": schedule.epochs if schedule else None,
        "effective_batch": schedule.effective_batch if schedule else None,
    }
    trained = shape.trained_parameters(stage) if shape else None
    done = None
    pace = None
    memory: dict[str, float] | None = None
    if shape and trained is not None:
        adapters = trained if stage.tuning != "full" else 0
        done = count_work(stage, rows, schedule, shape.cost(adapters)) if schedule else None
        pace = find_pace(stage, _device_of(config), shape.parameters, read_runs(work.parent, but=manifest))
        batch = make_batch(stage, rows, schedule)
        setup = Setup(config.resources.train.gpus > 0, config.model.dtype, processes, adapters)
        memory = estimate_memory(shape, stage, setup, batch) if batch else None
    hours = None
    if done and pace:
        flops = done.flops + (0 if pace.is_measured else done.recomputed)
        hours = flops / (pace.flops * processes) / 3600
    size = sum(memory.values()) if memory else None
    limit, over_time = stage_hours(stage, config.resources.train.hours, attempts)
    planned |= {
        "tokens": done.tokens if done else None,
        "flops": done.flops if done else None,
        "parameters_trained": trained,
        "memory": memory,
        "memory_bytes": size,
        "memory_limit_bytes": _memory_limit(config),
        "pace": pace.source if pace else f"unknown: {_explain_pace(config, trained is not None)}",
        "hours": hours,
        "hours_limit": limit,
    }
    planned |= cost_of(config, hours, processes if config.resources.train.gpus else 0)
    is_bound = "at most" in (rows.rows_are, rows.tokens_are) or stage.method == "grpo"
    planned["work_is"] = "at most" if is_bound else "expected" if rows.rows_are == "expected" else rows.tokens_are
    planned["verdict"] = {
        "fits_memory": is_within(size, planned["memory_limit_bytes"]),
        "fits_time": is_within(hours, USABLE_TIME * limit, is_bound),
        "over_time": over_time,
    }
    planned["used"] = _read_used(manifest)
    return planned


def _device_of(config: Config) -> str | None:
    return config.plan.gpu if config.resources.train.gpus else "CPU"


def _explain_pace(config: Config, is_counted: bool) -> str:
    """Why the pace of a stage is not known."""
    if not is_counted:
        return "neither is what the stage trains"
    if not config.resources.train.gpus:
        return "no stage like it was measured on a CPU, and none is assumed"
    if config.plan.gpu is None:
        return "plan.gpu does not name the GPUs"
    return f"no stage like it was measured on {config.plan.gpu}, which scripts/common/gpus.py does not know"


def _memory_limit(config: Config) -> float | None:
    """Bytes that a process has: those of its GPU, or its share of the machine's."""
    wanted = config.resources.train
    return gpu_memory(config) if wanted.gpus else wanted.memory_gb * 1e9


def _describe_steps(stage: Stage, rows: Rows) -> str:
    """How sure the number of steps is: as sure as the rows, and where they are packed, the tokens."""
    if setting(stage, "max_steps") > 0:
        return "measured"
    known = [rows.rows_are, *([rows.tokens_are] if stage.args.get("packing") else [])]
    return next((word for word in ("unknown", "at most", "expected") if word in known), "measured")


def _read_used(manifest: Path) -> Json | None:
    """What a finished stage took; None while it is not finished."""
    if not manifest.is_file():
        return None
    described = read_json(manifest)
    facts = described["facts"]
    return {
        "steps": facts["steps"],
        "epochs": facts["epochs"],
        "tokens": facts["tokens"],
        "flops": facts.get("flops"),
        "hours": facts["train_seconds"] / 3600,
        "memory_bytes": described["peak_gpu_memory_bytes"] or described["peak_memory_bytes"],
        "energy_kwh": facts.get("energy_kwh"),
        "parameters_trained": facts["trainable_parameters"],
        "device": described["device"],
    }
