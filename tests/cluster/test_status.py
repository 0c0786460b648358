"""The progress of a run, from its files and jobs: what is done, running, waiting or failed, and why it failed."""

import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.cluster.failures import describe_failures, find_failures, find_kills, is_error
from scripts.cluster.slurm import Job
from scripts.cluster.status import describe_run
from scripts.common.config import Config
from scripts.common.config.loader import load_config
from scripts.common.files import write_json, write_text
from scripts.common.paths import RunPaths
from tests.workflow.running import read_recipe

PROGRESS = "train_dpo dpo: 4/40 steps, loss 0.776, 3,120 tokens/s, 0:39 left\n"


@pytest.fixture
def config() -> Config:
    """The smoke recipe: stages sft and dpo."""
    return load_config(read_recipe("smoke"))


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """A run whose stage sft is trained and whose stage dpo is training."""
    paths = RunPaths("smoke", tmp_path)
    facts: dict[str, Any] = {"steps": 1200, "train_seconds": 3671.2, "tokens_per_second": 5123.4}
    write_json(paths.model("sft"), {"facts": facts})
    paths.training_log("sft").parent.mkdir(parents=True)
    pq.write_table(pa.table({"loss": [2.0, 0.125, None]}), paths.training_log("sft"))
    write_text(paths.log("train_dpo", "dpo"), "loading\n" + PROGRESS + "a library's warning\n")
    for step in (4, 12):
        write_json(paths.checkpoints("dpo") / f"ab12/checkpoint-{step}/trainer_state.json", {})
    (paths.checkpoints("dpo") / "ab12/checkpoint-20").mkdir()
    write_json(paths.score("base", "chain_sum"), {})
    return paths


def test_status_shows_stages_scores_and_jobs(config: Config, paths: RunPaths) -> None:
    jobs = [
        Job("17", "RUNNING", "12:44", "train_dpo_wildcards_dpo"),
        Job("18", "PENDING", "0:00", "run_benchmark_wildcards_sft_chain_sum"),
    ]
    lines = describe_run(config, paths, jobs)
    assert lines[0] == f"run smoke: 1 of 2 stages trained, 1 of {3 * len(config.scores)} scores, no report yet"
    assert "  sft  done     1,200 steps in 1:01:11, last loss 0.125, 5,123 tokens/s" in lines
    (dpo,) = [line for line in lines if line.startswith("  dpo  ")]
    assert dpo.startswith("  dpo  running  4/40 steps, loss 0.776, 3,120 tokens/s, 0:39 left (log written 0:0")
    assert dpo.endswith(" ago); checkpoint at step 12"), "the newest complete one"
    (scores,) = [line.split() for line in lines if line.startswith("  chain_sum")]
    assert scores == ["chain_sum", "done", "pending", "-"]
    assert lines[-2:] == ["  17  running  12:44  train_dpo dpo", "  18  pending  0:00   run_benchmark sft_chain_sum"]


def test_without_a_queue_a_log_shows_that_a_stage_has_started(config: Config, paths: RunPaths) -> None:
    (dpo,) = [line for line in describe_run(config, paths, []) if line.startswith("  dpo  ")]
    assert dpo.startswith("  dpo  started  4/40 steps")


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        ("loading\nerror: stages.dpo: the loss of step 7 is not a finite number\n", "error: stages.dpo: the loss"),
        ("Traceback (most recent call last):\n  File x\ntorch.OutOfMemoryError: CUDA out of memory\n", "torch.OutOf"),
    ],
)
def test_a_failed_stage_is_shown_with_the_last_lines_of_its_log(
    config: Config, paths: RunPaths, log: str, shown: str
) -> None:
    write_text(paths.logs / "train_dpo/dpo.log", log)
    lines = describe_run(config, paths, [])
    assert any(line.startswith("  dpo  failed") for line in lines)
    failed = lines[lines.index("failed") :]
    assert failed[1] == f"  {paths.logs / 'train_dpo/dpo.log'}" and failed[-1].startswith(f"    {shown}")


def test_a_job_that_is_queued_again_has_not_failed(config: Config, paths: RunPaths) -> None:
    write_text(paths.logs / "train_dpo/dpo.log", "error: no space left\n")
    lines = describe_run(config, paths, [Job("19", "PENDING", "0:00", "train_dpo_wildcards_dpo")])
    assert "failed" not in lines and any(line.startswith("  dpo  pending") for line in lines)


def test_failures_of_an_earlier_start_are_left_out(paths: RunPaths) -> None:
    for name, age in (("old", 100.0), ("new", 0.0)):
        log = paths.logs / f"run_benchmark/sft/{name}.log"
        write_text(log, "error: something\n")
        os.utime(log, (time.time() - age, time.time() - age))
    failures = describe_failures(find_failures(paths.logs, since=time.time() - 50))
    assert failures == ["", "failed", f"  {paths.logs}/run_benchmark/sft/new.log", "    error: something"]
    assert describe_failures(find_failures(paths.logs, since=time.time() + 50)) == []


def test_status_of_a_run_that_has_not_started(config: Config, tmp_path: Path) -> None:
    lines = describe_run(config, RunPaths("smoke", tmp_path), [])
    assert "  sft  -" in lines and "  dpo  -" in lines


