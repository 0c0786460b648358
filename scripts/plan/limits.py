"""What a job may take, and whether it does."""

from scripts.common.config import Config, Stage
from scripts.common.gpus import find_gpu


def gpu_memory(config: Config) -> float | None:
    """Bytes of a GPU of the run; None where it is not known."""
    known = find_gpu(config.plan.gpu) if config.plan.gpu else None
    size = config.plan.gpu_memory_gb or (known.memory_gb if known else None)
    return size * 1e9 if size else None


def stage_hours(stage: Stage, hours: float, attempts: int | None) -> tuple[float, str]:
    """Hours that a stage has, and what becomes of one that takes longer.

    A job ends after `hours`, and is submitted again until its attempts are used up; each goes on from a checkpoint.

    Args:
        hours: of one job.
        attempts: at a job; None where nobody ends jobs, or where it is not known how often they are submitted.

    Returns:
        `fit` or `refuse`, as the stage says, where `time_limit` is what it meets first; else `end`: it is not finished.
    """
    whole = hours * attempts if attempts else None
    if stage.time_limit and (whole is None or stage.time_limit <= whole):
        return stage.time_limit, stage.over_time
    return whole or hours, "end"


def is_within(value: float | None, limit: float | None, is_bound: bool = False) -> bool | None:
    """Whether a value keeps its limit; None when one is not known, or when only a bound of the value lies beyond."""
    if value is None or limit is None or (is_bound and value > limit):
        return None
    return value <= limit
