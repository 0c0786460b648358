"""Tell how far a run is: stages, scores, jobs in the queue, and the last words of what failed.

It reads manifests, logs and the queue, and may be asked at any time.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scripts.cluster.failures import Failure, describe_failures, find_failures, find_kills, is_error, read_end
from scripts.cluster.slurm import Job, find_jobs
from scripts.common.config import QUESTIONS, Config
from scripts.common.console import make_parser, run_script, say, write_clock
from scripts.common.errors import UserError
from scripts.common.files import read_json

SCORING = ("run_benchmark", "judge_answers", "score_preferences", "generate_responses", "score_responses")
"""Rules that end in scores; wildcards of each are the model and what it is scored on."""


@dataclass(frozen=True)
class Folders:
    """Where a run keeps its files, and Snakemake what SLURM's jobs of all runs say."""

    work: Path
    results: Path
    logs: Path
    slurm_logs: Path = Path(".snakemake/slurm_logs")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="the whole configuration, as JSON")
    parser.add_argument("--work", type=Path, required=True, help="the run's folder of heavy files")
    parser.add_argument("--results", type=Path, required=True, help="the run's results")
    parser.add_argument("--logs", type=Path, required=True, help="the run's logs")
    options = parser.parse_args()

    config = Config.model_validate_json(options.config)
    try:
        jobs = find_jobs(Path.cwd(), config.run.name)
    except UserError as error:
        jobs = []
        say(f"{error}; jobs are not known")
    say("\n".join(describe_run(config, Folders(options.work, options.results, options.logs), jobs)))


def describe_run(config: Config, folders: Folders, jobs: list[Job]) -> list[str]:
    """The status as lines for a terminal."""
    at_work = {job.work: job.state.lower() for job in jobs}
    killed = {work: kill for work, kill in find_killed(folders).items() if work not in at_work}
    states = at_work | dict.fromkeys(killed, "failed")
    trained = [stage for stage in config.lineage() if _model(folders, stage).is_file()]
    scored = [(m, s) for m in config.models for s in config.scores if _score(folders, m, s).is_file()]
    lines = [
        f"run {config.run.name}: {len(trained)} of {len(config.stages)} stages trained,"
        f" {len(scored)} of {len(config.models) * len(config.scores)} scores,"
        f" {'the report is there' if (folders.results / 'report.pdf').is_file() else 'no report yet'}"
    ]
    stages = [[stage, *_describe_stage(config, folders, stage, states)] for stage in config.lineage()]
    scores = [[s, *(_describe_score(folders, m, s, states) for m in config.models)] for s in config.scores]
    lines += _align("stages", stages) + _align("scores", [["", *config.models], *scores] if scores else [])
    lines += _align("jobs", [[job.number, job.state.lower(), job.elapsed, _name(job)] for job in jobs])
    # A job that SLURM started again has its last error in its log until it speaks.
    failures = [one for one in find_failures(folders.logs) if _is_of(config, folders, one.log, states)]
    return lines + describe_failures([*failures, *killed.values()])


def find_killed(folders: Folders) -> dict[str, Failure]:
    """What SLURM ended and has not begun again since, by rule and wildcards, as a job in the queue is named."""
    logs = {_work(folders, log): log for log in folders.logs.glob("**/*.log")}
    killed = {}
    for kill in find_kills(folders.slurm_logs):
        rule, *wildcards = kill.log.relative_to(folders.slurm_logs).parts[:-1]
        work = "_wildcards_".join([rule.removeprefix("rule_"), *wildcards])
        is_newest = work not in logs or logs[work].stat().st_mtime <= kill.log.stat().st_mtime
        # Jobs of other runs may have the same names; each says where its rule's log is.
        if is_newest and f" {folders.logs}/" in kill.log.read_text(encoding="utf-8", errors="replace"):
            killed[work] = kill
    return killed


