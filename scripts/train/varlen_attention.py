"""PyTorch's own attention over examples that lie end to end, for transformers: nothing between examples is computed."""

from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

NAME = "varlen_attention"
"""How a stage's `attention` and transformers call it."""


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    position_ids: torch.Tensor | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each example of one flat row.

    Args:
        query: (1, heads, tokens, head size).
        key, value: (1, key heads, tokens, head size).
        position_ids: (1, tokens), beginning anew with each example; None where all is one example.

    Returns:
        (1, tokens, heads, head size), and no weights.

    Raises:
        ValueError: several rows, a mask, or dropout, which the kernel does not know.
    """
    tokens = query.shape[2]
    if query.shape[0] != 1 or key.shape[2] != tokens or attention_mask is not None or dropout:
        raise ValueError(f"{NAME} takes one flat row of whole examples, without mask, cache and dropout")
    if position_ids is None:
        position_ids = torch.arange(tokens, device=query.device)
    (bounds, _), (longest, _) = prepare_fa_kwargs_from_position_ids(position_ids)
    # The norms of queries and keys may have made float32 of them, which the kernel does not take.
    flat = [states[0].transpose(0, 1).to(value.dtype) for states in (query, key, value)]
    output = varlen_attn(
        *flat,
        bounds,
        bounds,
        int(longest),
        int(longest),
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, torch.Tensor)
    return output.unsqueeze(0), None


AttentionInterface.register(NAME, attend)
