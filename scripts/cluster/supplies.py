"""What a run needs that is no matter of SLURM: what the hub has, and room on the disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from scripts.cluster.finding import Finding
from scripts.cluster.probe_node import reaches_hub
from scripts.common.config import Config
from scripts.plan.shape import find_shape

BYTES_IN_CHECKPOINT = 14
"""Of a weight: itself, and in float32 a copy and Adam's two numbers."""


def check_downloads(config: Config, work: Path) -> Finding:
    """What comes from the hub is here, or can be brought from where Snakemake runs."""
    missing = list(find_missing(config, work))
    if not missing:
        return Finding("downloads", "all that the hub has is here")
    told = f"not here yet: {', '.join(missing)}"
    if reaches_hub():
        return Finding("downloads", f"{told}; the hub is reached, so Snakemake brings it")
    advice = "no internet here: fill HF_HOME where there is; `snakemake check_benchmarks` looks at the benchmarks alone"
    return Finding("downloads", told, advice)


def find_missing(config: Config, work: Path) -> Iterator[str]:
    """What the hub has of a run and neither its folder nor the hub's cache."""
    model = config.model.source
    is_here = (work / "models/base/manifest.json").is_file()
    if model.kind == "hub" and not is_here and not is_cached("model", model.repository, model.revision):
        yield "the model"
    for name, dataset in config.datasets.items():
        sources = [part.source for part in dataset.parts.values()]
        if not (work / f"datasets/{name}/source.json").is_file() and not all(
            is_cached("dataset", source.repository, source.revision) for source in sources if source.kind == "hub"
        ):
            yield f"data set {name}"
    for name, benchmark in config.benchmarks.items():
        if benchmark.source.kind == "hub" and not (work / f"benchmarks/{name}/manifest.json").is_file():
            yield f"benchmark {name}"


def is_cached(kind: str, repository: str, revision: str) -> bool:
    """The hub's cache has this revision of a repository."""
    try:
        snapshot_download(repository, repo_type=kind, revision=revision, local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return True


def check_disk(config: Config, work: Path) -> Finding:
    """The disk holds all models, and the checkpoints of those that train side by side."""
    free = shutil.disk_usage(work).free
    shape, _ = find_shape(config.model.source, work / "models/base/manifest.json", Path(config.run.cache))
    if shape is None:
        return Finding("disk", f"{free / 1e9:,.0f} GB are free; the size of the model is not known yet", mark="??")
    # Models are saved in float32 at most. While a checkpoint is written, the one before it stands beside it.
    parents = [stage.parent for stage in config.stages.values()]
    side_by_side = max((parents.count(parent) for parent in parents), default=0)
    needed = shape.parameters * (4 * (1 + len(config.stages)) + 2 * BYTES_IN_CHECKPOINT * side_by_side)
    told = (
        f"{free / 1e9:,.0f} GB are free in {work}, about {needed / 1e9:,.1f} GB are needed when all weights are trained"
    )
    return Finding("disk", told, "" if free > needed else "free some, or put work/ on a larger disk")
