"""The model of a stage: its adapters, its attention, and that what is saved is what was trained."""

from pathlib import Path

import pytest

from scripts.train.model import choose_attention, make_adapters
from tests.train.stages import make_job


def test_adapters_are_those_of_the_stage(tmp_path: Path) -> None:
    assert make_adapters(make_job(tmp_path)) is None
    lora = make_adapters(make_job(tmp_path, tuning="lora", lora={"r": 3, "alpha": 5, "target_modules": ["q_proj"]}))
    assert lora is not None
    assert (lora.r, lora.lora_alpha, lora.target_modules) == (3, 5, {"q_proj"})


@pytest.mark.parametrize(("option", "field"), [("use_rslora", "use_rslora"), ("use_dora", "use_dora")])
def test_kinds_of_adapters(tmp_path: Path, option: str, field: str) -> None:
    lora = make_adapters(make_job(tmp_path, tuning="qlora", lora={option: True}))
    assert lora is not None and getattr(lora, field)


def test_attention_without_a_gpu_is_pytorchs_own(tmp_path: Path) -> None:
    assert choose_attention(make_job(tmp_path)) == "sdpa"
    assert choose_attention(make_job(tmp_path, attention="eager")) == "eager"
