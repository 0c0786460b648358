"""Register PyTorch's variable length attention with transformers: packed examples, and nothing between them."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

NAME = "varlen_attention"
"""Name of this attention in a stage's `attention` and in transformers."""


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
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each example of one flat row.

    Args:
        query: shape (1, heads, tokens, head size).
        key, value: shape (1, key heads, tokens, head size).
        position_ids: shape (1, tokens), starting at 0 for each example; None for a single example.
        cu_seq_lens_q, max_length_q: offsets of the examples, shape (examples + 1,), and the length of the longest, if
            the collator gives them. Otherwise each layer computes them from `position_ids`.

    Returns:
        Output of shape (1, tokens, heads, head size), and None for the weights.

    Raises:
        ValueError: there are several rows, a mask, dropout, capped scores or sinks, which the kernel does not support.
    """
    tokens = query.shape[2]
    if query.shape[0] != 1 or key.shape[2] != tokens or attention_mask is not None or dropout:
        raise ValueError(f"{NAME} needs one flat row of complete examples, without mask, cache and dropout")
    if softcap is not None or s_aux is not None:
        raise ValueError(f"{NAME} does not support the capped scores or sinks of this model")
    bounds, longest = cu_seq_lens_q, max_length_q
    if bounds is None or longest is None:
        if position_ids is None:
            position_ids = torch.arange(tokens, device=query.device)
        (bounds, _), (longest, _) = prepare_fa_kwargs_from_position_ids(position_ids)
    # Norms of queries and keys may return float32, which the kernel does not support.
    flat = [states[0].transpose(0, 1).to(value.dtype) for states in (query, key, value)]
    kernel: Callable[..., Any] = varlen_attn if query.is_cuda else attend_apart
    output = kernel(
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


def attend_apart(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    longest: int,
    longest_key: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    """The result of the kernel on a CPU, which has none: one example after another.

    Args:
        query, key, value: shape (tokens, heads, head size).
        bounds: shape (examples + 1,): the offset of each example, and the end.
        window_size: number of previous tokens that a token attends to (-1: all), and 0 for no later ones.

    Returns:
        Shape (tokens, heads, head size).
    """
    parts = []
    for start, end in pairwise(bounds.tolist()):
        example = [states[None, start:end].transpose(1, 2) for states in (query, key, value)]
        mask, size = None, end - start
        if 0 <= window_size[0] < size - 1:
            back = torch.arange(size)[:, None] - torch.arange(size)
            mask = (back >= 0) & (back <= window_size[0])
        part = scaled_dot_product_attention(
            *example, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=enable_gqa
        )
        parts.append(part[0].transpose(0, 1))
    return torch.cat(parts)


AttentionInterface.register(NAME, attend)
