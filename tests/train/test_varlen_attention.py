"""Variable length attention over packed examples: GPUs have a kernel, and CPUs compute one example after another."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from scripts.common.manifest import find_model
from scripts.train import varlen_attention
from scripts.train.model import compare_logits, read_logits
from scripts.train.varlen_attention import attend_apart


def _watched(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
    """Check the arguments that the kernel would get, and compute its result."""
    bounds, key_bounds, longest, longest_key = given
    assert bounds.dtype == torch.int32 and bounds is key_bounds
    assert longest == longest_key == int(bounds.diff().max())
    assert set(named) == {"scale", "window_size", "enable_gqa"}
    return attend_apart(query, key, value, *given, **named)


@pytest.mark.parametrize("window", [None, 4])
def test_packed_examples_do_not_see_each_other(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, window: int | None
) -> None:
    monkeypatch.setattr(varlen_attention, "attend_apart", _watched)
    sliding = {"use_sliding_window": True, "sliding_window": window, "layer_types": ["sliding_attention"] * 2}
    model, plain = (
        AutoModelForCausalLM.from_pretrained(
            find_model(tiny_model), attn_implementation=name, **(sliding if window else {})
        )
        for name in (varlen_attention.NAME, "sdpa")
    )
    examples = [torch.arange(20), torch.arange(50, 57), torch.arange(30, 31)]
    positions = torch.cat([torch.arange(len(example)) for example in examples])[None]
    packed = read_logits(model, torch.cat(examples)[None], position_ids=positions)
    alone = torch.cat([read_logits(plain, example[None]) for example in examples], dim=1)
    assert compare_logits(packed, alone) < 1e-5
    assert compare_logits(read_logits(model, examples[0][None]), alone[:, :20]) < 1e-5, "one example, without positions"
    if window:
        unlimited = AutoModelForCausalLM.from_pretrained(find_model(tiny_model), attn_implementation="sdpa")
        assert compare_logits(packed[:, :20], read_logits(unlimited, examples[0][None])) > 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        {"attention_mask": torch.ones(1, 4)},
        {"dropout": 0.1},
        {"query": torch.zeros(2, 2, 4, 8)},
        {"softcap": 50.0},
        {"s_aux": torch.zeros(2)},
    ],
    ids=str,
)
def test_inputs_that_the_kernel_does_not_support_are_refused(wrong: dict[str, Any]) -> None:
    states = torch.zeros(1, 2, 4, 8)
    given = {"query": states, "key": states, "value": states, "attention_mask": None} | wrong
    with pytest.raises(
        ValueError, match=r"^varlen_attention (needs one flat row of complete|does not support the capped scores)"
    ):
        varlen_attention.attend(torch.nn.Identity(), **given)
