"""Find benchmark questions and answers in training rows, and record where they are.

Each text of a benchmark item (the question, the worked answer) is compared with each row by this rule:

- 13 words or more: every 13-word sequence that occurs in both covers its words. The row contains the text if at least
  half of the text's words are covered. So one shared phrase is not a match, and a few changed words do not hide one.
- 8 to 12 words: the row contains the text if all its words occur in the row as one contiguous span.
- Fewer words, or fewer than 25 letters: the row contains the text only if it is the row's complete prompt.

Words are those of `texts.split_words`, without case and punctuation.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scripts.common.files import read_json_lines
from scripts.common.records import Question
from scripts.data.texts import Hashes, digest, hash_words, normalise, roll, split_words

SEQUENCE = 13
"""Words in a sequence that counts as shared text."""

SHORTEST = 8
"""Words in the shortest text that is searched for inside other text."""

LETTERS = 25
"""Letters in the shortest such text: in scripts with one word per character, eight words carry little content."""

SHARE = 0.5
"""Share of a text's words that must be covered for a match."""

SPAN = 300
"""Characters of a matching span that are recorded."""

_BITS = 22


@dataclass(frozen=True)
class Hit:
    """A benchmark text found in a row: item number, share of its words covered, and longest matching span."""

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
    """A search index over the questions and answers of the benchmarks.

    Args:
        questions: the items of each benchmark, in order. The `texts` of an item are its question and its answers.
    """

    def __init__(self, questions: dict[str, list[Question]]) -> None:
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
        # Almost no sequence of a row is in any benchmark, and a small table rules most of them out quickly.
        self._table = np.zeros(1 << _BITS, bool)
        self._table[self._keys >> np.uint64(64 - _BITS)] = True

    @classmethod
    def read(cls, paths: dict[str, Path]) -> "OverlapIndex":
        """Build the index from the question files (JSON lines), given by benchmark name."""
        return cls({benchmark: read_json_lines(path) for benchmark, path in paths.items()})

    def find(self, words: list[list[pa.ListScalar]], hashes: list[Hashes], prompts: list[str]) -> list[list[Hit]]:
        """Find the benchmark texts in each row.

        Args:
            words: for each row, the words of its turns.
            hashes: for each row, the hashes of all its words.
            prompts: for each row, its normalised prompt.
        """
        found: list[dict[int, set[int]]] = [{} for _ in words]
        row_words: dict[int, list[str]] = {}
        flat = np.concatenate([*hashes, np.empty(0, np.uint64)])
        ends = np.cumsum([len(row) for row in hashes])
        for size, keys in roll(flat, self._sizes).items():
            candidates = np.flatnonzero(self._table[keys >> np.uint64(64 - _BITS)])
            first = np.searchsorted(self._keys, keys[candidates], side="left")
            last = np.searchsorted(self._keys, keys[candidates], side="right")
            hits = candidates[first < last]
            for place, row in zip(hits.tolist(), np.searchsorted(ends, hits, side="right").tolist(), strict=True):
                begin = place - int(ends[row] - len(hashes[row]))
                if row not in row_words:
                    row_words[row] = [word for turn in words[row] for word in turn.as_py()]
                self._cover(found[row], row_words[row][begin : begin + size], int(keys[place]))
        asked = pc.binary_join(split_words(prompts), " ").to_pylist() if self._prompts else [""] * len(prompts)
        return [
            self._describe(covered, self._prompts.get(digest(prompt), []))
            for covered, prompt in zip(found, asked, strict=True)
        ]

    def _cover(self, covered: dict[int, set[int]], sequence: list[str], key: int) -> None:
        """Mark this sequence as covered in each text that contains it. Words are compared, since hashes may collide."""
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
        """The items that the row contains, each with its most covered text, highest share first."""
        best: dict[tuple[str, int], Hit] = {
            (benchmark, item): Hit(benchmark, item, 1.0, "(the complete prompt)") for benchmark, item in asked
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
    """The longest span of adjacent covered words."""
    runs: list[list[int]] = []
    for place in sorted(places):
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    longest = max(runs, key=len)
    return " ".join(words[longest[0] : longest[-1] + 1])[:SPAN]
