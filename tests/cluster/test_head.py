"""The head refuses to start while jobs of an earlier one run, requests resources and lists failures."""

import copy
import json
import os
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from scripts.cluster.head import list_failures, refuse_second_head
from scripts.common.errors import UserError
from scripts.common.files import write_text
from scripts.common.paths import RunPaths
from tests.cluster.conftest import Tool
from tests.workflow.running import REPOSITORY, read_recipe, snakemake, write_recipe

KILL = "slurmstepd: error: Detected 1 oom_kill event in StepId=13.0. Some of the step tasks have been killed."


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """The files of a run."""
    return RunPaths("mine", tmp_path)


def test_a_head_refuses_to_start_while_jobs_of_an_earlier_one_run(paths: RunPaths, tool: Tool) -> None:
    tool("squeue", f'echo "11|RUNNING|1:07|{paths.root}|rule_a"; echo "12|PENDING|0:00|{paths.root}|rule_b"')
    tool("scontrol", "echo \"snakemake --wait-for-files 'work/mine/models/base/manifest.json'\"")
    with pytest.raises(UserError) as caught:
        refuse_second_head(paths, uses_slurm=True)
    assert str(caught.value) == (
        "jobs of an earlier Snakemake are still queued or running in this folder: 11, 12; "
        "wait for them, or cancel them with `scancel 11 12`, and start again"
    )
    with pytest.raises(UserError):
        refuse_second_head(paths, uses_slurm=False)
    refuse_second_head(RunPaths("another", paths.root), uses_slurm=True)
    refuse_second_head(RunPaths("mine", paths.root / "elsewhere"), uses_slurm=True)


