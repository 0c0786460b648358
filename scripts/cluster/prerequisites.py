"""Check what a run needs apart from SLURM: local files, downloads from the hub, and disk space."""

import glob
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from scripts.cluster.finding import Finding
from scripts.cluster.probe_node import reaches_hub
from scripts.common.config import BASE, Benchmark, Config, HubDataset
from scripts.common.jobs import OFFLINE
from scripts.common.paths import OWN_TASKS, RunPaths
from scripts.data.hub_cache import find_whole_snapshot, is_whole
from scripts.plan.shape import find_shape

ROWS = {".parquet", ".json", ".jsonl", ".csv", ".tsv", ".arrow", ".zst", ".gz", ".zip", ".txt"}
"""Endings of files that contain rows."""

BYTES_IN_CHECKPOINT = 14
"""Bytes of each trained weight: itself in bfloat16, and in float32 a copy and Adam's two states."""


def check_downloads(config: Config, paths: RunPaths) -> Finding:
    """Whether everything that comes from the hub is here, or can be downloaded where Snakemake runs."""
    missing = list(find_missing(config, paths))
    from_hub = {
        name: benchmark
        for name, benchmark in config.benchmarks.items()
        if benchmark.source.kind == "hub" and not paths.benchmark(name).is_file()
    }
    if (missing or from_hub) and reaches_hub():
        names = ", ".join([*missing, *(f"benchmark {name}" for name in from_hub)])
        return Finding("downloads", f"not here yet: {names}; the hub is reachable, so Snakemake will download them")
    # Without the hub, its cache decides. Reading the benchmarks from it takes some seconds.
    missing += [f"benchmark {name}" for name in from_hub.keys() - find_readable(from_hub)] if from_hub else []
    if not missing:
        return Finding("downloads", "everything that comes from the hub is here")
    advice = "no internet here; fill HF_HOME where there is; `snakemake check_benchmarks` shows what a benchmark lacks"
    return Finding("downloads", f"not here yet: {', '.join(sorted(missing))}", advice)


def check_files(config: Config) -> Iterator[Finding]:
    """Local files that the configuration names and that do not exist, one finding for each."""
    model = config.model.source
    if model.kind == "file" and not is_whole(Path(model.path)):
        advice = "set model.source.path to a folder with config.json, safetensors weights and a tokenizer"
        yield Finding("model", f"{model.path} is not a complete model folder", advice)
    for name, dataset in config.datasets.items():
        for source in (part.source for part in dataset.parts.values()):
            if source.kind == "file" and not glob.glob(source.path, recursive=True):
                yield Finding(f"data set {name}", f"no file matches {source.path}", "correct its source.path")


def find_missing(config: Config, paths: RunPaths) -> Iterator[str]:
    """The model and the data sets that are neither in the run's folder nor in the hub's cache."""
    model = config.model.source
    is_here = paths.model(BASE).is_file()
    if model.kind == "hub" and not is_here and not find_whole_snapshot(model):
        yield "the model"
    for name, dataset in config.datasets.items():
        sources = [part.source for part in dataset.parts.values()]
        if not paths.source(name).is_file() and not all(
            is_cached(source) for source in sources if source.kind == "hub"
        ):
            yield f"data set {name}"


def is_cached(source: HubDataset) -> bool:
    """Whether a data set is a local folder or the hub's cache has files of its rows, though perhaps not all of them."""
    if Path(source.repository).is_dir():
        return True
    try:
        folder = snapshot_download(
            source.repository, repo_type="dataset", revision=source.revision, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return False
    return any(path.suffix in ROWS for path in Path(folder).rglob("*"))


def find_readable(benchmarks: dict[str, Benchmark]) -> set[str]:
    """Names of the benchmarks that would run without internet access, according to `check_benchmarks`."""
    sections = {name: benchmark.as_dict() for name, benchmark in benchmarks.items()}
    command = [sys.executable, "-m", "scripts.evaluate.check_benchmarks"]
    command += ["--benchmarks", json.dumps(sections), "--tasks", str(OWN_TASKS)]
    done = subprocess.run(command, env=os.environ | OFFLINE, capture_output=True, text=True, check=False)
    return {line.partition(": would run;")[0] for line in done.stderr.splitlines() if ": would run;" in line}


def check_disk(config: Config, paths: RunPaths) -> Finding:
    """Whether the disk has room for all models, and for the checkpoints of stages that train at the same time."""
    try:
        free = shutil.disk_usage(paths.work).free
    except OSError as error:
        return Finding("disk", f"cannot read the free space of {paths.work}: {error.strerror}", mark="??")
    shape, _ = find_shape(config.model.source, paths.model(BASE), Path(config.run.cache))
    if shape is None:
        return Finding("disk", f"{free / 1e9:,.0f} GB free; the size of the model is not known yet", mark="??")
    # A stage keeps its previous checkpoint until the next one is written. Checkpoints of adapters hold nothing else.
    # Stages with the same parent may train at the same time.
    checkpoints: Counter[str] = Counter()
    for stage in config.stages.values():
        checkpoints[stage.parent] += 2 * BYTES_IN_CHECKPOINT * (shape.trained_parameters(stage) or shape.parameters)
    # A saved model has at most 4 bytes a weight (float32).
    needed = shape.parameters * 4 * (1 + len(config.stages)) + max(checkpoints.values(), default=0)
    found = f"{free / 1e9:,.0f} GB free in {paths.work}, about {needed / 1e9:,.1f} GB needed"
    return Finding("disk", found, "" if free > needed else "free up space, or put work/ on a larger disk")
