"""The job of a training stage: the command line that all methods share, and the rows that it names."""

import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset
from pydantic import TypeAdapter

from scripts.common.config import Stage
from scripts.common.console import make_parser
from scripts.common.files import hash_file, hash_json, read_json
from scripts.common.manifest import find_model
from scripts.common.records import AnyManifest
from scripts.common.torch_setup import prepare_torch


@dataclass(frozen=True)
class Job:
    """A stage with its inputs, settings and outputs."""

    name: str
    stage: Stage
    seed: int
    dtype: str
    parent: Path
    train: Path
    validation: Path
    steps: Path
    tensorboard: Path
    proof: Path
    manifest: Path
    checkpoints: Path
    time_limit: float
    over_time: str
    processes: int
    device: str

    @property
    def folder(self) -> Path:
        """Folder of the trained model."""
        return find_model(self.manifest)

    @property
    def label(self) -> str:
        """Name of this job in messages."""
        return f"train_{self.stage.method} {self.name}"

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return int(os.environ.get("RANK", "0")) == 0


def parse_job(description: str | None) -> Job:
    """Parse the command line of a training script, and prepare torch."""
    parser = make_parser(description)
    parser.add_argument("--name", required=True, help="name of the stage")
    parser.add_argument("--config", required=True, help="the stage's section, as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the stage")
    parser.add_argument("--dtype", required=True, help="precision of the model")
    parser.add_argument("--cpus", type=int, required=True, help="arithmetic threads")
    parser.add_argument("--processes", type=int, default=1, help="number of training processes")
    parser.add_argument("--time-limit", type=float, default=0, help="hours for all attempts together; 0 for no limit")
    parser.add_argument("--over-time", choices=["fit", "refuse"], default="fit", help="what to do beyond this limit")
    parser.add_argument("--parent", type=Path, required=True, help="manifest of the model to start from")
    parser.add_argument("--train", type=Path, required=True, help="training rows, Parquet")
    parser.add_argument("--validation", type=Path, required=True, help="validation rows, Parquet")
    parser.add_argument("--steps", type=Path, required=True, help="table of training steps to write, Parquet")
    parser.add_argument("--tensorboard", type=Path, required=True, help="folder for TensorBoard's event files")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder for the checkpoints of the stage")
    parser.add_argument("--proof", type=Path, required=True, help="proof of the chat template to write, JSON")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write, next to the model folder")
    options = parser.parse_args()
    stage = TypeAdapter(Stage).validate_json(options.config)
    # Each combination of configuration, parent and rows has its own folder of checkpoints, so they never mix.
    parent: AnyManifest = read_json(options.parent)
    origin = [parent["config"], *(parent["facts"].get(fact) for fact in ("weights_sha256", "sha256", "revision"))]
    functions = [hash_file(Path(path)) for path in stage.function_files]
    fingerprint = hash_json(
        [stage.as_dict(), options.seed, options.dtype, hash_file(options.train), origin, options.processes, functions]
    )[:16]
    job = Job(
        name=options.name,
        stage=stage,
        seed=options.seed,
        dtype=options.dtype,
        parent=options.parent,
        train=options.train,
        validation=options.validation,
        steps=options.steps,
        tensorboard=options.tensorboard,
        proof=options.proof,
        manifest=options.manifest,
        checkpoints=options.checkpoints / fingerprint,
        time_limit=options.time_limit,
        over_time=options.over_time,
        processes=options.processes,
        device=prepare_torch(options.seed, options.cpus),
    )
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(job.tensorboard)  # the trainer has no argument for it
    return job


def load_rows(job: Job, columns: list[str]) -> tuple[Dataset, Dataset | None]:
    """The training rows, and the validation rows or None if there are none."""
    train = Dataset.from_parquet(str(job.train)).select_columns(columns)
    if not pq.read_metadata(job.validation).num_rows:
        return train, None  # datasets cannot read a Parquet file without rows
    return train, Dataset.from_parquet(str(job.validation)).select_columns(columns)
