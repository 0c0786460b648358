"""Normalise texts for comparison, split them into words, and hash the words, one column at a time."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_BASE = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that multiplying by it loses nothing modulo 2^64."""

_BREAKS = r"[\t-\r\x1c-\x1f\x{85}\x{1680}\x{2028}\x{2029}]"
"""White space of all scripts that remains after NFKC, except the plain space."""

_OPERATOR = r"[+*/=<>^\-]"
_CJK = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Khmer}\p{Lao}\p{Myanmar}])"


def normalise(texts: list[str]) -> list[str]:
    """Texts in the form that is compared: Unicode form NFKC, lower case, single spaces.

    >>> normalise(["  Two\\n ＷＯＲＤＳ "])
    ['two words']
    """
    lower = pc.utf8_lower(pc.utf8_normalize(pa.array(texts, pa.string()), form="NFKC"))
    spaced = pc.replace_substring_regex(pc.replace_substring_regex(lower, _BREAKS, " "), " {2,}", " ")
    return list(pc.utf8_trim_whitespace(spaced).to_pylist())


def split_words(normal: list[str]) -> pa.ListArray:
    """The words of normalised texts: runs of letters and digits, without punctuation.

    An operator before a number is part of its word, since 4 + 3 and 4 - 3 are different problems. In scripts written
    without spaces, each character is a word.
    """
    texts = pa.array(normal, pa.string())
    texts = pc.replace_substring_regex(texts, rf"({_OPERATOR})\s*(\p{{N}})", r" \1\2")
    texts = pc.replace_substring_regex(texts, r"[^\p{L}\p{M}\p{N}+*/=<>^\- ]+", " ")
    texts = pc.replace_substring_regex(texts, rf"{_OPERATOR}+([^\p{{N}}+*/=<>^\-]|$)", r" \1")
    if not pc.all(pc.string_is_ascii(texts), min_count=0).as_py():
        texts = pc.replace_substring_regex(texts, _CJK, r" \1 ")
    return pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts))


def hash_words(words: pa.ListArray) -> tuple[Hashes, NDArray[np.int64]]:
    """A 64-bit hash of every word, and the offset of each text's first word, followed by the end.

    A text without words has one empty word.
    """
    encoded = pc.dictionary_encode(words.flatten())
    known = np.array([xxhash.xxh3_64_intdigest(word.encode()) for word in encoded.dictionary.to_pylist()], np.uint64)
    offsets = np.asarray(words.offsets, np.int64)
    return known[np.asarray(encoded.indices)], offsets - offsets[0]


def roll(hashes: Hashes, sizes: list[int]) -> dict[int, Hashes]:
    """Hashes of all sequences of `size` words, for each size. Entry i is the hash of the `size` words from i on.

    The array for n words has max(0, n - size + 1) entries.
    """
    rolled: dict[int, Hashes] = {}
    current = hashes.copy()
    for size in range(1, max(sizes, default=0) + 1):
        if size > 1:
            current = current[:-1] * _BASE + hashes[size - 1 :]
        if size in sizes:
            rolled[size] = current
        if not len(current):
            rolled |= {larger: current for larger in sizes if larger > size}
            break
    return rolled


def digest(text: str) -> bytes:
    """A 128-bit hash of a text."""
    return xxhash.xxh3_128_digest(text.encode())
