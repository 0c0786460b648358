"""Conversations as the model sees them, with ⟦ ⟧ around the tokens that contribute to the loss."""

import re
from itertools import groupby
from operator import itemgetter
from typing import Any

from scripts.common.records import Turns

LONGEST = 1_500
"""Characters of a conversation that are shown."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def mark_trained(tokenizer: Any, turns: Turns, last_only: bool = False) -> str:
    """The conversation with its chat template, and ⟦ ⟧ around the trained tokens of the assistant's turns.

    With `last_only` only the last turn is trained, as in preference pairs.
    """
    encoded = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    tokens = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    spans = [(bool(mask), [token for token, _ in span]) for mask, span in groupby(tokens, key=itemgetter(1))]
    learnt = [place for place, (trained, _) in enumerate(spans) if trained]
    marked = learnt[-1:] if last_only else learnt
    pieces = [visible(tokenizer.decode(span)) for _, span in spans]
    text = "".join(f"⟦{piece}⟧" if place in marked else piece for place, piece in enumerate(pieces)).rstrip("\n")
    # The answer is at the end, so the middle is cut.
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"


def visible(text: str) -> str:
    """The text with control characters escaped as in Python, so that it cannot control the terminal."""
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)
