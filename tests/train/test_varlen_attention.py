"""What is handed to PyTorch's kernel, which runs on GPUs only: here plain attention of each example stands for it."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM

from scripts.common.manifest import find_model
from scripts.train import varlen_attention
from scripts.train.model import compare_logits, read_logits


def _plain(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    longest: int,
    longest_key: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    assert bounds.dtype == torch.int32 and bounds is key_bounds and window_size == (-1, 0)
    assert longest == longest_key == int(bounds.diff().max())
    parts = []
    for start, end in pairwise(bounds.tolist()):
        states = [states[start:end].transpose(0, 1)[None] for states in (query, key, value)]
        part = scaled_dot_product_attention(*states, is_causal=True, scale=scale, enable_gqa=enable_gqa)
        parts.append(part[0].transpose(0, 1))
    return torch.cat(parts)


def test_packed_examples_do_not_see_each_other(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.setattr(varlen_attention, "varlen_attn", _plain)
    folder = find_model(tiny_model)
    model, plain = (
        AutoModelForCausalLM.from_pretrained(folder, attn_implementation=name)
        for name in (varlen_attention.NAME, "sdpa")
    )
    examples = [torch.arange(20), torch.arange(50, 57), torch.arange(30, 31)]
    positions = torch.cat([torch.arange(len(example)) for example in examples])[None]
    packed = read_logits(model, torch.cat(examples)[None], position_ids=positions)
    alone = torch.cat([read_logits(plain, example[None]) for example in examples], dim=1)
    assert compare_logits(packed, alone) < 1e-5
    assert compare_logits(read_logits(model, examples[0][None]), alone[:, :20]) < 1e-5, "one example, without positions"


@pytest.mark.parametrize(
    "wrong", [{"attention_mask": torch.ones(1, 4)}, {"dropout": 0.1}, {"query": torch.zeros(2, 2, 4, 8)}], ids=str
)
def test_what_the_kernel_does_not_know_is_refused(wrong: dict[str, Any]) -> None:
    states = torch.zeros(1, 2, 4, 8)
    given = {"query": states, "key": states, "value": states, "attention_mask": None} | wrong
    with pytest.raises(ValueError, match="varlen_attention takes one flat row of whole examples"):
        varlen_attention.attend(torch.nn.Identity(), **given)