def test_a_relative_folder_matches_the_absolute_one_of_slurm(
    paths: RunPaths, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake's paths are relative to the current folder; SLURM's are absolute."""
    tool("squeue", f'echo "11|RUNNING|1:07|{paths.root}|rule_a"')
    tool("scontrol", "echo work/mine/models")
    monkeypatch.chdir(paths.root)
    with pytest.raises(UserError, match=r"in this folder: 11; wait"):
        refuse_second_head(RunPaths("mine"), uses_slurm=True)


def test_a_slurm_that_does_not_answer_stops_only_runs_that_use_it(paths: RunPaths, tool: Tool) -> None:
    tool("squeue", "echo 'squeue: error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UserError, match="SLURM does not answer: Unable to contact slurm controller"):
        refuse_second_head(paths, uses_slurm=True)
    refuse_second_head(paths, uses_slurm=False)


def test_without_slurm_a_head_starts(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(paths.root))
    refuse_second_head(paths, uses_slurm=False)


def test_while_jobs_run_only_targets_that_read_start(tmp_path: Path, tool: Tool) -> None:
    tool("squeue", f'echo "11|RUNNING|1:07|{tmp_path}|rule_a"')
    tool("scontrol", "echo work/smoke/models")
    options: list[str | Path] = ["--configfile", write_recipe(tmp_path, read_recipe("smoke")), "--cores", "1"]
    refused = snakemake(tmp_path, "download_model", *options)
    assert refused.returncode == 1 and "Traceback" not in refused.stdout
    assert refused.stdout.splitlines()[-1].startswith(
        "error: jobs of an earlier Snakemake are still queued or running in this folder: 11;"
    )
    assert not (tmp_path / "work/smoke/models").exists()
    plan = snakemake(tmp_path, "plan", *options)
    assert plan.returncode == 0, plan.stdout[-3000:]


def _fail(log: Path, text: str, age: float = 0.0) -> None:
    """Write a log, dated `age` seconds ago."""
    write_text(log, text)
    os.utime(log, (time.time() - age, time.time() - age))


def test_a_single_failure_is_listed_only_if_the_run_kept_going(paths: RunPaths) -> None:
    _fail(paths.log("train_sft", "sft"), "loading\nerror: no space left\n")
    since = time.time() - 50
    assert list_failures(paths, since, keeps_going=False) == []
    expected = ["", "failed", f"  {paths.log('train_sft', 'sft')}", "    loading", "    error: no space left"]
    assert list_failures(paths, since, keeps_going=True) == expected


def test_several_failures_are_listed(paths: RunPaths) -> None:
    for model in ("base", "sft"):
        _fail(paths.log("run_benchmark", model, "gsm8k"), f"error: {model}\n")
    lines = list_failures(paths, time.time() - 50, keeps_going=False)
    assert [line for line in lines if "error: " in line] == ["    error: base", "    error: sft"]


def test_a_single_job_that_slurm_ended_is_listed(paths: RunPaths) -> None:
    """Snakemake shows only the log of the rule; SLURM's message is in another log."""
    log = paths.slurm_logs / "rule_train_sft/sft/13.log"
    _fail(log, f"{KILL}\n")
    assert list_failures(paths, time.time() - 50, keeps_going=False) == ["", "failed", f"  {log}", f"    {KILL}"]


def test_failures_of_an_earlier_start_are_not_listed(paths: RunPaths) -> None:
    for stage in ("sft", "dpo"):
        _fail(paths.log("train_sft", stage), "error: no space left\n", age=100)
    _fail(paths.slurm_logs / "rule_train_sft/sft/13.log", f"{KILL}\n", age=100)
    assert list_failures(paths, time.time() - 50, keeps_going=True) == []


def check_cluster(folder: Path, tool: Tool, recipe: dict[str, Any]) -> dict[str, Any]:
    """The options that Snakemake passes to `check_cluster` with the profile, on a SLURM that accepts no job."""
    tool("squeue", "exit 0")
    tool("sinfo", "echo 'up|infinite|0/4/0/4|gpu:h100:4'")
    tool("sacctmgr", "echo posttrain")
    tool("scontrol", "echo 'MinJobAge = 300 sec'")
    tool("sbatch", "echo 'allocation failure: none' >&2; exit 1")
    profile = REPOSITORY / "profiles" / "slurm"
    run = snakemake(
        folder, "check_cluster", "--profile", profile, "--retries", "0", "--configfile", write_recipe(folder, recipe)
    )
    (command,) = [line for line in run.stdout.splitlines() if line.startswith("Shell command: ")]
    words = shlex.split(command.removeprefix("Shell command: "))
    return {option: words[words.index(f"--{option}") + 1] for option in ("requests", "settings", "latency-wait")}


def test_requests_match_the_submitted_jobs_and_the_profile(tmp_path: Path, tool: Tool) -> None:
    recipe = copy.deepcopy(read_recipe("smoke"))
    recipe["benchmarks"]["chain_sum"]["processes"] = 3
    recipe["stages"]["sft"]["time_limit"] = 5
    recipe["resources"] = {
        "train": {"gpus": 2, "nodes": 2, "cpus": 8, "memory_gb": 100, "hours": 24},
        "evaluate": {"gpus": 1, "cpus": 4, "memory_gb": 20},
    }
    options = check_cluster(tmp_path, tool, recipe)
    requests = json.loads(options["requests"])
    alone: dict[str, Any] = {"mem_mb": 20_000, "runtime": 60, "cpus_per_task": 4, "gpu": 1, "gpus_at_once": 1}
    # The benchmark with the most processes counts.
    shared: dict[str, Any] = {"mem_mb": 60_000, "runtime": 60, "cpus_per_task": 12, "gpu": 3, "gpus_at_once": 3}
    trained: dict[str, Any] = {"mem_mb": 100_000, "runtime": 1440, "cpus_per_task": 8, "gpu": 4, "gpus_at_once": 4}
    trained |= {"nodes": 2, "tasks": 2, "tasks_per_gpu": 0, "mpi": "srun"}
    on_gpus = {
        **dict.fromkeys(("train_sft", "train_dpo"), trained),
        **dict.fromkeys(("sample_rejections", "score_preferences", "generate_responses"), alone),
        "run_benchmark": shared,
    }
    filtered: dict[str, Any] = {"mem_mb": 8_000, "runtime": 60, "cpus_per_task": 1}
    on_cpus = dict.fromkeys(("inspect_rows", "filter_dataset"), filtered)
    profile = {"slurm_partition": "gpu", "slurm_account": "posttrain", "slurm_extra": "--open-mode=append"}
    assert requests.keys() == on_gpus.keys() | on_cpus.keys(), (
        "other methods are not used, and local jobs request nothing"
    )
    for rule, expected in on_gpus.items():
        assert (expected | profile | {"gpu_model": "h100"}).items() <= requests[rule].items(), rule
    for rule, expected in on_cpus.items():
        assert (expected | profile).items() <= requests[rule].items(), rule
        assert not {"gpu", "gpu_model", "gpus_at_once", "nodes"} & requests[rule].keys(), rule
    for request in requests.values():
        assert not {"time_limit", "over_time"} & request.keys(), "SLURM does not see them"
    settings = {"qos": None, "reservation": None, "requeue": True, "no_requeue": False, "status_command": "squeue"}
    assert json.loads(options["settings"]) == settings
    assert float(options["latency-wait"]) == 60


def test_a_run_without_benchmarks_and_stages_requests_only_what_it_has(tmp_path: Path, tool: Tool) -> None:
    recipe = read_recipe("smoke") | {"stages": {}, "expectations": {}, "benchmarks": {}}
    recipe["datasets"] = {"sums": recipe["datasets"]["sums"]}
    requests = json.loads(check_cluster(tmp_path, tool, recipe)["requests"])
    assert {"inspect_rows", "filter_dataset"} <= requests.keys()
    assert not [rule for rule in requests if rule.startswith("train_") or rule == "run_benchmark"]
