"""Scores with their items, for paired comparisons."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import read_json, read_json_lines
from scripts.common.records import Item, Score


@dataclass(frozen=True)
class ItemScores:
    """A model's score on a benchmark with its file, and the score of each item by key."""

    path: Path
    score: Score
    items: dict[str, float]

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
        ItemScores(path, score, number_items(read_json_lines(of)))
        for path, score, of in read
        if models is None or score["model"] in models
    ]


def number_items(items: list[Item]) -> dict[str, float]:
    """Score of each item by key. Repeated keys, such as those of equal rows, are numbered: `x`, `x (2)`."""
    numbered: dict[str, float] = {}
    seen: Counter[str] = Counter()
    for item in items:
        seen[item["key"]] += 1
        again = seen[item["key"]]
        numbered[item["key"] if again == 1 else f"{item['key']} ({again})"] = item["score"]
    return numbered


def require_same(baseline: ItemScores, model: ItemScores) -> None:
    """Raise UserError unless both models were scored on the same items under the same protocol."""
    name, benchmark = model.name
    where = f"{name} against {baseline.score['model']} on {benchmark}"
    if baseline.score["protocol"] != model.score["protocol"]:
        raise UserError(f"{where}: scored under different protocols; run both again")
    if baseline.items.keys() != model.items.keys():
        raise UserError(f"{where}: scored on different items; run both again")
