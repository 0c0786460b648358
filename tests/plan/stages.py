"""Stages, shapes, manifests and configurations for tests of the plan."""

from pathlib import Path
from typing import Any

import yaml

from scripts.common.config import Config, Stage
from scripts.common.config.loader import load_config
from scripts.common.paths import REPOSITORY
from scripts.common.records import StageConfig, StageFacts, StageManifest
from scripts.plan.shape import Shape, read_shape

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 160,
    "vocab_size": 300,
    "tie_word_embeddings": True,
}
"""The relevant fields of a small model's config.json."""


def make_stage(**section: Any) -> Stage:
    """A stage with default values except for the given keys."""
    return Stage.model_validate({"method": "sft", "from": "base", "dataset": "rows"} | section)


def make_shape(**fields: Any) -> Shape:
    """The shape of a small model."""
    shape = read_shape(CONFIG | fields)
    assert shape is not None
    return shape


def make_manifest(
    name: str = "sft", config: dict[str, Any] | None = None, facts: dict[str, Any] | None = None, **fields: Any
) -> StageManifest:
    """The manifest of an SFT stage that trained a small model on a CPU.

    Args:
        name: name of the stage.
        config: changes of its section.
        facts: changes of its facts.
        fields: other changes.
    """
    section: StageConfig = {
        "method": "sft",
        "from": "base",
        "dataset": "rows",
        "tuning": "full",
        "lora": {},
        "strategy": "ddp",
        "attention": "auto",
        "args": {},
        "seed": 1,
        "dtype": "float32",
    }
    parameters = make_shape().parameters
    done: StageFacts = {
        "steps": 8,
        "epochs": 0.8,
        "effective_batch": 8,
        "budget": {
            "seconds": 31.0,
            "attempts": 1,
            "planned": 8,
            "cuts": [],
            "stopped": False,
            "limit_seconds": None,
        },
        "resumed_from": 0,
        "parameters": parameters,
        "trainable_parameters": parameters,
        "processes": 1,
        "strategy": "ddp",
        "attention": "sdpa",
        "train_seconds": 30.0,
        "seconds_per_epoch": 37.5,
        "tokens": 2_900,
        "tokens_per_second": 96.7,
        "flops": 1.5e10,
        "mfu": None,
        "energy_kwh": None,
        "peak_train_memory_gb": 0.9,
        "trained_token_share": 0.25,
        "cut_rows": 0,
        "proof": [],
        "train_rows": 80,
        "weights_sha256": "ab" * 32,
        "reload_difference": 0.0,
    }
    manifest: StageManifest = {
        "artefact": "model",
        "name": name,
        "config": section,
        "inputs": {},
        "facts": done,
        "versions": {},
        "git_commit": None,
        "device": "CPU (x86_64)",
        "seconds": 40.0,
        "peak_memory_bytes": 9 * 10**8,
        "peak_gpu_memory_bytes": None,
        "created": "2026-11-22T10:00:00",
    }
    changed: Any = dict(manifest) | {"config": dict(section) | (config or {}), "facts": dict(done) | (facts or {})}
    return changed | fields


def qwen3_4b() -> Shape:
    """The shape of Qwen3-4B."""
    known = yaml.safe_load((REPOSITORY / "scripts" / "plan" / "shapes.yaml").read_text(encoding="utf-8"))
    shape = read_shape(known["Qwen/Qwen3-4B-Base"])
    assert shape is not None
    return shape


def read_config(path: str, folder: Path, **sections: Any) -> Config:
    """A configuration of this repository with some sections replaced and its cache in `folder`."""
    raw = yaml.safe_load((REPOSITORY / path).read_text(encoding="utf-8")) | sections
    raw["run"]["cache"] = str(folder / "cache")
    return load_config(raw)
