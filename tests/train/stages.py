"""Small stages of training, and how their scripts are called."""

from pathlib import Path
from typing import Any

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


def chat(number: int) -> dict[str, Any]:
    """A conversation whose answer is always the same."""
    turns = [{"role": "user", "content": f"say {number}"}, {"role": "assistant", "content": "yes yes yes"}]
    return {"source_index": number, "messages": turns, "answer": None}


def with_args(stage: dict[str, Any], **args: Any) -> dict[str, Any]:
    """A stage with other arguments."""
    return stage | {"args": stage["args"] | args}


def sft_options(parent: Path, rows: Path, stage: dict[str, Any]) -> dict[str, Any]:
    """The command line of train_sft; what it writes goes to the working directory."""
    files = {"train": rows / "train.parquet", "validation": rows / "no_rows.parquet"}
    return {"name": "sft", "config": stage, "parent": parent} | _common("sft") | files


def dpo_options(parent: Path, rows: Path, stage: dict[str, Any]) -> dict[str, Any]:
    """The command line of train_dpo; what it writes goes to the working directory."""
    files = {"train": rows / "pairs.parquet", "validation": rows / "no_pairs.parquet"}
    return {"name": "dpo", "config": stage, "parent": parent} | _common("dpo") | files


def _common(name: str) -> dict[str, Any]:
    files = {"steps": f"{name}.jsonl", "manifest": f"{name}/manifest.json", "log": f"{name}.log"}
    return {"seed": 7, "dtype": "float32", "cpus": 1} | files
