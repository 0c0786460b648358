"""Small stages of training, and how their scripts are called."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.common.config import Stage
from scripts.common.data_config import Form
from scripts.data.schemas import SCHEMAS
from scripts.train.job import Job

SFT: dict[str, Any] = {
    "method": "sft",
    "from": "base",
    "dataset": "rows",
    "args": {
        "learning_rate": 5e-3,
        "max_steps": 31,  # in the middle of an epoch of three steps: there a resumed run could go a step too far
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
    """A conversation whose answer is always the same."""
    turns = [{"role": "user", "content": f"say {number}{more}"}, {"role": "assistant", "content": "yes yes yes"}]
    return {"source_index": number, "messages": turns, "answer": None}


def write_rows(path: Path, form: Form, rows: list[dict[str, Any]]) -> None:
    """Rows of a form as the data room writes them."""
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[form]), path)


def with_args(stage: dict[str, Any], **args: Any) -> dict[str, Any]:
    """A stage with other arguments."""
    return stage | {"args": stage["args"] | args}


def sft_options(parent: Path, rows: Path, stage: dict[str, Any]) -> dict[str, Any]:
    """The command line of train_sft; what it writes goes to the working directory."""
    files = {"train": rows / "messages.parquet", "validation": rows / "no_messages.parquet"}
    return {"name": "sft", "config": stage, "parent": parent} | _common("sft") | files


def dpo_options(parent: Path, rows: Path, stage: dict[str, Any]) -> dict[str, Any]:
    """The command line of train_dpo; what it writes goes to the working directory."""
    files = {"train": rows / "preference.parquet", "validation": rows / "no_preference.parquet"}
    return {"name": "dpo", "config": stage, "parent": parent} | _common("dpo") | files


FORMS = {"sft": "messages", "dpo": "preference", "orpo": "preference", "kto": "kto", "grpo": "prompt"}


def method_options(method: str, parent: Path, rows: Path, section: dict[str, Any]) -> dict[str, Any]:
    """The command line of a training script, with rows of its kind; `section` goes over an empty stage."""
    stage = {"method": method, "from": "base", "dataset": "rows"} | section
    files = {"train": rows / f"{FORMS[method]}.parquet", "validation": rows / f"no_{FORMS[method]}.parquet"}
    return {"name": "stage", "config": stage, "parent": parent} | _common("stage") | files


def _common(name: str) -> dict[str, Any]:
    files = {"steps": f"{name}.parquet", "manifest": f"{name}/manifest.json", "log": f"{name}.log"}
    return {"seed": 7, "dtype": "float32", "cpus": 1} | files


def make_job(folder: Path, **stage: Any) -> Job:
    """A job of a stage, none of whose files is there."""
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
        manifest=folder / "mine" / "manifest.json",
        checkpoints=folder / "mine" / "checkpoints" / "x",
        time_limit=0.0,
        over_time="fit",
        processes=1,
        device="cpu",
    )


def read_losses(path: Path) -> list[float]:
    """The loss of each step, from the table of the steps."""
    return [row["loss"] for row in pq.read_table(path).to_pylist() if row["loss"] is not None]
