"""Comparison of texts ignores case, spaces, punctuation and variants of letters."""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.data.texts import Hashes, digest, hash_words, normalise, roll, split_words

SPACES = " \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000"


def _words(text: str) -> list[str]:
    (words,) = split_words(normalise([text])).to_pylist()
    return list(words)


@given(st.lists(st.text("aBÉéßÄ中ＷＯ０９ﬁ²Ⅳ.,'" + SPACES)))
def test_normalise_agrees_with_python(texts: list[str]) -> None:
    expected = [" ".join(unicodedata.normalize("NFKC", text).lower().split()) for text in texts]
    assert normalise(texts) == expected


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    (normal,) = normalise([text])
    assert normalise([normal]) == [normal]


def test_normalise_nothing() -> None:
    assert normalise([]) == []
    assert normalise(["", " \n\u3000"]) == ["", ""]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What's the time, Mr. Wolf?", ["what", "s", "the", "time", "mr", "wolf"]),
        ("a well-known - and proven -- rule", ["a", "well", "known", "and", "proven", "rule"]),
        ("co-op/1st", ["co", "op", "/1st"]),
        ("`f(x)`: **bold** <b>tag</b> a_b", ["f", "x", "bold", "b", "tag", "b", "a", "b"]),
        ("costs $1,000.50 (50%)", ["costs", "1", "000", "50", "50"]),
        ("😀 hi 🎉", ["hi"]),
        ("Ｔｗｏ\u2028ＷＯＲＤＳ\xa0ﬁne", ["two", "words", "fine"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("<|im_start|>user", ["im", "start", "user"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert _words(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("4 + 3", ["4", "+3"]),
        ("4 - 3", ["4", "-3"]),
        ("4-3=1", ["4", "-3", "=1"]),
        ("-3", ["-3"]),
        ("x -3", ["x", "-3"]),
        ("2^10 * 5 / 7", ["2", "^10", "*5", "/7"]),
        ("5*x + y", ["5", "x", "y"]),
        ("a < b > c", ["a", "b", "c"]),
    ],
)
def test_an_operator_before_a_number_is_part_of_it(text: str, words: list[str]) -> None:
    assert _words(text) == words


def test_sums_that_differ_in_an_operator_or_a_number_differ() -> None:
    sums = ["4 + 3", "4 - 3", "4 * 3", "4 / 3", "4 ^ 3", "4 = 3", "4 + 13"]
    assert len({tuple(_words(text)) for text in sums}) == len(sums)
    assert _words("4 +3") == _words("4+ 3") == _words("4+3"), "spaces do not matter"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("你好，世界！", ["你", "好", "世", "界"]),
        ("共有3个苹果", ["共", "有", "3", "个", "苹", "果"]),
        ("これはテスト", ["こ", "れ", "は", "テ", "ス", "ト"]),
        ("我用Python写code", ["我", "用", "python", "写", "code"]),
        ("한국어 문장", ["한국어", "문장"]),
    ],
)
def test_scripts_without_spaces_have_one_word_per_character(text: str, words: list[str]) -> None:
    assert _words(text) == words


def test_thai_is_split_without_spaces() -> None:
    thai = "ภาษาไทย"
    assert "".join(_words(thai)) == thai and len(_words(thai)) == len(thai)
    assert _words(f"x{thai}y") == ["x", *thai, "y"]


@pytest.mark.parametrize("text", ["", "   ", "...", "+ + -", "😀🎉", "—"])
def test_a_text_without_words_has_one_empty_word(text: str) -> None:
    assert _words(text) == [""]


@given(st.lists(st.text("abcxyzéж7", min_size=1), min_size=1), st.data())
def test_case_and_punctuation_between_words_do_not_matter(words: list[str], data: st.DataObject) -> None:
    """Operators are left out: before a number they are part of a word."""
    between = st.text(".,;:!?'\"()[]{}`#&%$@~|\\_…“”—" + SPACES, min_size=1)
    text = "".join(data.draw(st.sampled_from([word, word.upper()])) + data.draw(between) for word in words)
    assert _words(text) == words


@settings(max_examples=40)
@given(st.lists(st.text("ab +-3.中\u0e01é", max_size=12), max_size=6))
def test_each_text_is_split_independently(texts: list[str]) -> None:
    """Columns with non-ASCII text take another code path than pure ASCII columns."""
    together = split_words(normalise(texts)).to_pylist()
    assert together == [_words(text) for text in texts]


def _hash(word: str) -> int:
    return xxhash.xxh3_64_intdigest(word.encode())


@given(st.lists(st.lists(st.sampled_from(["a", "b", "long word", "中", ""]), max_size=6), max_size=6), st.booleans())
def test_hash_words_hashes_every_word_in_its_place(texts: list[list[str]], sliced: bool) -> None:
    words = pa.array([["before"], *texts] if sliced else texts, pa.list_(pa.string()))[int(sliced) :]
    hashes, offsets = hash_words(words)
    assert hashes.dtype == np.uint64
    assert offsets.tolist() == np.cumsum([0, *map(len, texts)]).tolist()
    assert hashes.tolist() == [_hash(word) for words in texts for word in words]


BASE = 0x9E3779B97F4A7C15


def _roll_slowly(hashes: list[int], size: int) -> list[int]:
    """The polynomial of each sequence, in Python integers."""
    return [
        sum(value * BASE ** (size - 1 - place) for place, value in enumerate(hashes[i : i + size])) % 2**64
        for i in range(len(hashes) - size + 1)
    ]


@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=20),
    st.lists(st.integers(1, 13), unique=True, max_size=5),
)
def test_roll_agrees_with_python_integers(hashes: list[int], sizes: list[int]) -> None:
    given_hashes: Hashes = np.array(hashes, np.uint64)
    before = given_hashes.copy()
    rolled = roll(given_hashes, sizes)
    assert {size: values.tolist() for size, values in rolled.items()} == {
        size: _roll_slowly(hashes, size) for size in sizes
    }
    assert (given_hashes == before).all(), "the argument is not changed"


def test_sequences_in_another_order_have_other_hashes() -> None:
    one, two = (np.array([_hash(word) for word in words], np.uint64) for words in ("abc", "acb"))
    assert roll(one, [3])[3].tolist() != roll(two, [3])[3].tolist()


def test_digest_is_128_bits_of_the_text() -> None:
    assert digest("a") == digest("a") != digest("b")
    assert [len(digest(text)) for text in ("", "a", "中" * 1000)] == [16, 16, 16]
