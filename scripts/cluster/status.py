"""Show the progress of a run: stages, scores, jobs in the queue, and the last lines of failed logs.

It only reads manifests, logs and the queue, so it may run at any time.
"""

import re
import time
from pathlib import Path

import pyarrow.parquet as pq

from scripts.cluster.failures import Failure, describe_failures, find_failures, find_kills, is_error, read_end
from scripts.cluster.slurm import Job, find_jobs
from scripts.common.config import Config
from scripts.common.console import make_parser, run_script, say, write_clock
from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.common.paths import RunPaths
from scripts.common.records import StageFacts
from scripts.common.targets import READ_ONLY_TARGETS

SCORING = ("run_benchmark", "judge_answers", "score_preferences", "generate_responses", "score_responses")
"""Rules that contribute to scores. Their wildcards are the model and what it is scored on."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="the complete configuration, as JSON")
    options = parser.parse_args()

    config = Config.model_validate_json(options.config)
    try:
        jobs = find_jobs(Path.cwd(), config.run.name)
    except UserError as error:
        jobs = []
        say(f"{error}; the status leaves out the queue")
    say("\n".join(describe_run(config, RunPaths(config.run.name), jobs)))


def describe_run(config: Config, paths: RunPaths, jobs: list[Job]) -> list[str]:
    """The status, as lines for a terminal.

    Args:
        jobs: of the run, in the queue.
    """
    queued = {job.work: job.state.lower() for job in jobs}
    killed = {work: kill for work, kill in find_killed(paths).items() if work not in queued}
    states = queued | dict.fromkeys(killed, "failed")
    trained = [stage for stage in config.lineage() if paths.model(stage).is_file()]
    scored = [(m, s) for m in config.models for s in config.scores if paths.score(m, s).is_file()]
    lines = [
        f"run {config.run.name}: {len(trained)} of {len(config.stages)} stages trained,"
        f" {len(scored)} of {len(config.models) * len(config.scores)} scores,"
        f" {'report written' if paths.pdf.is_file() else 'no report yet'}"
    ]
    stages = [[stage, *_describe_stage(config, paths, stage, states)] for stage in config.lineage()]
    scores = [[s, *(_describe_score(paths, m, s, states) for m in config.models)] for s in config.scores]
    lines += _align("stages", stages) + _align("scores", [["", *config.models], *scores] if scores else [])
    lines += _align("jobs", [[job.number, job.state.lower(), job.elapsed, _name(job)] for job in jobs])
    # The log of a job that SLURM has started again ends with its last error until the job writes to it.
    failures = [one for one in find_failures(paths.logs) if _is_of(config, paths, one.log, states)]
    return lines + describe_failures([*failures, *killed.values()])


def find_killed(paths: RunPaths) -> dict[str, Failure]:
    """Jobs that SLURM ended and that have not started again, by rule and wildcards as in `Job.work`."""
    logs = {_work(paths, log): log for log in paths.logs.glob("**/*.log")}
    # Jobs of other runs may have the same names. Snakemake prints the path of the rule's log, which names the run.
    place = f" {paths.logs.relative_to(paths.root)}/"
    killed = {}
    for kill in find_kills(paths.slurm_logs):
        rule, *wildcards = kill.log.relative_to(paths.slurm_logs).parts[:-1]
        work = "_wildcards_".join([rule.removeprefix("rule_"), *wildcards])
        is_newest = work not in logs or logs[work].stat().st_mtime <= kill.log.stat().st_mtime
        if is_newest and place in kill.log.read_text(encoding="utf-8", errors="replace"):
            killed[work] = kill
    return killed


def _describe_stage(config: Config, paths: RunPaths, stage: str, states: dict[str, str]) -> tuple[str, str]:
    """State and progress of a stage, as two cells."""
    if paths.model(stage).is_file():
        return "done", _describe_trained(read_json(paths.model(stage))["facts"], paths, stage)
    rule = f"train_{config.stages[stage].method}"
    state = _state(paths, rule, [stage], states)
    progress = "" if state in ("-", "pending") else _progress(paths.log(rule, stage))
    saved = [int(path.name.partition("-")[2]) for path in _checkpoints(paths, stage)]
    checkpoint = f"checkpoint at step {max(saved)}" if saved else ""
    return state, "; ".join(filter(None, [progress, checkpoint]))


def _describe_trained(facts: StageFacts, paths: RunPaths, stage: str) -> str:
    steps = paths.training_log(stage)
    losses = pq.read_table(steps)["loss"].drop_null().to_pylist() if steps.is_file() else []
    loss = f", last loss {losses[-1]:.3f}" if losses else ""
    pace = f", {facts['tokens_per_second']:,.0f} tokens/s" if facts["tokens_per_second"] else ""
    return f"{facts['steps']:,} steps in {write_clock(facts['train_seconds'])}{loss}{pace}"


def _describe_score(paths: RunPaths, model: str, score: str, states: dict[str, str]) -> str:
    if paths.score(model, score).is_file():
        return "done"
    by_rule = [_state(paths, rule, [model, score], states) for rule in SCORING]
    return next((state for state in by_rule if state != "-"), "-")


def _state(paths: RunPaths, rule: str, wildcards: list[str], states: dict[str, str]) -> str:
    """`running` or `pending` by the queue, or `failed` by SLURM; else `failed` or `started` by the log; else `-`."""
    log = paths.log(rule, *wildcards)
    if state := states.get(_work(paths, log)):
        return state
    if not log.is_file():
        return "-"
    return "failed" if is_error(log) else "started"


def _progress(log: Path) -> str:
    """The last progress line of a log, and the age of the log."""
    lines = [line for line in read_end(log).splitlines() if re.search(r": \d+/\d+ steps", line)]
    if not lines:
        return ""
    age = time.time() - log.stat().st_mtime
    return f"{lines[-1].partition(': ')[2]} (log written {write_clock(age)} ago)"


def _checkpoints(paths: RunPaths, stage: str) -> list[Path]:
    """Complete checkpoints: the trainer's state is written last."""
    return [state.parent for state in paths.checkpoints(stage).glob("*/checkpoint-*/trainer_state.json")]


def _name(job: Job) -> str:
    return job.work.replace("_wildcards_", " ")


def _is_of(config: Config, paths: RunPaths, log: Path, states: dict[str, str]) -> bool:
    """Whether a log belongs to the current configuration of the run, and nothing newer is known about its job."""
    rule, *wildcards = paths.rule_of(log)
    names = {*config.models, *config.scores, *config.datasets, *config.benchmarks}
    is_known = all(word.rpartition(".")[0] in names or word in names for word in wildcards)
    return rule not in READ_ONLY_TARGETS and is_known and _work(paths, log) not in states


def _work(paths: RunPaths, log: Path) -> str:
    """Rule and wildcards of a log, as in `Job.work`."""
    rule, *wildcards = paths.rule_of(log)
    return f"{rule}_wildcards_{'_'.join(wildcards).replace('.', '_')}" if wildcards else rule


def _align(title: str, rows: list[list[str]]) -> list[str]:
    """A table without borders under its title; empty if it has no rows."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return ["", title, *(f"  {line}".rstrip() for line in cells)]


if __name__ == "__main__":
    run_script(main)
