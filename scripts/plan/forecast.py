"""The plan of a run as plain data: the cost of each stage and benchmark, its certainty, and whether it fits."""

from pathlib import Path

from scripts.common.config import BASE, Config, Stage
from scripts.common.config.stage import USABLE_TIME
from scripts.common.files import read_json
from scripts.common.paths import RunPaths
from scripts.common.records import Certainty, Costs, RunPlan, StageManifest, StagePlan, StageUse
from scripts.plan.evaluation import plan_benchmark
from scripts.plan.limits import gpu_memory, is_within, stage_hours
from scripts.plan.memory import Setup, estimate_memory
from scripts.plan.power import plan_expectations
from scripts.plan.rates import add_up, cost_of
from scripts.plan.rows import Rows, bound_lengths, read_rows
from scripts.plan.shape import Shape, find_shape
from scripts.plan.steps import check_numbers, count_steps, max_length, setting
from scripts.plan.throughput import find_throughput, read_runs
from scripts.plan.work import count_sequences, count_work, cut_rows, make_batch


def make_plan(config: Config, paths: RunPaths, attempts: int | None = None) -> RunPlan:
    """The plan of a run.

    Args:
        config: the configuration.
        paths: files of the run.
        attempts: number of attempts at a job that reaches its time limit; None if jobs have no limit, or if unknown.

    Returns:
        The plan. Unknown values are null. Hours, GPU-hours, energy (kWh) and money are for a complete stage, memory is
        in bytes of one GPU or process.

    Raises:
        UserError: a stage has arguments of a wrong type or range, or too few rows.
    """
    shape, found = find_shape(config.model.source, paths.model(BASE), Path(config.run.cache))
    stages = plan_stages(config, shape, paths, attempts)
    benchmarks = [plan_benchmark(config, name, shape, paths) for name in config.protocols]
    entries: list[Costs] = [*stages, *benchmarks]
    return {
        "run": config.run.name,
        "device": describe_device(config),
        "model": {
            "parameters": shape.parameters if shape else None,
            "found_in": found if shape or found.startswith("nothing") else f"{found}, but its architecture is unknown",
        },
        "currency": config.plan.currency,
        "stages": stages,
        "benchmarks": benchmarks,
        "expectations": plan_expectations(config, paths),
        "changed_share": config.comparison.changed_share,
        "totals": {
            "gpu_hours": add_up([entry["gpu_hours"] for entry in entries]),
            "energy_kwh": add_up([entry["energy_kwh"] for entry in entries]),
            "money": add_up([entry["money"] for entry in entries]),
            "training_gpu_hours": add_up([stage["gpu_hours"] for stage in stages]),
            "evaluation_gpu_hours": add_up([benchmark["gpu_hours"] for benchmark in benchmarks]),
        },
    }


def plan_stages(config: Config, shape: Shape | None, paths: RunPaths, attempts: int | None = None) -> list[StagePlan]:
    """The stages of the plan, parents before children."""
    return [_plan_stage(config, name, shape, paths, attempts) for name in config.lineage()]


def describe_device(config: Config) -> str:
    """The hardware that stages train on, in words."""
    resources = config.resources.train
    if not resources.gpus:
        return f"{resources.processes} x CPU, {resources.cpus} threads"
    return f"{resources.processes} x {config.plan.gpu or 'GPU (model not set in plan.gpu)'}"


