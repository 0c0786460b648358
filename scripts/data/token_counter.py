"""Count the tokens of conversations as the model will see them, or decide without counting if bounds hold."""

from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.common.manifest import find_model
from scripts.common.records import Turns

TURN = len("<|im_start|>assistant\n<|im_end|>\n")
"""Bytes that the chat template adds to a turn."""

_SPACES = "ĠĉĊċČčĜĝĞğ"
"""The bytes that `str.split` treats as white space, as a byte-level vocabulary writes them."""


class TokenCounter:
    """Counts with the tokenizer and the chat template of a model. They are loaded on first use, which takes seconds.

    Args:
        model: manifest of the model.
    """

    def __init__(self, model: Path) -> None:
        self.model = model

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast.from_pretrained(find_model(self.model))
        # Some tokenizers were saved with truncation and padding enabled, which would change the counts.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        return tokenizer

    def count(self, conversations: list[Turns]) -> list[int]:
        """Number of tokens of each conversation, with the chat template applied."""
        if not conversations:
            return []
        texts = self.tokenizer.apply_chat_template(conversations, tokenize=False)
        # The Rust tokenizer encodes batches on all cores, and creates no Python lists of ids.
        return [len(e) for e in self.tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def has_at_least(self, turns: Turns, tokens: int) -> bool:
        """True if the conversation certainly has this many tokens: it has as many words, and no token spans two."""
        if not self._splits_words or not _is_ascii(turns):
            return False
        words = 0
        for turn in turns:
            words += len(turn["content"].split(None, tokens))
        return words >= tokens

    def has_at_most(self, turns: Turns, tokens: int) -> bool:
        """True if the conversation certainly has no more tokens: it has no more bytes, and each token covers one."""
        if not self._is_byte_level or not _is_ascii(turns):
            return False
        return self._start + sum(len(turn["content"]) + TURN for turn in turns) <= tokens

    @cached_property
    def _is_byte_level(self) -> bool:
        """Whether each token covers at least one byte of the text. Such a vocabulary contains Ġ."""
        return "Ġ" in self.tokenizer.get_vocab()

    @cached_property
    def _splits_words(self) -> bool:
        """Whether no token has white space between other characters."""
        return self._is_byte_level and not any(
            any(space in token.strip(_SPACES) for space in _SPACES) for token in self.tokenizer.get_vocab()
        )

    @cached_property
    def _start(self) -> int:
        """Tokens of a conversation of one letter, including those that the template adds to every conversation."""
        return self.count([[{"role": "user", "content": "x"}]])[0]


def _is_ascii(turns: Turns) -> bool:
    """Whether all text is ASCII, whose number of bytes the tokenizer's normalisation does not change."""
    return all(turn["content"].isascii() for turn in turns)
