"""Scores of two models on the same items."""

from pathlib import Path

import numpy as np

from scripts.evaluate.paired_scores import ItemScores
from scripts.evaluate.paired_statistics import Values
from tests.report.tables import change, make_score


def make_pairs(both: int, lost: int, gained: int, neither: int) -> tuple[Values, Values]:
    """Scores before and after, from the numbers of items that were right both times, only before, only after, never."""
    before = [1.0] * (both + lost) + [0.0] * (gained + neither)
    after = [1.0] * both + [0.0] * lost + [1.0] * gained + [0.0] * neither
    return np.array(before), np.array(after)


def make_item_scores(model: str, items: dict[str, float], protocol: str = "five shots") -> ItemScores:
    """A model's scores of some items of benchmark `b`."""
    score = change(make_score(model, "b", "acc", 0.5), protocol={"prompt": protocol})
    return ItemScores(Path(f"{model}.json"), score, items)
