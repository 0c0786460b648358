"""Count the tokens of conversations as the model will see them, and tell without counting where that is enough."""

from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.common.manifest import find_model
from scripts.data.schemas import Turns

TURN = len("<|im_start|>assistant\n<|im_end|>\n")
"""Bytes that the template puts around a turn."""

_SPACES = "ĠĉĊċČčĜĝĞğ"
"""White space as the vocabulary of a byte-level tokenizer spells it: the bytes that `str.split` takes for it."""


class TokenCounter:
    """Counts with the tokenizer and the chat template of a model, which are loaded on first use: that takes seconds.

    Args:
        model: manifest of the model.
    """

    def __init__(self, model: Path) -> None:
        self.model = model

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast.from_pretrained(find_model(self.model))
        # Some tokenizers were saved with both, which would hold for all that is encoded here.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        return tokenizer

    def count(self, conversations: list[Turns]) -> list[int]:
        """Number of tokens of each templated conversation."""
        if not conversations:
            return []
        texts = self.tokenizer.apply_chat_template(conversations, tokenize=False)
        # The Rust tokenizer takes whole batches on all cores, and makes no Python lists of what is only counted.
        return [len(e) for e in self.tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def has_at_least(self, turns: Turns, tokens: int) -> bool:
        """True when the conversation surely has so many tokens: it has more words, and no token spans two."""
        if not self._splits_words or not _is_ascii(turns):
            return False
        words = 0
        for turn in turns:
            words += len(turn["content"].split(None, tokens))
        return words >= tokens

    def has_at_most(self, turns: Turns, tokens: int) -> bool:
        """True when the conversation surely has no more tokens: it has fewer bytes, and no token is less than one."""
        if not self._is_byte_level or not _is_ascii(turns):
            return False
        return self._start + sum(len(turn["content"]) + TURN for turn in turns) <= tokens

    @cached_property
    def _is_byte_level(self) -> bool:
        """Whether each token stands for at least one byte of the text; told by the vocabulary, which then has a Ġ."""
        return "Ġ" in self.tokenizer.get_vocab()

    @cached_property
    def _splits_words(self) -> bool:
        """Whether no token of the vocabulary has white space between two other characters."""
        return self._is_byte_level and not any(
            any(space in token.strip(_SPACES) for space in _SPACES) for token in self.tokenizer.get_vocab()
        )

    @cached_property
    def _start(self) -> int:
        """Tokens of a conversation of one letter: what the template puts before every conversation is among them."""
        return self.count([[{"role": "user", "content": "x"}]])[0]


def _is_ascii(turns: Turns) -> bool:
    """Normalisation, which could change the number of bytes, leaves ASCII as it is."""
    return all(turn["content"].isascii() for turn in turns)
