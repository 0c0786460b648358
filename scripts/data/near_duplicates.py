"""Near duplicates by MinHash and locality-sensitive hashing.

If the sets of 5-word sequences of two rows have the Jaccard similarity s, each number of their signatures agrees with
probability s. Signatures are divided into bands. Rows that agree in a complete band are candidates, and are near
duplicates if the share of all numbers that agree reaches the threshold. Rows that are linked in this way, directly or
through others, form a group, and only the first row of a group is kept.

MinHash: Broder, "On the resemblance and containment of documents", 1997. Bands: Leskovec, Rajaraman and Ullman, "Mining
of Massive Datasets", chapter 3.
"""

import mmap
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scripts.data.funnel import first_of_each

Signatures = NDArray[np.uint32]

MARGIN = 0.05
"""Distance below the threshold at which the bands still find at least half of the pairs."""

NEIGHBOURS = 32
"""Preceding rows of its bucket that a row is compared with, besides the first row of the bucket."""

PART = 1_000_000
"""Rows whose keys are sorted at once."""

CHUNK = 100_000
"""Rows or pairs whose signatures are held in memory at once."""


def choose_bands(threshold: float, permutations: int) -> int:
    """The smallest number of bands that finds half of the pairs slightly below the threshold.

    Two rows of similarity s share at least one of b bands of r numbers with probability 1 - (1 - s^r)^b, which is about
    one half at s = (1 / b)^(1 / r).
    """
    bands = 1
    while bands < permutations:
        if (1 / bands) ** (bands / permutations) <= threshold - MARGIN:
            break
        bands *= 2
    return bands


def find_near_duplicates(signatures: Signatures, rows: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """For each of `rows`, the first row of its group: the row itself if it has no earlier near duplicate.

    Args:
        signatures: shape (all rows, permutations). May be memory-mapped: it is read one band or a few rows at a time.
        rows: the rows to compare, as ascending indices into `signatures`.
        threshold: smallest similarity of near duplicates, as estimated from the signatures.

    Returns:
        Shape (rows,): indices into `signatures`.
    """
    permutations = signatures.shape[1]
    bands = choose_bands(threshold, permutations)
    width = permutations // bands
    first = np.arange(len(rows))
    links: list[NDArray[np.int64]] = []
    for band in range(bands):
        keys = _band_keys(signatures, rows, band * width, width)
        parts = max(1, len(rows) // PART)
        for part in range(parts):
            places = np.flatnonzero(keys % np.uint64(parts) == part)
            for candidates in _candidates(keys[places]):
                pairs = places[candidates]
                links.append(pairs[:, _similar(signatures, rows[pairs], threshold)])
                if sum(found.shape[1] for found in links) > PART:
                    first, links = _link(first, links), []
    return rows[_link(first, links)]


def _candidates(keys: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Pairs of places (2, n) with equal keys: each place with the first of its key, and with NEIGHBOURS before it."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    same = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    starts = np.ones(len(order), bool)
    starts[same] = False
    first = np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
    yield order[np.stack([first[same], same])]
    for distance in range(1, NEIGHBOURS + 1):
        # Places of one key are consecutive, so the distance from the first shows how many precede a place.
        same = same[same - first[same] > distance]
        if not len(same):
            return
        yield order[np.stack([same - distance, same])]


def _link(first: NDArray[np.int64], links: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Merge linked groups, and return the first row of each row's group.

    Args:
        first: shape (rows,): the first row of each row's group so far.
        links: pairs of rows, each of shape (2, n).
    """
    later = np.flatnonzero(first != np.arange(len(first)))
    left, right = np.concatenate([np.stack([first[later], later]), *links], axis=1)
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(first), len(first)))
    _, groups = connected_components(graph, directed=False)
    return first_of_each(groups.astype(np.int64))


def _band_keys(signatures: Signatures, rows: NDArray[np.int64], begin: int, width: int) -> NDArray[np.uint64]:
    """A hash of each row's numbers in a band."""
    keys = np.zeros(len(rows), np.uint64)
    for start in range(0, len(rows), CHUNK):
        part = signatures[rows[start : start + CHUNK], begin : begin + width].astype(np.uint64)
        _release(signatures)
        for column in part.T:
            keys[start : start + CHUNK] = keys[start : start + CHUNK] * np.uint64(0x9E3779B97F4A7C15) + column
            keys[start : start + CHUNK] ^= keys[start : start + CHUNK] >> np.uint64(29)
    return keys


def _similar(signatures: Signatures, pairs: NDArray[np.int64], threshold: float) -> NDArray[np.bool_]:
    """Whether the signatures of each pair (2, n) agree in a share of at least `threshold` of their numbers."""
    similar = np.zeros(pairs.shape[1], bool)
    for start in range(0, pairs.shape[1], CHUNK):
        left, right = pairs[:, start : start + CHUNK]
        similar[start : start + CHUNK] = (signatures[left] == signatures[right]).mean(axis=1) >= threshold
        _release(signatures)
    return similar


def _release(signatures: Signatures) -> None:
    """Release the pages of a memory-mapped file that were read."""
    if isinstance(signatures, np.memmap):
        signatures._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
