"""Near duplicates found by MinHash, compared with the exact similarity."""

import random
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.data.filters import Candidate
from scripts.data.inspect_rows import PERMUTATIONS, sign
from scripts.data.near_duplicates import MARGIN, choose_bands, find_near_duplicates

Signatures = NDArray[np.uint32]
Rows = NDArray[np.int64]

WORDS = 120


def _candidate(words: list[str]) -> Candidate:
    """A row with exactly these words."""
    turns = [{"role": "user", "content": words[0]}, {"role": "assistant", "content": " ".join(words[1:])}]
    return Candidate({"source_index": 0, "messages": turns})


def _sign(texts: list[list[str]]) -> Signatures:
    return sign([_candidate(words) for words in texts])


def _jaccard(one: list[str], other: list[str]) -> float:
    """Exact similarity of the sets of 5-word sequences."""
    sets = [{tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))} for words in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def _all(signatures: Signatures) -> Rows:
    return np.arange(len(signatures))


def _text(rng: random.Random, size: int = WORDS) -> list[str]:
    return [f"w{rng.randrange(10**6)}" for _ in range(size)]


def _pairs(seed: int, number: int) -> list[tuple[list[str], list[str]]]:
    """Texts and copies with a few words changed, over a range of similarities."""
    rng = random.Random(seed)
    pairs = []
    for _ in range(number):
        text = _text(rng)
        copy = list(text)
        for place in rng.sample(range(WORDS), rng.randrange(0, 18)):
            copy[place] = "changed" + text[place]
        pairs.append((text, copy))
    return pairs


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_pairs_are_found_by_their_similarity(threshold: float) -> None:
    """The texts of different pairs share nothing, so each group is one pair at most.

    The standard error of the estimate is 0.044 or less, so 0.15 below the threshold is more than three of them.
    """
    pairs = _pairs(seed=1, number=600)
    similarities = np.array([_jaccard(*pair) for pair in pairs])
    signatures = _sign([text for pair in pairs for text in pair])
    first = find_near_duplicates(signatures, _all(signatures), threshold)
    assert (first[::2] == np.arange(0, len(first), 2)).all(), "the first text of each pair is kept"
    found = first[1::2] == first[::2]
    assert (first[1::2][~found] == np.arange(1, len(first), 2)[~found]).all()

    high, low = similarities >= min(threshold + 0.1, 1), similarities <= threshold - 0.15
    assert min(high.sum(), low.sum()) >= 30, "the test has pairs on both sides of the threshold"
    print(f"{threshold}: {found[high].mean():.1%} of {high.sum()} above, {found[low].sum()} of {low.sum()} below")
    assert found[high].mean() >= 0.97
    assert not found[low].any()


def test_the_share_of_equal_numbers_estimates_the_similarity() -> None:
    pairs = _pairs(seed=2, number=300)
    signatures = _sign([text for pair in pairs for text in pair])
    assert signatures.shape == (600, PERMUTATIONS)
    errors = (signatures[::2] == signatures[1::2]).mean(axis=1) - [_jaccard(*pair) for pair in pairs]
    assert abs(errors.mean()) < 0.01, "no bias"
    assert np.sqrt((errors**2).mean()) < 0.045, "the standard error of a binomial estimate from 128 numbers"


def test_texts_that_share_nothing_are_no_duplicates() -> None:
    rng = random.Random(3)
    signatures = _sign([_text(rng, rng.randrange(1, 40)) for _ in range(2000)])
    assert (find_near_duplicates(signatures, _all(signatures), 0.5) == _all(signatures)).all()


def test_case_and_punctuation_make_no_difference() -> None:
    words = _text(random.Random(4))
    signatures = _sign([words, [f"{word.upper()}," for word in words]])
    assert find_near_duplicates(signatures, _all(signatures), 0.95).tolist() == [0, 0]


