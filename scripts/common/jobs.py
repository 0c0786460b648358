"""How jobs are started and what resources they request: pure functions of the configuration, for the rules."""

from collections.abc import Callable
from typing import Any

from scripts.common.config import Benchmark, Config, JobResources, TrainResources
from scripts.common.environment import VLLM

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
"""Environment variables of jobs that must not use the network."""

QUIET = {"TRL_EXPERIMENTAL_SILENCE": "1"}
"""Environment variables that suppress TRL's warning that ORPO is experimental."""

SHUTDOWN = 600
"""Seconds that torchrun waits after a signal. The default of 30 is too short to save a checkpoint of a large model."""

Resources = dict[str, int | str]


def assign(variables: dict[str, str]) -> str:
    """Environment variables as arguments of `env`."""
    return " ".join(f"{name}={value}" for name, value in variables.items())


def cpu_threads(wanted: JobResources) -> int:
    """Number of compute threads of each process of a job."""
    return max(1, wanted.cpus // max(1, wanted.gpus))


def compute_environment(wanted: JobResources) -> str:
    """The `env` command of a compute job: no network, and no GPU unless the job requests one."""
    variables = OFFLINE | QUIET | {"OMP_NUM_THREADS": str(cpu_threads(wanted))}
    return f"env {assign(variables if wanted.gpus else variables | {'CUDA_VISIBLE_DEVICES': ''})}"


def job_resources(wanted: JobResources) -> Resources:
    """Resources of a job, under the names that Snakemake and its SLURM executor use.

    `gpus_at_once` limits the GPUs of a run within Snakemake. A job without GPUs does not mention GPUs at all.
    """
    requested: Resources = {
        "mem_mb": wanted.memory_gb * 1000,
        "runtime": round(wanted.hours * 60),
        "cpus_per_task": wanted.cpus,
    }
    return requested | ({"gpu": wanted.gpus, "gpus_at_once": wanted.gpus, "nodes": 1} if wanted.gpus else {})


def training_resources(wanted: TrainResources) -> Resources:
    """Resources of a training job. On several machines, our own `srun` command starts one task on each."""
    if wanted.nodes == 1:
        return job_resources(wanted)
    several: Resources = {"nodes": wanted.nodes, "tasks": wanted.nodes, "mpi": "srun"}
    if wanted.gpus:
        gpus = wanted.gpus * wanted.nodes
        several |= {"gpu": gpus, "gpus_at_once": gpus, "tasks_per_gpu": 0}
    return job_resources(wanted) | several


def shared_resources(wanted: JobResources, processes: int) -> Resources:
    """Resources of a benchmark job with several processes: each process gets the resources of a job with one."""
    shared = ("mem_mb", "cpus_per_task", "gpu", "gpus_at_once")
    return {
        name: value * processes if name in shared and isinstance(value, int) else value
        for name, value in job_resources(wanted).items()
    }


def benchmark_resources(config: Config) -> dict[str, Callable[[Any], int | str]]:
    """Resources of the jobs that score models on benchmarks, each as a function of the wildcards of a job."""

    def resource(name: str) -> Callable[[Any], int | str]:
        return lambda wildcards: shared_resources(
            config.resources.evaluate, config.protocols[wildcards.benchmark].processes
        )[name]

    return {name: resource(name) for name in job_resources(config.resources.evaluate)}


def training_launcher(wanted: TrainResources) -> str:
    """The command that starts a training script: Python, or torchrun on each machine if there are several processes."""
    if wanted.processes == 1:
        return "python -m"
    # Without `--`, torchrun would read options of the script as abbreviations of its own options.
    script = f"--shutdown-timeout {SHUTDOWN} --nproc-per-node {max(1, wanted.gpus)} -m --"
    if wanted.nodes == 1:
        return f"torchrun --standalone {script}"
    # This runs on the first machine, which serves as the rendezvous. Two jobs on one machine need different ports.
    return (
        f"srun --nodes {wanted.nodes} --ntasks {wanted.nodes} --ntasks-per-node 1 --cpus-per-task {wanted.cpus}"
        f" --kill-on-bad-exit torchrun --nnodes {wanted.nodes} --rdzv-backend c10d --rdzv-id $SLURM_JOB_ID"
        f" --rdzv-endpoint $(hostname):$((20000 + SLURM_JOB_ID % 10000)) {script}"
    )


def benchmark_launcher(benchmark: Benchmark) -> str:
    """The command that starts a benchmark: Python, torchrun for several processes, or the Python of vLLM's environment.

    vLLM starts its processes itself.
    """
    if benchmark.engine == "vllm":
        return f'"${VLLM}" -m'
    if benchmark.processes == 1:
        return "python -m"
    return f"torchrun --standalone --nproc-per-node {benchmark.processes} -m --"
