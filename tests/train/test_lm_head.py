"""On CPUs the LM head computes only trained positions, with the loss and gradients of the plain model."""

from pathlib import Path
from typing import Any

import pytest
import torch
import trl.trainer.utils
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from scripts.common.manifest import find_model
from scripts.plan.memory import TILE_TOKENS, TILE_WORDS
from scripts.train import lm_head
from scripts.train.lm_head import CPU_TILE, fit_lm_head


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore TRL after each test: monkeypatch resets what it has set."""
    for name in ("_use_triton", "_CHUNKED_LOGPROB_CHUNK_SIZE"):
        monkeypatch.setattr(trl.trainer.utils, name, getattr(trl.trainer.utils, name))


def test_only_trained_positions_are_computed(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.setattr(lm_head, "CPU_TILE", 100)  # so that the tiny vocabulary has several tiles
    fit_lm_head("cpu")
    computed = []
    fused = trl.trainer.utils._ChunkedLogProbFunction

    class Watched:
        @staticmethod
        def apply(hidden: torch.Tensor, *given: Any) -> Any:
            computed.append((hidden.shape[0], given[4]))
            return fused.apply(hidden, *given)

    monkeypatch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", Watched)
    model: Any = AutoModelForCausalLM.from_pretrained(find_model(tiny_model), dtype="float32")
    ids = torch.arange(40).reshape(2, 20)
    labels = ids.clone()
    labels[0, :15] = labels[1, :10] = -100
    plain = model(input_ids=ids, labels=labels).loss
    (expected,) = torch.autograd.grad(plain, model.get_input_embeddings().weight)

    add_fused_lm_head(model)
    loss = model(input_ids=ids, labels=labels, fused_lm_head=True).loss
    (gradient,) = torch.autograd.grad(loss, model.get_input_embeddings().weight)
    assert computed == [(5 + 10, 100)]
    assert torch.allclose(loss, plain, atol=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-6)


def test_gpus_keep_the_settings_of_trl() -> None:
    chosen = trl.trainer.utils._use_triton, trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE
    fit_lm_head("cuda")
    assert (trl.trainer.utils._use_triton, trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE) == chosen


def test_the_plan_uses_the_same_tiles() -> None:
    assert TILE_WORDS == {"cpu": CPU_TILE, "gpu": 32_768}
    assert trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE == TILE_TOKENS