def _plan_stage(config: Config, name: str, shape: Shape | None, paths: RunPaths, attempts: int | None) -> StagePlan:
    stage = config.stages[name]
    check_numbers(name, stage)
    processes = config.resources.train.processes
    counted = bound_lengths(read_rows(config, stage.dataset, paths), max_length(stage))
    rows = cut_rows(stage, counted)
    sequences = count_sequences(stage, rows)
    schedule = count_steps(name, stage, sequences, processes) if sequences is not None else None
    trained = shape.trained_parameters(stage) if shape else None
    done = None
    pace = None
    memory: dict[str, float] | None = None
    if shape and trained is not None:
        adapters = trained if stage.tuning != "full" else 0
        done = count_work(stage, rows, schedule, shape.cost(adapters)) if schedule else None
        pace = find_throughput(
            stage, _device_of(config), shape.parameters, read_runs(paths.models_of_all_runs(), but=paths.model(name))
        )
        batch = make_batch(stage, rows, schedule)
        setup = Setup(config.resources.train.gpus > 0, config.model.dtype, processes, adapters)
        memory = estimate_memory(shape, stage, setup, batch) if batch else None
    hours = None
    if done and pace:
        flops = done.flops + (0 if pace.is_measured else done.recomputed)
        hours = flops / (pace.flops * processes) / 3600
    size = sum(memory.values()) if memory else None
    memory_limit = _memory_limit(config)
    memory_is: Certainty = "at most" if memory and memory["kernels"] else "expected" if memory else "unknown"
    limit, over_time = stage_hours(stage, config.resources.train.hours, attempts)
    is_bound = "at most" in (rows.rows_are, rows.tokens_are) or stage.method == "grpo"
    return {
        "name": name,
        "method": stage.method,
        "tuning": stage.tuning,
        "rows": counted.train,
        "rows_are": counted.rows_are,
        "tokens_are": counted.tokens_are,
        "steps": schedule.steps if schedule else max(0, setting(stage, "max_steps")) or None,
        "steps_are": _describe_steps(stage, rows),
        "epochs": schedule.epochs if schedule else None,
        "effective_batch": schedule.effective_batch if schedule else None,
        "tokens": done.tokens if done else None,
        "flops": done.flops if done else None,
        "trainable_parameters": trained,
        "memory": memory,
        "memory_bytes": size,
        "memory_is": memory_is,
        "memory_limit_bytes": memory_limit,
        "pace": pace.source if pace else f"unknown: {_explain_throughput(config, trained is not None)}",
        "hours": hours,
        "hours_limit": limit,
        **cost_of(config, hours, processes if config.resources.train.gpus else 0),
        "work_is": "at most" if is_bound else "expected" if rows.rows_are == "expected" else rows.tokens_are,
        "verdict": {
            "fits_memory": _fits_memory(memory, memory_limit),
            "fits_time": is_within(hours, USABLE_TIME * limit, is_bound),
            "over_time": over_time,
        },
        "used": _read_used(paths.model(name)),
    }


def _device_of(config: Config) -> str | None:
    return config.plan.gpu if config.resources.train.gpus else "CPU"


def _explain_throughput(config: Config, is_counted: bool) -> str:
    """Why the throughput of a stage is unknown."""
    if not is_counted:
        return "the number of trained parameters is unknown"
    if not config.resources.train.gpus:
        return "no similar stage was measured on a CPU, and none is assumed"
    if config.plan.gpu is None:
        return "plan.gpu is not set"
    return f"no similar stage was measured on {config.plan.gpu}, and scripts/common/gpus.py does not list it"


def _memory_limit(config: Config) -> float | None:
    """Bytes that a process can use: those of its GPU, or of its job."""
    resources = config.resources.train
    return gpu_memory(config) if resources.gpus else resources.memory_gb * 1e9


def _fits_memory(memory: dict[str, float] | None, limit: float | None) -> bool | None:
    """Whether a stage fits; None if unknown, or if only the upper bound for kernels exceeds the limit."""
    if memory is None or limit is None:
        return None
    least, most = sum(memory.values()) - memory["kernels"], sum(memory.values())
    return is_within(most, limit, is_bound=least <= limit)


def _describe_steps(stage: Stage, rows: Rows) -> Certainty:
    """Certainty of the number of steps: that of the rows and, with packing, of the tokens."""
    if setting(stage, "max_steps") > 0:
        return "measured"
    known = [rows.rows_are, *([rows.tokens_are] if stage.args.get("packing") else [])]
    worst_first: tuple[Certainty, ...] = ("unknown", "at most", "expected")
    return next((word for word in worst_first if word in known), "measured")


def _read_used(manifest: Path) -> StageUse | None:
    """What a finished stage used; None if it is not finished."""
    if not manifest.is_file():
        return None
    described: StageManifest = read_json(manifest)
    facts = described["facts"]
    return {
        "steps": facts["steps"],
        "epochs": facts["epochs"],
        "tokens": facts["tokens"],
        "flops": facts.get("flops"),
        "hours": facts["train_seconds"] / 3600,
        "memory_bytes": described["peak_gpu_memory_bytes"] or described["peak_memory_bytes"],
        "energy_kwh": facts.get("energy_kwh"),
        "trainable_parameters": facts["trainable_parameters"],
        "device": described["device"],
    }
