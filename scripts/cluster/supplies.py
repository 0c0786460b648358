"""What a run needs that is no matter of SLURM: what the hub has, and room on the disk."""

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
from scripts.common.config import Benchmark, Config
from scripts.common.data_config import HubDataset
from scripts.data.hub_cache import find_whole_snapshot, is_whole
from scripts.plan.shape import find_shape

OWN_TASKS = Path(__file__).parents[2] / "benchmarks"
"""Our own task files."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
"""The environment of what must not ask the network; as in rules/common.smk."""

ROWS = {".parquet", ".json", ".jsonl", ".csv", ".tsv", ".arrow", ".zst", ".gz", ".zip", ".txt"}
"""Endings of files that rows stand in."""

BYTES_IN_CHECKPOINT = 14
"""Of a weight that is trained: itself, and in float32 a copy and Adam's two numbers."""


def check_downloads(config: Config, work: Path) -> Finding:
    """What comes from the hub is here, or can be brought from where Snakemake runs."""
    missing = list(find_missing(config, work))
    asked = {
        name: benchmark
        for name, benchmark in config.benchmarks.items()
        if benchmark.source.kind == "hub" and not (work / f"benchmarks/{name}/manifest.json").is_file()
    }
    if (missing or asked) and reaches_hub():
        told = ", ".join([*missing, *(f"benchmark {name}" for name in asked)])
        return Finding("downloads", f"not brought yet: {told}; the hub is reached, so Snakemake brings it")
    # Only here it matters what the hub's cache has of them, and to read them takes some seconds.
    missing += [f"benchmark {name}" for name in asked.keys() - find_readable(asked)] if asked else []
    if not missing:
        return Finding("downloads", "all that the hub has is here")
    advice = "no internet here: fill HF_HOME where there is; `snakemake check_benchmarks` tells what a benchmark lacks"
    return Finding("downloads", f"not here yet: {', '.join(sorted(missing))}", advice)


def check_files(config: Config) -> Iterator[Finding]:
    """What the configuration names on this machine is here: a line for each that is not."""
    model = config.model.source
    if model.kind == "file" and not is_whole(Path(model.path)):
        advice = "set model.source.path to a folder with config.json, safetensors weights and a tokenizer"
        yield Finding("model", f"{model.path} is no whole model folder", advice)
    for name, dataset in config.datasets.items():
        for source in (part.source for part in dataset.parts.values()):
            if source.kind == "file" and not glob.glob(source.path, recursive=True):
                yield Finding(f"data set {name}", f"no file matches {source.path}", "mend its source.path")


def find_missing(config: Config, work: Path) -> Iterator[str]:
    """The model and the data sets that neither the run's folder nor the hub's cache has."""
    model = config.model.source
    is_here = (work / "models/base/manifest.json").is_file()
    if model.kind == "hub" and not is_here and not find_whole_snapshot(model):
        yield "the model"
    for name, dataset in config.datasets.items():
        sources = [part.source for part in dataset.parts.values()]
        if not (work / f"datasets/{name}/source.json").is_file() and not all(
            is_cached(source) for source in sources if source.kind == "hub"
        ):
            yield f"data set {name}"


def is_cached(source: HubDataset) -> bool:
    """A data set is a local folder, or the hub's cache has files of rows of this revision; it may have others yet."""
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
    """Names of the benchmarks that would run without the internet, as `check_benchmarks` tells them."""
    sections = {name: benchmark.part() for name, benchmark in benchmarks.items()}
    command = [sys.executable, "-m", "scripts.evaluate.check_benchmarks"]
    command += ["--benchmarks", json.dumps(sections), "--tasks", str(OWN_TASKS)]
    done = subprocess.run(command, env=os.environ | OFFLINE, capture_output=True, text=True, check=False)
    return {line.partition(": would run;")[0] for line in done.stderr.splitlines() if ": would run;" in line}


def check_disk(config: Config, work: Path) -> Finding:
    """The disk holds all models, and the checkpoints of those that train side by side."""
    try:
        free = shutil.disk_usage(work).free
    except OSError as error:
        return Finding("disk", f"{work} cannot be looked at: {error.strerror}", mark="??")
    shape, _ = find_shape(config.model.source, work / "models/base/manifest.json", Path(config.run.cache))
    if shape is None:
        return Finding("disk", f"{free / 1e9:,.0f} GB are free; the size of the model is not known yet", mark="??")
    # While a checkpoint is written, the one before it stands beside it. One of adapters holds them alone.
    side_by_side: Counter[str] = Counter()
    for stage in config.stages.values():
        side_by_side[stage.parent] += 2 * BYTES_IN_CHECKPOINT * (shape.trained_parameters(stage) or shape.parameters)
    # Models are saved in float32 at most.
    needed = shape.parameters * 4 * (1 + len(config.stages)) + max(side_by_side.values(), default=0)
    told = f"{free / 1e9:,.0f} GB are free in {work}, about {needed / 1e9:,.1f} GB are needed"
    return Finding("disk", told, "" if free > needed else "free some, or put work/ on a larger disk")
