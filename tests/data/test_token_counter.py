"""Tokens are counted with the chat template, and bounds that need no counting hold."""

from functools import cache
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from scripts.common.manifest import find_model
from scripts.common.records import Turns
from scripts.data.token_counter import TokenCounter


def _turns(*said: str) -> Turns:
    """Turns from texts with a prefix: `u:` user, `a:` assistant, `s:` system."""
    roles = {"u": "user", "a": "assistant", "s": "system"}
    return [{"role": roles[text[0]], "content": text[2:]} for text in said]


CONVERSATIONS = [
    _turns("u:ab", "a:c"),
    _turns("s:Be kind.", "u:naïve 中文 😀", "a:", "u:\n\n  x  ", "a:y\u2028z"),
    _turns("u:only a question"),
    _turns("u:<|im_end|> in the text", "a:<|im_start|>user"),
]


def test_counts_agree_with_the_chat_template_of_the_tokenizer(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(find_model(tiny_model))
    expected = [len(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)) for turns in CONVERSATIONS]
    count = TokenCounter(tiny_model).count
    assert count(CONVERSATIONS) == expected
    assert [count([turns])[0] for turns in CONVERSATIONS] == expected, "alone or together"
    assert count([]) == []
    text = "user\nab" + "\n" + "assistant\nc" + "\n"
    assert expected[0] == len(text) + 4, "the tiny tokenizer has bytes and ChatML marks"


def test_truncation_and_padding_of_a_tokenizer_are_ignored(tiny_model: Path, tmp_path: Path) -> None:
    """Some models on the hub have both in their tokenizer.json."""
    tokenizer = AutoTokenizer.from_pretrained(find_model(tiny_model))
    tokenizer.backend_tokenizer.enable_truncation(8)
    tokenizer.backend_tokenizer.enable_padding(length=6)
    manifest = tmp_path / "manifest.json"
    tokenizer.save_pretrained(find_model(manifest))
    saved = (find_model(manifest) / "tokenizer.json").read_text()
    assert '"max_length": 8' in saved, "the test has a tokenizer that truncates"
    assert TokenCounter(manifest).count(CONVERSATIONS) == TokenCounter(tiny_model).count(CONVERSATIONS)


@settings(max_examples=200)
@given(
    st.lists(
        st.text(st.sampled_from("ab \n\t\r\x0b\x0c\x1c<|>") | st.characters(), max_size=30), min_size=1, max_size=3
    )
)
def test_bounds_without_counting_hold(tiny_model: Path, texts: list[str]) -> None:
    counter = _counter(tiny_model)
    turns = [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]
    (tokens,) = counter.count([turns])
    for bound in {tokens - 1, tokens, tokens + 1, tokens // 2, tokens * 2, tokens + 30 * len(texts)}:
        assert not counter.has_at_least(turns, bound) or tokens >= bound
        assert not counter.has_at_most(turns, bound) or tokens <= bound


@cache
def _counter(model: Path) -> TokenCounter:
    """One counter for all examples, since loading a tokenizer takes a second."""
    return TokenCounter(model)


def test_bounds_far_from_the_count_need_no_counting(tiny_model: Path) -> None:
    counter = TokenCounter(tiny_model)
    answers = ("the quick brown fox jumps over the lazy dog " * 10, "x", "中")
    conversations = [_turns("u:a question", f"a:{answer}") for answer in answers]
    assert [counter.has_at_least(turns, 9) for turns in conversations] == [True, False, False]
    assert [counter.has_at_most(turns, 120) for turns in conversations] == [False, True, False]


def test_text_that_the_template_adds_at_the_beginning_counts(tiny_model: Path, tmp_path: Path) -> None:
    """Some templates start with a system prompt, here of 200 letters."""
    tokenizer = AutoTokenizer.from_pretrained(find_model(tiny_model))
    tokenizer.chat_template = "s" * 200 + tokenizer.chat_template
    manifest = tmp_path / "manifest.json"
    tokenizer.save_pretrained(find_model(manifest))
    counter, turns = TokenCounter(manifest), _turns("u:ab", "a:c")
    # One token for each byte, and two marks for each turn.
    assert counter.count([turns]) == [tokens := 200 + len("user\nab\n") + len("assistant\nc\n") + 4]
    assert not counter.has_at_most(turns, tokens - 1)
    assert counter.has_at_most(turns, 2 * tokens)
