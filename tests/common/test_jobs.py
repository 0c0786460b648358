"""How jobs are started and what resources they request."""

import json
import os
import shlex
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.common.config import Benchmark, JobResources, TrainResources
from scripts.common.config.loader import load_config
from scripts.common.jobs import (
    assign,
    benchmark_launcher,
    benchmark_resources,
    compute_environment,
    cpu_threads,
    job_resources,
    shared_resources,
    training_launcher,
    training_resources,
)
from tests.workflow.running import read_recipe

SCRIPT = "scripts.train.train_sft --name sft"


def benchmark(**fields: Any) -> Benchmark:
    return Benchmark.model_validate({"task": "piqa", "metric": "acc"} | fields)


def test_variables_become_arguments_of_env() -> None:
    assert assign({"A": "1", "B": ""}) == "A=1 B="


@pytest.mark.parametrize(
    ("cpus", "gpus", "threads"),
    [(8, 0, 8), (8, 1, 8), (8, 4, 2), (7, 2, 3), (1, 4, 1)],
    ids=["no GPU", "one GPU", "one process per GPU", "rounded down", "fewer cores than GPUs"],
)
def test_the_processes_of_a_job_share_its_cores(cpus: int, gpus: int, threads: int) -> None:
    assert cpu_threads(JobResources(cpus=cpus, gpus=gpus)) == threads


def environment_of(command: str, **outside: str) -> dict[str, str]:
    """The environment of a process that is started through a command such as `env A=1`."""
    show = f"{command} {shlex.quote(sys.executable)} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    done = subprocess.run(show, shell=True, env=os.environ | outside, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
ONLINE = {"HF_HUB_OFFLINE": "0", "CUDA_VISIBLE_DEVICES": "0,1"}


def test_a_job_without_gpus_sees_no_gpu_and_no_network() -> None:
    seen = environment_of(compute_environment(JobResources(cpus=6)), **ONLINE)
    expected = OFFLINE | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "6", "TRL_EXPERIMENTAL_SILENCE": "1"}
    assert expected.items() <= seen.items()


def test_a_job_with_gpus_sees_its_gpus_and_no_network() -> None:
    seen = environment_of(compute_environment(JobResources(cpus=6, gpus=2)), **ONLINE)
    expected = OFFLINE | {"CUDA_VISIBLE_DEVICES": "0,1", "OMP_NUM_THREADS": "3", "TRL_EXPERIMENTAL_SILENCE": "1"}
    assert expected.items() <= seen.items()


def test_resources_have_the_names_that_snakemake_reads() -> None:
    assert job_resources(JobResources(cpus=4, memory_gb=20, hours=1.5)) == {
        "mem_mb": 20_000,
        "runtime": 90,
        "cpus_per_task": 4,
    }, "GPUs are not mentioned"
    assert job_resources(JobResources(gpus=2)) == {
        **{"mem_mb": 8_000, "runtime": 60, "cpus_per_task": 1, "gpu": 2, "gpus_at_once": 2, "nodes": 1}
    }


@pytest.mark.parametrize("gpus", [0, 4])
def test_training_on_one_machine_requests_what_any_job_does(gpus: int) -> None:
    wanted = TrainResources(gpus=gpus, cpus=8, memory_gb=100, hours=24)
    assert training_resources(wanted) == job_resources(wanted)


def test_training_on_several_machines_requests_all_gpus_and_the_memory_of_one_machine() -> None:
    assert training_resources(TrainResources(nodes=3, gpus=4, cpus=8, memory_gb=100, hours=24)) == {
        **{"mem_mb": 100_000, "runtime": 1440, "cpus_per_task": 8, "nodes": 3, "tasks": 3, "mpi": "srun"},
        **{"gpu": 12, "gpus_at_once": 12, "tasks_per_gpu": 0},
    }
    assert training_resources(TrainResources(nodes=2)) == {
        **{"mem_mb": 8_000, "runtime": 60, "cpus_per_task": 1, "nodes": 2, "tasks": 2, "mpi": "srun"}
    }, "without GPUs, they are not mentioned"


