"""Scores with their items, for paired comparisons."""

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import read_json, read_json_lines
from scripts.common.records import BenchmarkItem, Contribution, Origin, Score


@dataclass(frozen=True)
class ItemScores:
    """A model's score on a benchmark with its file, and the score of each item by key.

    `unreadable` has the keys of answers in which the benchmark's filter found nothing; None without such a filter.
    """

    path: Path
    score: Score
    items: dict[str, float]
    unreadable: frozenset[str] | None = None

    @property
    def name(self) -> tuple[str, str]:
        """Model and benchmark."""
        return self.score["model"], self.score["benchmark"]


def read_scores(scores: list[Path], items: list[Path], models: Collection[str] | None = None) -> list[ItemScores]:
    """Read the scores of some models, or of all, with their items. Both lists of files have the same order.

    Raises:
        UserError: the lists differ in length.
    """
    if len(scores) != len(items):
        raise UserError(f"--scores has {len(scores)} files, and --items has {len(items)}; give the items of each score")
    read: list[tuple[Path, Score, Path]] = [(path, read_json(path), of) for path, of in zip(scores, items, strict=True)]
    return [
        read_item_scores(path, score, read_json_lines(of))
        for path, score, of in read
        if models is None or score["model"] in models
    ]


def read_item_scores(path: Path, score: Score, items: list[BenchmarkItem]) -> ItemScores:
    """The score of each item by key, and which answers could not be read."""
    numbered = number_items(items)
    scores = {key: item["score"] for key, item in numbered.items()}
    if not any("is_readable" in item for item in items):
        return ItemScores(path, score, scores)
    return ItemScores(path, score, scores, frozenset(key for key, item in numbered.items() if not item["is_readable"]))


def number_items(items: list[BenchmarkItem]) -> dict[str, BenchmarkItem]:
    """Items by key. Repeated keys, such as those of equal rows, are numbered: `x`, `x (2)`."""
    numbered: dict[str, BenchmarkItem] = {}
    seen: Counter[str] = Counter()
    for item in items:
        seen[item["key"]] += 1
        again = seen[item["key"]]
        numbered[item["key"] if again == 1 else f"{item['key']} ({again})"] = item
    return numbered


def split_difference(baseline: ItemScores, model: ItemScores) -> Origin | None:
    """Where the mean difference comes from, by the baseline's answers; None if it is not known which could be read."""
    if baseline.unreadable is None:
        return None
    kinds: dict[str, list[float]] = {"unreadable": [], "wrong": [], "right": []}
    for key, before in baseline.items.items():
        kind = "unreadable" if key in baseline.unreadable else "right" if before == 1 else "wrong"
        kinds[kind].append(model.items[key] - before)
    unreadable, wrong, right = (
        Contribution(items=len(changes), difference=math.fsum(changes) / len(baseline.items))
        for changes in kinds.values()
    )
    return {"unreadable": unreadable, "wrong": wrong, "right": right}


def require_same(baseline: ItemScores, model: ItemScores) -> None:
    """Raise UserError unless both models were scored on the same items under the same protocol."""
    name, benchmark = model.name
    where = f"{name} against {baseline.score['model']} on {benchmark}"
    if baseline.score["protocol"] != model.score["protocol"]:
        raise UserError(f"{where}: scored under different protocols; run both again")
    if baseline.items.keys() != model.items.keys():
        raise UserError(f"{where}: scored on different items; run both again")
