"""The model of a stage: its adapters and its attention."""

from pathlib import Path
from typing import Any

import pytest

from scripts.common.files import read_json, write_json
from scripts.common.manifest import find_model
from scripts.train.model import choose_attention, make_adapters
from tests.train.stages import make_job


def test_adapters_follow_the_stage(tmp_path: Path) -> None:
    assert make_adapters(make_job(tmp_path)) is None
    lora = make_adapters(make_job(tmp_path, tuning="lora", lora={"r": 3, "alpha": 5, "target_modules": ["q_proj"]}))
    assert lora is not None
    assert (lora.r, lora.lora_alpha, lora.target_modules) == (3, 5, {"q_proj"})


@pytest.mark.parametrize(("option", "field"), [("use_rslora", "use_rslora"), ("use_dora", "use_dora")])
def test_kinds_of_adapters(tmp_path: Path, option: str, field: str) -> None:
    lora = make_adapters(make_job(tmp_path, tuning="qlora", lora={option: True}))
    assert lora is not None and getattr(lora, field)


PACKED = {"padding_free": True, "max_length": None}


@pytest.mark.parametrize(
    ("stage", "changes", "attention"),
    [
        ({}, {}, "sdpa"),
        ({"args": PACKED}, {}, "varlen_attention"),
        ({"args": PACKED}, {"attention_dropout": 0.1}, "sdpa"),
        ({"args": PACKED, "attention": "eager"}, {}, "eager"),
    ],
)
def test_attention_without_a_gpu(
    tmp_path: Path, tiny_model: Path, stage: dict[str, Any], changes: dict[str, Any], attention: str
) -> None:
    job = make_job(tmp_path, **stage)
    (tmp_path / "model").mkdir()  # next to the parent's manifest, base.json
    write_json(tmp_path / "model" / "config.json", read_json(find_model(tiny_model) / "config.json") | changes)
    assert choose_attention(job) == attention