def test_a_finished_stage_without_its_table_of_steps(config: Config, paths: RunPaths) -> None:
    paths.training_log("sft").unlink()
    (sft,) = [line.split(maxsplit=2) for line in describe_run(config, paths, []) if line.startswith("  sft")]
    assert sft == ["sft", "done", "1,200 steps in 1:01:11, 5,123 tokens/s"]


@pytest.mark.parametrize("name", ["check_cluster.log", "run_benchmark/base/removed.log", "train_sft/renamed.log"])
def test_logs_that_are_not_part_of_the_run_are_ignored(config: Config, paths: RunPaths, name: str) -> None:
    write_text(paths.logs / name, "error: something\n")
    assert "failed" not in describe_run(config, paths, [])


def test_a_shard_that_runs_again_has_not_failed(config: Config, paths: RunPaths) -> None:
    write_text(paths.logs / "inspect_rows/sums.0.log", "error: something\n")
    assert "failed" in describe_run(config, paths, [])
    lines = describe_run(config, paths, [Job("3", "RUNNING", "0:01", "inspect_rows_wildcards_sums_0")])
    assert "failed" not in lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[rank1]: Traceback (most recent call last):\n[rank1]:   File x\n[rank1]: OutOfMemoryError: CUDA\n",
            True,
        ),
        ("Traceback (most recent call last):\nRuntimeError: CUDA error: assert\nCompile with X\n\nto see\n", True),
        (
            "Traceback (most recent call last):\nKeyError: handled by a library\ntrain_sft sft: 7/40 steps, loss 1\n",
            False,
        ),
        ("train_sft sft: 7/40 steps\n", False),
        ("", False),
    ],
)
def test_logs_that_end_in_an_error(tmp_path: Path, text: str, expected: bool) -> None:
    write_text(tmp_path / "a.log", text)
    assert is_error(tmp_path / "a.log") is expected


# As Slurm 22.05 writes them.
TIME_LIMIT = "slurmstepd-gpu1: error: *** JOB 11 ON gpu1 CANCELLED AT 2026-11-26T00:55:41 DUE TO TIME LIMIT ***"
REQUEUE = "slurmstepd-gpu1: error: *** JOB 8 ON gpu1 CANCELLED AT 2026-11-26T01:35:45 DUE TO JOB REQUEUE ***"
OUT_OF_MEMORY = "slurmstepd: error: Detected 1 oom_kill event in StepId=13.0. Some of the step tasks have been killed."
ORDINARY = "srun: error: gpu1: task 0: Exited with exit code 1"
BEGINS = "Building DAG of jobs...\n    log: logs/smoke/train_dpo/dpo.log\n"


def write_old(log: Path, text: str, age: float) -> None:
    """Write a log, dated `age` seconds ago."""
    write_text(log, text)
    os.utime(log, (time.time() - age, time.time() - age))


def test_only_the_last_start_of_a_job_decides_whether_slurm_ended_it(tmp_path: Path) -> None:
    for name, text, age in (
        ("rule_a/x/11.log", f"{BEGINS}{TIME_LIMIT}\n", 20.0),
        ("rule_a/x/12.log", "went well\n", 10.0),
        ("rule_b/y/13.log", f"{BEGINS}fine\n{OUT_OF_MEMORY}\nsrun: done\n", 10.0),
        ("rule_c/z/9.log", f"{TIME_LIMIT}\n", 1000.0),
        ("rule_d/x/14.log", f"{BEGINS}{REQUEUE}\n{BEGINS}went well\n", 10.0),
        ("rule_e/x/15.log", f"{BEGINS}error: no space left\n{ORDINARY}\n", 10.0),
        ("rule_f/x/16.log", f"{BEGINS}{TIME_LIMIT}\n", 10.0),
    ):
        write_old(tmp_path / name, text, age)
    killed = {kill.log.name: kill.lines for kill in find_kills(tmp_path, since=time.time() - 100)}
    assert killed == {"13.log": [OUT_OF_MEMORY], "16.log": [TIME_LIMIT]}


@pytest.mark.parametrize(
    ("log", "age", "jobs", "state"),
    [
        (f"{BEGINS}{OUT_OF_MEMORY}\n", 0.0, [], "failed"),
        (f"{BEGINS}{OUT_OF_MEMORY}\n", 0.0, [Job("19", "PENDING", "0:00", "train_dpo_wildcards_dpo")], "pending"),
        (f"{BEGINS}{OUT_OF_MEMORY}\n", 100.0, [], "started"),  # the rule's log is newer
        (f"{BEGINS.replace('smoke', 'another')}{OUT_OF_MEMORY}\n", 0.0, [], "started"),
    ],
)
def test_a_job_that_slurm_ended_has_failed(
    config: Config,
    paths: RunPaths,
    log: str,
    age: float,
    jobs: list[Job],
    state: str,
) -> None:
    write_text(paths.log("train_dpo", "dpo"), PROGRESS)
    write_old(paths.root / ".snakemake/slurm_logs/rule_train_dpo/dpo/13.log", log, age)
    lines = describe_run(config, paths, jobs)
    assert any(line.startswith(f"  dpo  {state}") for line in lines)
    assert (f"    {OUT_OF_MEMORY}" in lines) == (state == "failed")
