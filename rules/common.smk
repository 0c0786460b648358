# What all rooms share: the checked configuration, where files stand, and how scripts are called.
import glob
import json
import sys
import threading
import time

sys.path.insert(0, str(Path(workflow.basedir)))

from snakemake.iocontainers import Wildcards

from scripts.cluster.failures import describe_failures, find_failures, find_kills
from scripts.cluster.slurm import find_jobs
from scripts.common.config import QUESTIONS
from scripts.common.data_config import RejectionsDataset
from scripts.common.load_config import load_config
from scripts.common.environment import VLLM, prepare_environment, require_vllm
from scripts.common.errors import UserError
from scripts.evaluate.tasks import check_tasks

REPOSITORY = Path(workflow.basedir)
OWN_TASKS = REPOSITORY / "benchmarks"

try:
    cfg = load_config(
        config,
        origin=" + ".join(map(str, workflow.overwrite_configfiles)) or "config.yaml",
    )
    check_tasks({name: benchmark.task for name, benchmark in cfg.benchmarks.items()}, OWN_TASKS)
except UserError as error:
    # A WorkflowError would add the line of this file, which is not where the mistake is.
    sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))

prepare_environment(REPOSITORY)

# ORPO is experimental in TRL, which would say so at each start.
QUIET = "TRL_EXPERIMENTAL_SILENCE=1"

# Jobs that compute never ask the network for anything.
OFFLINE = "HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_EVALUATE_OFFLINE=1"

# What failed before is not told again at the end.
STARTED = time.time()


pathvars:
    results=f"results/{cfg.run.name}",
    work=f"work/{cfg.run.name}",
    logs=f"logs/{cfg.run.name}",


wildcard_constraints:
    dataset=r"[A-Za-z0-9_-]+",
    shard=r"\d+",
    model=r"[A-Za-z0-9_-]+",
    stage=r"[A-Za-z0-9_-]+",
    benchmark=r"[A-Za-z0-9_-]+",


def one_of(names):
    """A wildcard constraint that matches these names and nothing else."""
    return "|".join(names) or "(?!)"


def stages_by(method):
    """A wildcard constraint for the stages that train by this method."""
    return one_of(name for name, stage in cfg.stages.items() if stage.method == method)


def as_json(value):
    """A section of the configuration, or a plain value, as a script takes it."""
    return json.dumps(
        value if isinstance(value, dict) else value.part(),
        sort_keys=True,
        ensure_ascii=False,
    )


def files_of(dataset):
    """The local files of a data set, so that a change in them is seen. None yet is the downloader's to complain about."""
    patterns = [part.source.path for part in dataset.parts.values() if part.source.kind == "file"]
    return sorted(path for pattern in patterns for path in glob.glob(pattern, recursive=True))


def shards_of(dataset, ending):
    """What `inspect_rows` writes of each shard of a data set, in their order."""
    return [f"<work>/datasets/{dataset}/inspected/{shard}.{ending}" for shard in range(cfg.datasets[dataset].shards)]


def questions_for(dataset):
    """The benchmarks' questions, for a data set that must not hold them."""
    looked_for = cfg.benchmarks if cfg.datasets[dataset].filters.benchmark_overlap != "ignore" else []
    return expand("<work>/benchmarks/{benchmark}/questions.jsonl", benchmark=looked_for)


def own_task(benchmark):
    """Our own files of a benchmark's task, when it has some: what it is, its code, its questions."""
    paths = [OWN_TASKS / f"{cfg.benchmarks[benchmark].task}.{ending}" for ending in ("yaml", "py", "jsonl")]
    return [str(path) for path in paths if path.is_file()]


def own_scoring(benchmark):
    """How answers to a task of ours with code of its own are scored."""
    has_code = (OWN_TASKS / f"{cfg.benchmarks[benchmark].task}.py").is_file()
    return [str(REPOSITORY / "scripts/evaluate/rubric.py")] if has_code else []


def mirror_files(source):
    """The files of a local mirror of the hub, so that a change in them is seen."""
    if source.kind != "file":
        return []
    return sorted(path for path in glob.glob(f"{source.path}/**", recursive=True) if not Path(path).is_dir())


def model_manifests():
    """The manifest of every model of the run."""
    return expand("<work>/models/{model}/manifest.json", model=cfg.models)


def named_targets():
    """What each stage's and each benchmark's name stands for."""
    stages = {name: f"<work>/models/{name}/manifest.json" for name in cfg.stages}
    benchmarks = {
        name: expand("<results>/scores/{model}/{name}.json", model=cfg.models, name=name) for name in cfg.benchmarks
    }
    return stages | benchmarks


def job_resources(kind):
    """Resources of a job, as Snakemake and its SLURM executor read them; `gpus_at_once` is for Snakemake alone."""
    wanted = getattr(cfg.resources, kind)
    resources = {
        "mem_mb": wanted.memory_gb * 1000,
        "runtime": round(wanted.hours * 60),
        "cpus_per_task": wanted.cpus,
    }
    # A job without GPUs does not name them at all.
    return resources | ({"gpu": wanted.gpus, "gpus_at_once": wanted.gpus, "nodes": 1} if wanted.gpus else {})


def training_resources():
    """Resources of a training job: on several machines, our own `srun` starts a task on each."""
    wanted = cfg.resources.train
    if wanted.nodes == 1:
        return job_resources("train")
    several = {"nodes": wanted.nodes, "tasks": wanted.nodes, "mpi": "srun"}
    if wanted.gpus:
        gpus = wanted.gpus * wanted.nodes
        several |= {"gpu": gpus, "gpus_at_once": gpus, "tasks_per_gpu": 0}
    return job_resources("train") | several


