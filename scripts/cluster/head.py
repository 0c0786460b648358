"""What Snakemake's own process, the head, does on a cluster.

It refuses to start while jobs of an earlier head run, collects what jobs request, and lists failures at the end.
"""

from typing import Any

from snakemake.iocontainers import Wildcards

from scripts.cluster.failures import describe_failures, find_failures, find_kills
from scripts.cluster.slurm import find_jobs
from scripts.common.config import Config
from scripts.common.errors import UserError
from scripts.common.paths import RunPaths

SETTINGS = ("qos", "reservation", "requeue", "no_requeue", "status_command")
"""Settings of the SLURM executor that affect how it submits jobs."""

STAGE_RESOURCES = ("time_limit", "over_time")
"""Resources of training jobs that SLURM does not see and that differ between stages."""


def refuse_second_head(paths: RunPaths, uses_slurm: bool) -> None:
    """Refuse to start while jobs of an earlier, killed head are in the queue: both would write the same files.

    Raises:
        UserError: there are such jobs, or the run uses SLURM and SLURM does not answer.
    """
    try:
        jobs = [job.number for job in find_jobs(paths.root.resolve(), paths.run)]
    except UserError:
        if uses_slurm:
            raise
        return  # SLURM's tools may be installed on a machine without a cluster
    if jobs:
        raise UserError(
            f"jobs of an earlier Snakemake are still queued or running in this folder: {', '.join(jobs)}; "
            f"wait for them, or cancel them with `scancel {' '.join(jobs)}`, and start again"
        )


def list_failures(paths: RunPaths, since: float, keeps_going: bool) -> list[str]:
    """Lines about all failures for the end of a run, since Snakemake may have shown them thousands of lines earlier.

    A single failure is not repeated, as Snakemake has just shown it, unless it kept going or SLURM ended the job.

    Args:
        since: start of this head, in seconds of the epoch.
        keeps_going: Snakemake runs with `--keep-going`.
    """
    failures = list(find_failures(paths.logs, since))
    kills = list(find_kills(paths.slurm_logs, since))
    if kills or len(failures) > (0 if keeps_going else 1):
        return describe_failures(failures + kills)
    return []


def requested_resources(config: Config, workflow: Any) -> dict[str, dict[str, int | str]]:
    """Resources that the jobs of each submitted rule request, with the profile's settings.

    For `run_benchmark`, these are the resources of the benchmark with the most processes.
    """
    methods = {f"train_{stage.method}" for stage in config.stages.values()}
    submitted = [
        rule
        for rule in workflow.rules
        if not workflow.is_local(rule)
        and (rule.name in methods or not rule.name.startswith("train_"))
        and (config.benchmarks or rule.name != "run_benchmark")
    ]
    largest = max(config.benchmarks, key=lambda name: config.benchmarks[name].processes, default="")
    job = Wildcards(fromdict={"benchmark": largest})
    requested = {rule.name: rule.expand_resources(job, [], 1, skip_evaluation={*STAGE_RESOURCES}) for rule in submitted}
    return {
        name: {
            key: value
            for key, value in resources.items()
            if key not in STAGE_RESOURCES and isinstance(value, int | str)
        }
        for name, resources in requested.items()
    }


def executor_settings(workflow: Any) -> dict[str, Any]:
    """Executor settings of the profile, by name."""
    return {name: getattr(workflow.executor_settings, name, None) for name in SETTINGS}
