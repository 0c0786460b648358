"""The number of GPUs that all jobs of a run use at once: a resource of Snakemake that is not passed on to SLURM."""

from scripts.common.config import Config
from scripts.common.errors import UserError

NAME = "gpus_at_once"
"""Name of the resource. It counts the GPUs of a job however the profile requests them from SLURM."""


def limit_gpus(config: Config, given: int | None) -> int:
    """The number of GPUs that all jobs may use at once: `resources.gpus`, or by default that of the largest job.

    Args:
        given: N of `--resources gpus_at_once=N`, or None without it. The lower of the two limits applies.

    Returns:
        The limit; 0 if no job requests a GPU.

    Raises:
        UserError: jobs request more than the limit, one line for each. Snakemake would count the limit for such a job
            and start it.
    """
    requested = count_gpus(config)
    limits = {"resources.gpus": config.resources.gpus, f"--resources {NAME}": given}
    known = {key: limit for key, limit in limits.items() if limit is not None}
    if not known:
        return max(requested.values())
    key = min(known, key=lambda key: known[key])
    problems = [
        f"{key}: the limit is {known[key]} GPUs, but {job} requests {gpus}; raise the limit or request fewer"
        for job, gpus in requested.items()
        if gpus > known[key]
    ]
    if problems:
        raise UserError("\n".join(problems))
    return known[key]


def count_gpus(config: Config) -> dict[str, int]:
    """GPUs of a job, by the config key that sets them."""
    wanted = config.resources
    shared = {
        f"benchmarks.{name}.processes": wanted.evaluate.gpus * benchmark.processes
        for name, benchmark in config.benchmarks.items()
        if benchmark.processes > 1
    }
    return {
        "resources.data": wanted.data.gpus,
        "resources.train": wanted.train.gpus * wanted.train.nodes,
        "resources.evaluate": wanted.evaluate.gpus,
        **shared,
    }
