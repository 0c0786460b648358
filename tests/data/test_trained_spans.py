"""Trained tokens of a conversation are marked, and control characters are escaped."""

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from scripts.common.manifest import find_model
from scripts.data.trained_spans import LONGEST, mark_trained, visible

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "2 + 2? 中文 😀"}
RIGHT = {"role": "assistant", "content": "It is 4 ⁂ 中文 😀"}
WRONG = {"role": "assistant", "content": "It is 5"}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(find_model(tiny_model))


def test_assistant_turns_are_marked(tokenizer: Any) -> None:
    assert mark_trained(tokenizer, [SYSTEM, USER, RIGHT, USER, WRONG]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n2 + 2? 中文 😀<|im_end|>\n"
        "<|im_start|>assistant\n⟦It is 4 ⁂ 中文 😀<|im_end|>⟧\n"
        "<|im_start|>user\n2 + 2? 中文 😀<|im_end|>\n"
        "<|im_start|>assistant\n⟦It is 5<|im_end|>⟧"
    )


@pytest.mark.parametrize("text", ["", " ", "\n", " x ", "\nx\n", "x" * 300, "user\nassistant", "a\tb"])
def test_marks_enclose_exactly_the_trained_tokens(tokenizer: Any, text: str) -> None:
    """Without its marks the text is the template's, and the marked tokens are those of the mask."""
    turns = [USER, {"role": "assistant", "content": text}]
    shown = mark_trained(tokenizer, turns)
    assert shown.replace("⟦", "").replace("⟧", "") == tokenizer.apply_chat_template(turns, tokenize=False).rstrip("\n")
    encoded = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    trained = [t for t, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert re.findall("⟦(.*?)⟧", shown, re.DOTALL) == [tokenizer.decode(trained)] == [f"{text}<|im_end|>"]


def test_with_last_only_the_last_turn_is_marked(tokenizer: Any) -> None:
    turns = [USER, RIGHT, USER, WRONG]
    assert mark_trained(tokenizer, turns).count("⟦") == 2
    assert mark_trained(tokenizer, turns, last_only=True).endswith("assistant\n⟦It is 5<|im_end|>⟧")
    assert mark_trained(tokenizer, turns, last_only=True).count("⟦") == 1


def test_a_prompt_has_no_trained_tokens(tokenizer: Any) -> None:
    assert mark_trained(tokenizer, [USER]) == "<|im_start|>user\n2 + 2? 中文 😀<|im_end|>"


def test_long_texts_are_cut_before_the_answer(tokenizer: Any) -> None:
    shown = mark_trained(tokenizer, [{"role": "user", "content": "word " * 2000}, WRONG])
    assert LONGEST <= len(shown) <= LONGEST + 3 and " … " in shown
    assert shown.startswith("<|im_start|>user\nword word") and shown.endswith("⟦It is 5<|im_end|>⟧")


def test_control_characters_are_escaped(tokenizer: Any) -> None:
    turns = [{"role": "user", "content": "\x1b[2J\x1b]0;title\x07\r\x9b1m\x00"}]
    assert visible(turns[0]["content"]) == "\\x1b[2J\\x1b]0;title\\x07\\r\\x9b1m\\x00"
    assert "\x1b" not in mark_trained(tokenizer, turns) and "\\x1b[2J" in mark_trained(tokenizer, turns)
    assert visible("a\n\tb中") == "a\n\tb中"
