"""Rubrics: lists of points that an answer should meet. A rule or a judge decides each point."""

import re
from collections.abc import Sequence
from typing import NotRequired, TypedDict

from scripts.common.errors import UserError


class Point(TypedDict):
    """A point in words, and a pattern that the answer must or must not match. A judge decides points without one.

    Parquet stores a missing pattern as null.
    """

    point: str
    must: NotRequired[str | None]
    must_not: NotRequired[str | None]


class RubricQuestion(TypedDict):
    """A question of a benchmark with its rubric."""

    prompt: str
    rubric: list[Point]


def meets(point: Point, answer: str) -> bool | None:
    """Whether an answer meets a point by its rule; None without a rule. An empty answer meets no point."""
    if must := point.get("must"):
        return bool(answer.strip()) and _find(must, answer)
    if must_not := point.get("must_not"):
        return bool(answer.strip()) and not _find(must_not, answer)
    return None


def score_by_rules(rubric: Sequence[Point], answer: str) -> float:
    """The share of points that the answer meets, among the points with a rule. Raises UserError if there is none."""
    decided = [met for met in (meets(point, answer) for point in rubric) if met is not None]
    if not decided:
        raise UserError("a rubric has no point with a rule; give one of them `must` or `must_not`")
    return sum(decided) / len(decided)


def _find(pattern: str, answer: str) -> bool:
    return re.search(pattern, answer.strip().replace("’", "'"), re.IGNORECASE) is not None
