"""How many GPUs all jobs of a run have at once: a resource that Snakemake counts, and SLURM is not asked for."""

from scripts.common.config import Config
from scripts.common.errors import UserError

NAME = "gpus_at_once"
"""The resource. It counts the GPUs of a job whichever way the profile asks SLURM for them."""


def limit_gpus(config: Config, given: int | None) -> int:
    """GPUs that all jobs may have at once: `resources.gpus`, else as many as the largest job asks for.

    Args:
        given: what `--resources gpus_at_once=N` says; None where it says nothing. The lower of both counts.

    Returns:
        0 where no job asks for one.

    Raises:
        UserError: a job asks for more, a line each. Snakemake would count fewer for it, and start it all the same.
    """
    asked = count_gpus(config)
    limits = {"resources.gpus": config.resources.gpus, f"--resources {NAME}": given}
    known = {key: limit for key, limit in limits.items() if limit is not None}
    if not known:
        return max(asked.values())
    key = min(known, key=lambda key: known[key])
    problems = [
        f"{key}: at most {known[key]} GPUs at once, and {job} asks for {gpus}; raise the one, or lower the other"
        for job, gpus in asked.items()
        if gpus > known[key]
    ]
    if problems:
        raise UserError("\n".join(problems))
    return known[key]


def count_gpus(config: Config) -> dict[str, int]:
    """GPUs of a job, by the key that says so."""
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