def test_short_texts_are_near_duplicates_only_if_they_are_equal() -> None:
    texts = [["a"], ["b"], ["a"], ["a", "b"], ["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "f"], ["A", "b!"]]
    signatures = _sign(texts)
    assert find_near_duplicates(signatures, _all(signatures), 0.5).tolist() == [0, 1, 0, 3, 4, 5, 3]


@pytest.mark.parametrize("part", [1_000_000, 3, 1])
def test_a_chain_is_one_group_though_its_ends_are_not_alike(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """Each text is the previous one shifted by eight words. With small parts, links are merged repeatedly."""
    monkeypatch.setattr("scripts.data.near_duplicates.PART", part)
    rng = random.Random(5)
    words = _text(rng, 132)
    chain = [words[step * 8 :][:100] for step in range(5)]
    neighbours = [_jaccard(one, other) for one, other in pairwise(chain)]
    assert min(neighbours) > 0.8 and _jaccard(chain[0], chain[4]) < 0.6
    order = [3, 0, 4, 2, 1]
    signatures = _sign([_text(rng), *(chain[place] for place in order), _text(rng)])
    found = find_near_duplicates(signatures, _all(signatures), 0.7)
    assert found.tolist() == [0, 1, 1, 1, 1, 1, 6], "the first row of the group is kept, at any place in the chain"


def test_removed_rows_are_not_compared() -> None:
    words = _text(random.Random(6))
    signatures = _sign([words, words, _text(random.Random(7)), words])
    rows = np.array([1, 2, 3])
    assert find_near_duplicates(signatures, rows, 0.8).tolist() == [1, 2, 1]


@pytest.mark.parametrize("rows", [[], [1]], ids=["none", "one"])
def test_fewer_than_two_rows_have_no_duplicates(rows: list[int]) -> None:
    signatures = _sign([["a"], ["a"]])
    assert find_near_duplicates(signatures, np.array(rows, np.int64), 0.8).tolist() == rows


def test_an_unrelated_row_between_two_copies_does_not_hide_them() -> None:
    """All three rows share the first band; only the first and the last agree in more than 0.8 of all numbers."""
    signatures = np.zeros((3, 128), np.uint32)
    signatures[1, 8:] = 1
    signatures[2, 8::8] = 2
    assert find_near_duplicates(signatures, _all(signatures), 0.8).tolist() == [0, 1, 0]


def test_an_unrelated_first_row_does_not_hide_two_copies() -> None:
    """All three rows share the first band; only the last two agree in more than 0.8 of all numbers."""
    signatures = np.zeros((3, 128), np.uint32)
    signatures[0, 8:] = 1
    signatures[2, 8::8] = 2
    assert find_near_duplicates(signatures, _all(signatures), 0.8).tolist() == [0, 1, 1]


@pytest.mark.parametrize(("strangers", "last"), [(1, 1), (2, 4)])
def test_a_row_is_compared_with_the_rows_before_it(monkeypatch: pytest.MonkeyPatch, strangers: int, last: int) -> None:
    """A bucket with an unrelated row, a row, more unrelated rows, and a copy, which is compared with two before it."""
    monkeypatch.setattr("scripts.data.near_duplicates.NEIGHBOURS", 2)
    signatures = np.zeros((strangers + 3, 128), np.uint32)
    for place in (0, *range(2, strangers + 2)):
        signatures[place, 8:] = place + 10
    signatures[-1, 8::8] = 2
    expected = [*range(strangers + 2), last]
    assert find_near_duplicates(signatures, _all(signatures), 0.8).tolist() == expected


@pytest.mark.parametrize(("different", "first"), [(32, 0), (33, 1)])
def test_a_similarity_at_the_threshold_counts(different: int, first: int) -> None:
    """96 of 128 numbers are equal, which is a share of 0.75; then 95."""
    signatures = np.zeros((2, 128), np.uint32)
    signatures[1, 128 - different :] = 1
    assert find_near_duplicates(signatures, _all(signatures), 0.75).tolist() == [0, first]


def test_links_of_earlier_bands_are_kept_when_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first three rows share only the first band, and the last two only the last. Links are merged in pairs."""
    monkeypatch.setattr("scripts.data.near_duplicates.PART", 1)
    signatures = np.zeros((5, 128), np.uint32)
    signatures[1, 8::8], signatures[2, 8::8] = 1, 2
    signatures[3:] = 100
    signatures[4, :120:8] = 101
    assert find_near_duplicates(signatures, _all(signatures), 0.8).tolist() == [0, 0, 0, 3, 3]


def test_a_turn_without_words_leaves_the_others_comparable() -> None:
    words = _text(random.Random(9))
    signatures = _sign([["😀", *words], ["😀", *words[:-1], "changed"]])
    assert find_near_duplicates(signatures, _all(signatures), 0.8).tolist() == [0, 0]


@pytest.mark.parametrize("part", [1_000_000, 7])
def test_many_copies_are_one_group(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """Also if the signatures exceed one chunk, and their keys exceed one part."""
    monkeypatch.setattr("scripts.data.near_duplicates.CHUNK", 7)
    monkeypatch.setattr("scripts.data.near_duplicates.PART", part)
    words = _text(random.Random(8))
    signatures = _sign([words if place % 2 else _text(random.Random(place + 100)) for place in range(60)])
    expected = [1 if place % 2 else place for place in range(60)]
    assert find_near_duplicates(signatures, _all(signatures), 0.8).tolist() == expected


@pytest.mark.parametrize("threshold", [0.5, 0.55, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99])
def test_bands_find_half_of_the_pairs_a_little_below_the_threshold(threshold: float) -> None:
    bands = choose_bands(threshold, PERMUTATIONS)
    assert PERMUTATIONS % bands == 0

    def chance(bands: int, similarity: float) -> float:
        return 1 - (1 - similarity ** (PERMUTATIONS // bands)) ** bands

    assert chance(bands, threshold - MARGIN) >= 0.5
    assert chance(bands, threshold) >= 0.8
    assert chance(bands, min(1.0, threshold + 0.1)) >= 0.97
    assert bands == 1 or chance(bands // 2, threshold - MARGIN) < 0.7, "no more bands than needed"


def test_bands_as_documented() -> None:
    assert (choose_bands(0.8, 128), 128 // choose_bands(0.8, 128)) == (16, 8)
