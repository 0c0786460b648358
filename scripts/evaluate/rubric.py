"""Rubrics: points that an answer must meet, each decided by a rule or, where no rule can, by a judge."""

import re
from collections.abc import Mapping, Sequence

from scripts.common.errors import UserError

Point = Mapping[str, str | None]
"""`point` in words, and `must` or `must_not`: a pattern that the answer must, or must not, hold. A judge decides where
neither is there."""


def meets(point: Point, answer: str) -> bool | None:
    """Whether an answer meets a point; None where no rule decides. No answer meets none."""
    if point.get("must"):
        return bool(answer.strip()) and _find(str(point["must"]), answer)
    if point.get("must_not"):
        return bool(answer.strip()) and not _find(str(point["must_not"]), answer)
    return None


def score_by_rules(rubric: Sequence[Point], answer: str) -> float:
    """The share of the points that a rule decides, and that the answer meets."""
    decided = [met for met in (meets(point, answer) for point in rubric) if met is not None]
    if not decided:
        raise UserError("a rubric has no point that a rule decides; give one of them `must` or `must_not`")
    return sum(decided) / len(decided)


def _find(pattern: str, answer: str) -> bool:
    return re.search(pattern, answer.strip().replace("’", "'"), re.IGNORECASE) is not None
