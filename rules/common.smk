# Shared by all rules: the checked configuration, the paths of the run, helpers, and what happens at start and end.
import json
import sys
import threading
import time

sys.path.insert(0, str(Path(workflow.basedir)))

from scripts.cluster.head import list_failures, refuse_second_head
from scripts.common.config.loader import check_names, load_config
from scripts.common.environment import prepare_environment, require_engines
from scripts.common.errors import UserError
from scripts.common.files import hash_json
from scripts.common.jobs import OFFLINE, QUIET, assign, compute_environment, cpu_threads, job_resources
from scripts.common.paths import OWN_TASKS, REPOSITORY, RunPaths
from scripts.common.targets import READ_ONLY_TARGETS
from scripts.common.time_left import find_timeline, show_time_left
from scripts.evaluate.expectations import list_outcomes
from scripts.evaluate.tasks import check_tasks


def stop(error):
    """Exit with one line for each mistake. A WorkflowError would also point to these files, but they are correct."""
    sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))


ORIGIN = " + ".join(map(str, workflow.overwrite_configfiles)) or "config.yaml"

try:
    cfg = load_config(config, ORIGIN)
    check_tasks({name: benchmark.task for name, benchmark in cfg.benchmarks.items()}, OWN_TASKS)
except UserError as error:
    stop(error)

prepare_environment(REPOSITORY)

paths = RunPaths(cfg.run.name)

# At the end, only failures since the start are reported.
STARTED = time.time()


wildcard_constraints:
    dataset=r"[A-Za-z0-9_-]+",
    shard=r"\d+",
    model=r"[A-Za-z0-9_-]+",
    stage=r"[A-Za-z0-9_-]+",
    benchmark=r"[A-Za-z0-9_-]+",


def one_of(names):
    """A wildcard constraint that matches only these names."""
    return "|".join(names) or "(?!)"


def as_json(value):
    """A section of the configuration, or a dict, as JSON for a script's command line."""
    return json.dumps(
        value if isinstance(value, dict) else value.as_dict(),
        sort_keys=True,
        ensure_ascii=False,
    )


def all_scores():
    """All score files, model by model."""
    return expand(paths.score("{model}", "{name}"), model=cfg.models, name=cfg.scores)


def all_items():
    """The item files of all scores, in the same order."""
    return expand(paths.items("{model}", "{name}"), model=cfg.models, name=cfg.scores)


def only_reads():
    """Whether all targets only read the run, so that another Snakemake may be running."""
    targets = set(workflow.dag_settings.targets)
    return bool(targets) and targets <= set(READ_ONLY_TARGETS)


def uses_slurm():
    """Whether jobs are submitted to SLURM."""
    return hasattr(workflow.executor_settings, "status_command")


def check_start():
    """Exit before anything is submitted if jobs of an earlier Snakemake still run, or an engine is not installed."""
    if only_reads():
        return
    try:
        refuse_second_head(paths, uses_slurm())
        require_engines(cfg.benchmarks)
    except UserError as error:
        stop(error)


def show_progress():
    """Show how long the run still takes, if an earlier run of its recipe was timed."""
    timeline = find_timeline([Path(path) for path in workflow.overwrite_configfiles])
    if timeline and not only_reads():
        show_time_left(timeline, len(workflow.dag), lambda: workflow.scheduler.finished_jobs)


def report_failures():
    """List what failed since the start, as the last lines of output."""
    if not only_reads():
        lines = list_failures(paths, STARTED, keeps_going=workflow.execution_settings.keep_going)
        print("\n".join(lines), file=sys.stderr, end="\n" if lines else "")


def report_outcomes():
    """List what became of the expectations, if they were tested since the start."""
    lines = list_outcomes(paths.comparison, STARTED)
    print("\n".join(lines), file=sys.stderr, end="\n" if lines else "")


def end_at_once():
    """Cancel the timers of Snakemake's rate limit for jobs, whose threads would delay the exit by a second."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()
