"""Small training stages, and the command lines of their scripts."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.common.config import ROW_TYPE_BY_METHOD, RowType, Stage
from scripts.common.config.stage import Method
from scripts.data.schemas import SCHEMAS
from scripts.train.job import Job

SFT: dict[str, Any] = {
    "method": "sft",
    "from": "base",
    "dataset": "rows",
    "args": {
        "learning_rate": 5e-3,
        "max_steps": 31,  # ends within an epoch of three steps, where a resumed run could take one step too many
        "per_device_train_batch_size": 8,
        "save_strategy": "no",
    },
}

DPO: dict[str, Any] = {
    "method": "dpo",
    "from": "sft",
    "dataset": "pairs",
    "args": {"learning_rate": 1e-3, "max_steps": 3, "per_device_train_batch_size": 4, "save_strategy": "no"},
}


def chat(number: int, more: str = "") -> dict[str, Any]:
    """A conversation. The answer is always the same."""
    turns = [{"role": "user", "content": f"say {number}{more}"}, {"role": "assistant", "content": "yes yes yes"}]
    return {"source_index": number, "messages": turns, "answer": None}


def write_rows(path: Path, row_type: RowType, rows: list[dict[str, Any]]) -> None:
    """Write rows of a type as the data room does."""
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[row_type]), path)


def with_args(stage: dict[str, Any], **args: Any) -> dict[str, Any]:
    """The stage with changed arguments."""
    return stage | {"args": stage["args"] | args}


def sft_options(parent: Path, rows: Path, stage: dict[str, Any]) -> dict[str, Any]:
    """Options of train_sft, which writes to the working directory."""
    files = {"train": rows / "messages.parquet", "validation": rows / "no_messages.parquet"}
    return {"name": "sft", "config": stage, "parent": parent} | _common("sft") | files


def dpo_options(parent: Path, rows: Path, stage: dict[str, Any]) -> dict[str, Any]:
    """Options of train_dpo, which writes to the working directory."""
    files = {"train": rows / "preference.parquet", "validation": rows / "no_preference.parquet"}
    return {"name": "dpo", "config": stage, "parent": parent} | _common("dpo") | files


def method_options(method: Method, parent: Path, rows: Path, section: dict[str, Any]) -> dict[str, Any]:
    """Options of a training script, with rows of its type. `section` has the keys of the stage to set."""
    stage = {"method": method, "from": "base", "dataset": "rows"} | section
    row_type = ROW_TYPE_BY_METHOD[method]
    files = {"train": rows / f"{row_type}.parquet", "validation": rows / f"no_{row_type}.parquet"}
    return {"name": "stage", "config": stage, "parent": parent} | _common("stage") | files


def _common(name: str) -> dict[str, Any]:
    files = {
        "steps": f"{name}.parquet",
        "tensorboard": f"tensorboard/{name}",
        "checkpoints": f"{name}/checkpoints",
        "proof": f"{name}/proof.json",
        "manifest": f"{name}/manifest.json",
        "log": f"{name}.log",
    }
    return {"seed": 7, "dtype": "float32", "cpus": 1} | files


def make_job(folder: Path, **stage: Any) -> Job:
    """A job of a stage without any files."""
    fields = {"method": "sft", "from": "base", "dataset": "rows"} | stage
    return Job(
        name="mine",
        stage=Stage.model_validate(fields),
        seed=11,
        dtype="float32",
        parent=folder / "base.json",
        train=folder / "train.parquet",
        validation=folder / "validation.parquet",
        steps=folder / "steps.parquet",
        tensorboard=folder / "tensorboard",
        proof=folder / "mine" / "proof.json",
        manifest=folder / "mine" / "manifest.json",
        checkpoints=folder / "mine" / "checkpoints" / "x",
        time_limit=0.0,
        over_time="fit",
        processes=1,
        device="cpu",
    )


def read_losses(path: Path) -> list[float]:
    """The loss of each step, from the table of steps."""
    return [row["loss"] for row in pq.read_table(path).to_pylist() if row["loss"] is not None]
