"""Stages, shapes and runs to plan."""

from pathlib import Path
from typing import Any

import yaml

from scripts.common.config import Config, Stage
from scripts.common.load_config import load_config
from scripts.plan.shape import Shape, read_shape
from tests.common.running import REPOSITORY

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
"""The fields of a small model's config.json that matter."""


def make_stage(**section: Any) -> Stage:
    """A stage of which only what is given differs from the defaults."""
    return Stage.model_validate({"method": "sft", "from": "base", "dataset": "rows"} | section)


def make_shape(**fields: Any) -> Shape:
    """A small model's shape."""
    shape = read_shape(CONFIG | fields)
    assert shape is not None
    return shape


def qwen3_4b() -> Shape:
    """The shape of Qwen3-4B."""
    known = yaml.safe_load((REPOSITORY / "scripts" / "plan" / "shapes.yaml").read_text(encoding="utf-8"))
    shape = read_shape(known["Qwen/Qwen3-4B-Base"])
    assert shape is not None
    return shape


def read_config(path: str, folder: Path, **sections: Any) -> Config:
    """A configuration that we ship, with sections in place of its own and its cache in `folder`."""
    raw = yaml.safe_load((REPOSITORY / path).read_text(encoding="utf-8")) | sections
    raw["run"]["cache"] = str(folder / "cache")
    return load_config(raw)
