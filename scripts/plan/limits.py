"""Memory and time limits of jobs."""

from scripts.common.config import Config, Stage
from scripts.common.gpus import find_gpu
from scripts.common.records import OverTime


def gpu_memory(config: Config) -> float | None:
    """Memory of a GPU of the run in bytes; None if unknown."""
    known = find_gpu(config.plan.gpu) if config.plan.gpu else None
    size = config.plan.gpu_memory_gb or (known.memory_gb if known else None)
    return size * 1e9 if size else None


def stage_hours(stage: Stage, hours: float, attempts: int | None) -> tuple[float, OverTime]:
    """The time limit of a stage, and what happens beyond it.

    A job ends after `hours`. It is submitted again until its attempts are used up, and resumes from a checkpoint.

    Args:
        stage: the stage, with its `time_limit`.
        hours: time limit of one job.
        attempts: number of attempts at a job; None if jobs have no limit, or if it is unknown.

    Returns:
        The limit in hours. If it is the stage's `time_limit`, also the stage's `over_time` (`fit` or `refuse`), else
        `end`: the stage stays unfinished.
    """
    total = hours * attempts if attempts else None
    if stage.time_limit and (total is None or stage.time_limit <= total):
        return stage.time_limit, stage.over_time
    return total or hours, "end"


def is_within(value: float | None, limit: float | None, is_bound: bool = False) -> bool | None:
    """Whether a value is within its limit; None if either is unknown, or if an upper bound exceeds the limit."""
    if value is None or limit is None or (is_bound and value > limit):
        return None
    return value <= limit
