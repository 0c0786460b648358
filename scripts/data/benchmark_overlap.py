"""Find benchmark questions and answers inside training rows, and show where.

The rule, for each text of a benchmark's item (its question, its worked answer):

- A text of 13 words or more: 13-word sequences that it shares with the row mark words of it as covered; the row holds
  the text when at least half of the text's words are covered. One shared phrase is not enough, and a changed word here
  and there does not hide it.
- A text of 8 to 12 words: the row holds it when all its words stand in the row in one piece.
- A shorter text (or one of less than 25 letters): only when the whole prompt of the row is that text.

Words are compared as `texts.split_words` makes them: without case and punctuation.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scripts.common.files import read_json_lines
from scripts.data.texts import Hashes, digest, hash_words, normalise, roll, split_words

SEQUENCE = 13
"""Words of a sequence that counts as the same text."""

SHORTEST = 8
"""Words of the shortest text that is looked for inside other text."""

LETTERS = 25
"""Letters of that text: where each character is a word, eight of them say little."""

SHARE = 0.5
"""Share of a text's words that must be covered."""

SPAN = 300
"""Characters that are kept of a matching span."""

_BITS = 22


@dataclass(frozen=True)
class Hit:
    """A benchmark's text found in a row: the item's number, the share of its words, and the longest matching span."""

    benchmark: str
    item: int
    share: float
    span: str


@dataclass(frozen=True)
class _Text:
    benchmark: str
    item: int
    words: list[str]


class OverlapIndex:
    """What the benchmarks ask and answer, ready to be looked for.

    Args:
        questions: the items of each benchmark in order; `texts` of each item are its question and answers.
    """

    def __init__(self, questions: dict[str, list[dict[str, Any]]]) -> None:
        given = [
            (benchmark, number, text)
            for benchmark, items in questions.items()
            for number, item in enumerate(items)
            for text in (item["texts"] or [item["question"]])
        ]
        split = split_words(normalise([text for _, _, text in given]))
        self._prompts: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
        self._texts: list[_Text] = []
        sizes: list[int] = []
        for (benchmark, item, _), words in zip(given, split.to_pylist(), strict=True):
            if len(words) < SHORTEST or sum(map(len, words)) < LETTERS:
                self._prompts[digest(" ".join(words))].append((benchmark, item))
            else:
                self._texts.append(_Text(benchmark, item, words))
                sizes.append(min(len(words), SEQUENCE))
        self._sizes = sorted(set(sizes))
        hashes, offsets = hash_words(pa.array([text.words for text in self._texts], pa.list_(pa.string())))
        rolled = [
            roll(hashes[begin:end], [size])[size]
            for size, begin, end in zip(sizes, offsets[:-1], offsets[1:], strict=True)
        ]
        keys = np.concatenate([*rolled, np.empty(0, np.uint64)])
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        counts = [len(sequences) for sequences in rolled]
        self._text_of = np.repeat(np.arange(len(rolled)), counts)[order]
        self._place_of = np.concatenate([*map(np.arange, counts), np.empty(0, np.int64)]).astype(np.int64)[order]
        # Nearly all sequences of a row are in no benchmark: a small table says so of most of them at once.
        self._table = np.zeros(1 << _BITS, bool)
        self._table[self._keys >> np.uint64(64 - _BITS)] = True

    @classmethod
    def read(cls, paths: list[Path]) -> "OverlapIndex":
        """The index of the benchmarks whose `questions.jsonl` are given; each stands in a folder of its name."""
        return cls({path.parent.name: read_json_lines(path) for path in paths})

    def find(self, words: list[list[pa.ListScalar]], hashes: list[Hashes], prompts: list[str]) -> list[list[Hit]]:
        """What each row holds of the benchmarks.

        Args:
            words: the words of each row's turns.
            hashes: the hashes of all words of each row.
            prompts: each row's prompt, normalised.
        """
        found: list[dict[int, set[int]]] = [{} for _ in words]
        said: dict[int, list[str]] = {}
        flat = np.concatenate([*hashes, np.empty(0, np.uint64)])
        ends = np.cumsum([len(row) for row in hashes])
        for size, keys in roll(flat, self._sizes).items():
            candidates = np.flatnonzero(self._table[keys >> np.uint64(64 - _BITS)])
            first = np.searchsorted(self._keys, keys[candidates], side="left")
            last = np.searchsorted(self._keys, keys[candidates], side="right")
            hits = candidates[first < last]
            for place, row in zip(hits.tolist(), np.searchsorted(ends, hits, side="right").tolist(), strict=True):
                begin = place - int(ends[row] - len(hashes[row]))
                if row not in said:
                    said[row] = [word for turn in words[row] for word in turn.as_py()]
                self._cover(found[row], said[row][begin : begin + size], int(keys[place]))
        asked = pc.binary_join(split_words(prompts), " ").to_pylist() if self._prompts else [""] * len(prompts)
        return [
            self._describe(covered, self._prompts.get(digest(prompt), []))
            for covered, prompt in zip(found, asked, strict=True)
        ]

    def _cover(self, covered: dict[int, set[int]], sequence: list[str], key: int) -> None:
        """Mark the words of each text that this sequence is part of. The words decide, since hashes may collide."""
        first, last = (
            np.searchsorted(self._keys, np.uint64(key), "left"),
            np.searchsorted(self._keys, np.uint64(key), "right"),
        )
        for number, place in zip(self._text_of[first:last].tolist(), self._place_of[first:last].tolist(), strict=True):
            text = self._texts[number]
            if min(len(text.words), SEQUENCE) == len(sequence) and (
                text.words[place : place + len(sequence)] == sequence
            ):
                covered.setdefault(number, set()).update(range(place, place + len(sequence)))

    def _describe(self, covered: dict[int, set[int]], asked: list[tuple[str, int]]) -> list[Hit]:
        """The items that are held, each with the text of it that is covered most, worst first."""
        best: dict[tuple[str, int], Hit] = {
            (benchmark, item): Hit(benchmark, item, 1.0, "(the whole prompt)") for benchmark, item in asked
        }
        for number, places in covered.items():
            text = self._texts[number]
            share = len(places) / len(text.words)
            known = best.get((text.benchmark, text.item))
            if share >= SHARE and (known is None or share > known.share):
                span = _longest_run(text.words, places)
                best[text.benchmark, text.item] = Hit(text.benchmark, text.item, round(share, 4), span)
        return sorted(best.values(), key=lambda hit: (-hit.share, hit.benchmark, hit.item))


def _longest_run(words: list[str], places: set[int]) -> str:
    """The longest piece of neighbouring covered words."""
    runs: list[list[int]] = []
    for place in sorted(places):
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    longest = max(runs, key=len)
    return " ".join(words[longest[0] : longest[-1] + 1])[:SPAN]