def cpus(kind):
    """Arithmetic threads of each process of a job."""
    wanted = getattr(cfg.resources, kind)
    return max(1, wanted.cpus // max(1, wanted.gpus))


def compute(kind):
    """The environment of a job that computes: no network, and no GPU that it did not ask for."""
    hidden = "" if getattr(cfg.resources, kind).gpus else " CUDA_VISIBLE_DEVICES="
    return f"env {OFFLINE} {QUIET} OMP_NUM_THREADS={cpus(kind)}{hidden}"


def benchmark_resources():
    """Resources of a job that scores a model on a benchmark: those of an evaluation, for each of its processes."""
    alone = job_resources("evaluate")
    shared = {key: alone[key] for key in ("mem_mb", "cpus_per_task", "gpu", "gpus_at_once") if key in alone}
    return alone | {key: for_each_process(value) for key, value in shared.items()}


def for_each_process(value):
    """So much for each process that shares the questions of a benchmark."""
    return lambda wildcards: value * cfg.benchmarks[wildcards.benchmark].processes


def benchmark_launcher(benchmark):
    """How a benchmark is started: by itself, or as processes that share its questions; vLLM starts its own."""
    processes = cfg.benchmarks[benchmark].processes
    if cfg.benchmarks[benchmark].engine == "vllm":
        return f'"${VLLM}" -m'
    return "python -m" if processes == 1 else f"torchrun --standalone --nproc-per-node {processes} -m --"


def launcher():
    """How a training script is started: by itself, or as several processes by torchrun, on each machine once."""
    wanted = cfg.resources.train
    if wanted.processes == 1:
        return "python -m"
    # A checkpoint of a large model takes longer to write than the 30 seconds that torchrun leaves after a signal.
    # Behind `--`, torchrun does not take the script's options for abbreviations of its own.
    script = f"--shutdown-timeout 600 --nproc-per-node {max(1, wanted.gpus)} -m --"
    if wanted.nodes == 1:
        return f"torchrun --standalone {script}"
    # They meet at the machine that this runs on, which is one of them; two jobs that share it need two ports.
    return (
        f"srun --nodes {wanted.nodes} --ntasks {wanted.nodes} --ntasks-per-node 1 --cpus-per-task {wanted.cpus}"
        f" --kill-on-bad-exit torchrun --nnodes {wanted.nodes} --rdzv-backend c10d --rdzv-id $SLURM_JOB_ID"
        f" --rdzv-endpoint $(hostname):$((20000 + SLURM_JOB_ID % 10000)) {script}"
    )


def only_asks():
    """Nothing is made that another head may be making."""
    targets = set(workflow.dag_settings.targets)
    return bool(targets) and targets <= set(QUESTIONS)


def refuse_missing_vllm():
    """End before anything is submitted when a benchmark's engine is not there."""
    try:
        for name, benchmark in cfg.benchmarks.items():
            if benchmark.engine == "vllm" and not only_asks():
                require_vllm(name)
    except UserError as error:
        sys.exit(f"error: {error}")


def uses_slurm():
    """Jobs are submitted to SLURM."""
    return hasattr(workflow.executor_settings, "status_command")


def refuse_second_head():
    """End when jobs of an earlier head, which was killed, still run: two would write the same files."""
    if only_asks():
        return
    try:
        jobs = [job.number for job in find_jobs(Path.cwd(), cfg.run.name)]
    except UserError as error:
        # SLURM's tools may be installed where no cluster is.
        sys.exit(f"error: {error}") if uses_slurm() else None
        return
    if jobs:
        sys.exit(
            f"error: jobs of an earlier Snakemake are still at work in this folder: {', '.join(jobs)}; "
            f"wait for them, or end them with `scancel {' '.join(jobs)}`, and start again"
        )


def tell_failures():
    """Name at the very end what failed since the start, with its last words: thousands of lines may lie between.

    A single failure has just been told, unless Snakemake kept going, or it was SLURM that ended the job.
    """
    if only_asks():
        return
    failures = list(find_failures(Path("logs", cfg.run.name), since=STARTED))
    kills = list(find_kills(Path(".snakemake/slurm_logs"), since=STARTED))
    if kills or len(failures) > (0 if workflow.execution_settings.keep_going else 1):
        print("\n".join(describe_failures(failures + kills)), file=sys.stderr)


def end_at_once():
    """Snakemake's limit of jobs a second leaves timers behind, whose threads would hold its end up for a second."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()


def asked_resources(wildcards):
    """What the jobs of each rule that is submitted ask for, after the profile has had its say, as JSON."""
    methods = {f"train_{stage.method}" for stage in cfg.stages.values()}
    submitted = [
        one
        for one in workflow.rules
        if not workflow.is_local(one)
        and (one.name in methods or not one.name.startswith("train_"))
        and (cfg.benchmarks or one.name != "run_benchmark")
    ]
    # The times of a stage are no request to SLURM, and hang on which stage it is.
    own = {"time_limit", "over_time"}
    largest = max(cfg.benchmarks, key=lambda name: cfg.benchmarks[name].processes, default="")
    job = Wildcards(fromdict={"benchmark": largest})
    asked = {one.name: one.expand_resources(job, [], 1, skip_evaluation=own) for one in submitted}
    return json.dumps(
        {
            name: {key: value for key, value in resources.items() if key not in own and isinstance(value, (int, str))}
            for name, resources in asked.items()
        }
    )


def executor_settings(wildcards):
    """What the profile sets for all jobs, as JSON."""
    names = ("qos", "reservation", "requeue", "no_requeue", "status_command")
    return json.dumps({name: getattr(workflow.executor_settings, name, None) for name in names})
