"""Log-probabilities of given texts under a model."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from scripts.common.console import Progress

Encoded = tuple[list[int], list[int]]
"""Tokens of a text, and for each token whether it is scored (1) or only context (0). The first token is context."""


@torch.inference_mode()
def sum_log_probabilities(model: Any, encoded: list[Encoded], pad: int, batch_size: int, label: str) -> list[float]:
    """Sum of the log-probabilities of each text's scored tokens, in nats, in the order of the texts.

    Texts of similar length share a batch. They are padded on the left, so that all of them end at the last position and
    the LM head runs only from the first scored token on.

    Args:
        pad: padding token.
        batch_size: texts in one forward pass.
        label: label of the progress lines.
    """
    # Equal texts are scored once: padding changes the last bits of a sum, and these must not break a tie.
    first: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    for i, (tokens_of_row, counted) in enumerate(encoded):
        first.setdefault((tuple(tokens_of_row), tuple(counted)), i)
    order = sorted(first.values(), key=lambda i: (len(encoded[i][0]), i))
    progress = Progress(label, len(order), "texts")
    sums = [0.0] * len(encoded)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = max(len(encoded[i][0]) for i in rows)
        padding = [width - len(encoded[i][0]) for i in rows]

        def stack(lists: list[list[int]]) -> torch.Tensor:
            return torch.tensor(lists, device=model.device)

        tokens = stack([[pad] * gap + encoded[i][0] for gap, i in zip(padding, rows, strict=True)])
        mask = stack([[0] * gap + [1] * (width - gap) for gap in padding])
        counts = stack([[0] * gap + encoded[i][1] for gap, i in zip(padding, rows, strict=True)])
        longest = max(len(encoded[i][1]) - (encoded[i][1].index(1) if 1 in encoded[i][1] else 0) for i in rows)
        longest = min(longest, width - 1)
        logits = model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            logits_to_keep=longest + 1,
            use_cache=False,
        ).logits
        answers = tokens[:, -longest:]
        losses = cross_entropy(logits[:, :-1].flatten(0, 1).float(), answers.flatten(), reduction="none")
        found = (-losses.view_as(answers)).where(counts[:, -longest:] == 1, 0.0).sum(-1)
        for i, value in zip(rows, found.tolist(), strict=True):
            sums[i] = value
        progress.update(start + len(rows))
    return [sums[first[tuple(tokens_of_row), tuple(counted)]] for tokens_of_row, counted in encoded]