def _describe_stage(config: Config, folders: Folders, stage: str, states: dict[str, str]) -> tuple[str, str]:
    """State and progress of a stage."""
    if _model(folders, stage).is_file():
        return "done", _describe_trained(read_json(_model(folders, stage))["facts"], folders, stage)
    rule = f"train_{config.stages[stage].method}"
    state = _state(folders, rule, [stage], states)
    said = "" if state in ("-", "pending") else _progress(folders.logs / rule / f"{stage}.log")
    saved = [int(path.name.partition("-")[2]) for path in _checkpoints(folders, stage)]
    kept = f"checkpoint at step {max(saved)}" if saved else ""
    return state, "; ".join(filter(None, [said, kept]))


def _describe_trained(facts: dict[str, Any], folders: Folders, stage: str) -> str:
    steps = folders.results / "training" / f"{stage}.parquet"
    losses = pq.read_table(steps)["loss"].drop_null().to_pylist() if steps.is_file() else []
    loss = f", last loss {losses[-1]:.3f}" if losses else ""
    pace = f", {facts['tokens_per_second']:,.0f} tokens/s" if facts["tokens_per_second"] else ""
    return f"{facts['steps']:,} steps in {write_clock(facts['train_seconds'])}{loss}{pace}"


def _describe_score(folders: Folders, model: str, score: str, states: dict[str, str]) -> str:
    if _score(folders, model, score).is_file():
        return "done"
    by_rule = [_state(folders, rule, [model, score], states) for rule in SCORING]
    return next((state for state in by_rule if state != "-"), "-")


def _state(folders: Folders, rule: str, wildcards: list[str], states: dict[str, str]) -> str:
    """`running` or `pending` by the queue, `failed` by SLURM; else, by its log, `failed` or `begun`; else `-`."""
    log = folders.logs.joinpath(rule, *wildcards[:-1], f"{wildcards[-1]}.log")
    if state := states.get(_work(folders, log)):
        return state
    if not log.is_file():
        return "-"
    return "failed" if is_error(log) else "begun"


def _progress(log: Path) -> str:
    """The last line of a log that tells of progress, and how old the log is."""
    told = [line for line in read_end(log).splitlines() if re.search(r": \d+/\d+ steps", line)]
    if not told:
        return ""
    age = time.time() - log.stat().st_mtime
    return f"{told[-1].partition(': ')[2]} (log written {write_clock(age)} ago)"


def _model(folders: Folders, stage: str) -> Path:
    return folders.work / "models" / stage / "manifest.json"


def _score(folders: Folders, model: str, score: str) -> Path:
    return folders.results / "scores" / model / f"{score}.json"


def _checkpoints(folders: Folders, stage: str) -> list[Path]:
    """Checkpoints that are whole: the trainer's state is written last."""
    kept = folders.work / "models" / stage / "checkpoints"
    return [state.parent for state in kept.glob("*/checkpoint-*/trainer_state.json")]


def _name(job: Job) -> str:
    return job.work.replace("_wildcards_", " ")


def _is_of(config: Config, folders: Folders, log: Path, states: dict[str, str]) -> bool:
    """The log is of a rule that makes something of the run as it is configured, and SLURM tells nothing newer of it."""
    rule, *wildcards = log.relative_to(folders.logs).with_suffix("").parts
    names = {*config.models, *config.scores, *config.datasets, *config.benchmarks}
    is_known = all(word.rpartition(".")[0] in names or word in names for word in wildcards)
    return rule not in QUESTIONS and is_known and _work(folders, log) not in states


def _work(folders: Folders, log: Path) -> str:
    """The rule and the wildcards that a log is of, as a job in the queue names them."""
    rule, *wildcards = log.relative_to(folders.logs).with_suffix("").parts
    return f"{rule}_wildcards_{'_'.join(wildcards).replace('.', '_')}" if wildcards else rule


def _align(title: str, rows: list[list[str]]) -> list[str]:
    """A table without borders under its title; nothing when it has no rows."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return ["", title, *(f"  {line}".rstrip() for line in cells)]


if __name__ == "__main__":
    run_script(main)