def test_each_process_of_a_benchmark_gets_the_resources_of_one_job() -> None:
    wanted = JobResources(gpus=2, cpus=4, memory_gb=20, hours=1.5)
    assert shared_resources(wanted, 1) == job_resources(wanted)
    assert shared_resources(wanted, 3) == {
        **{"mem_mb": 60_000, "runtime": 90, "cpus_per_task": 12, "gpu": 6, "gpus_at_once": 6, "nodes": 1}
    }, "all run on one machine at the same time"


def test_each_benchmark_requests_resources_for_its_processes() -> None:
    recipe = read_recipe("smoke")
    recipe["benchmarks"]["chain_sum"]["processes"] = 3
    recipe["resources"] = {"evaluate": {"cpus": 4, "memory_gb": 20}}
    functions = benchmark_resources(load_config(recipe))
    requested = {
        name: {key: function(SimpleNamespace(benchmark=name)) for key, function in functions.items()}
        for name in ("chain_sum", "traps")
    }
    assert requested == {
        "chain_sum": {"mem_mb": 60_000, "runtime": 60, "cpus_per_task": 12},
        "traps": {"mem_mb": 20_000, "runtime": 60, "cpus_per_task": 4},
    }


@pytest.mark.parametrize("gpus", [0, 1])
def test_one_process_trains_without_torchrun(gpus: int) -> None:
    assert training_launcher(TrainResources(gpus=gpus)) == "python -m"


def arguments_of(program: str, command: str, **outside: str) -> list[str]:
    """The arguments that a program receives when a shell runs a command."""
    replaced = f"{program}() {{ printf '%s\\n' \"$@\"; }}; {command}"
    done = subprocess.run(
        ["sh", "-c", replaced], env=os.environ | outside, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()


def test_each_gpu_gets_a_process() -> None:
    words = arguments_of("torchrun", f"{training_launcher(TrainResources(gpus=4))} {SCRIPT}")
    assert words == [
        *("--standalone", "--shutdown-timeout", "600", "--nproc-per-node", "4", "-m", "--"),
        *("scripts.train.train_sft", "--name", "sft"),
    ]


@pytest.mark.parametrize(("gpus", "processes"), [(4, "4"), (0, "1")], ids=["four GPUs each", "no GPU"])
def test_each_machine_starts_torchrun_and_the_first_is_the_rendezvous(gpus: int, processes: str) -> None:
    launcher = training_launcher(TrainResources(nodes=2, gpus=gpus, cpus=8))
    words = arguments_of("srun", f"{launcher} {SCRIPT}", SLURM_JOB_ID="1234567")
    assert words == [
        *("--nodes", "2", "--ntasks", "2", "--ntasks-per-node", "1", "--cpus-per-task", "8", "--kill-on-bad-exit"),
        *("torchrun", "--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-id", "1234567"),
        *("--rdzv-endpoint", f"{socket.gethostname()}:24567"),  # 20000 plus the last four digits of the job's number
        *("--shutdown-timeout", "600", "--nproc-per-node", processes, "-m", "--"),
        *("scripts.train.train_sft", "--name", "sft"),
    ]


@pytest.mark.parametrize(
    ("fields", "launcher"),
    [
        ({}, "python -m"),
        ({"engine": "continuous"}, "python -m"),
        ({"processes": 3}, "torchrun --standalone --nproc-per-node 3 -m --"),
        ({"engine": "vllm"}, '"$POSTTRAIN_VLLM" -m'),
        ({"engine": "vllm", "processes": 3}, '"$POSTTRAIN_VLLM" -m'),
    ],
    ids=["one process", "another engine", "several processes", "vLLM", "several processes of vLLM"],
)
def test_the_engine_decides_how_a_benchmark_is_started(fields: dict[str, Any], launcher: str) -> None:
    assert benchmark_launcher(benchmark(**fields)) == launcher
