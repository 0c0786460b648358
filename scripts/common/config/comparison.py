"""Section `comparison`: how models are compared and graded."""

from typing import TypedDict

from pydantic import Field, field_validator

from scripts.common.config.section import Name, Section


class SeedGroup(TypedDict):
    """Stages that differ only in their seeds. `pairs` has (baseline, model) for each seed."""

    baseline: str
    stage: str
    pairs: list[tuple[str, str]]


class Comparison(Section):
    """How models are compared, and how their abilities are graded."""

    alpha: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Significance level of the verdicts after Holm's correction. Intervals of differences are at "
        "1 - alpha.",
    )
    changed_share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Share of the items whose score changes between two models. `snakemake plan` assumes it to "
        "estimate what the expectations can show.",
    )
    grades: dict[Name, float] = Field(
        {"weak": 0.0, "fair": 0.4, "good": 0.6, "strong": 0.8},
        description="Grades of the abilities, each with the lowest mean score (0 to 1) that earns it.",
    )

    @field_validator("grades")
    @classmethod
    def are_in_order(cls, grades: dict[str, float]) -> dict[str, float]:
        ordered = dict(sorted(grades.items(), key=lambda grade: grade[1]))
        if min(grades.values(), default=1) != 0 or len(set(grades.values())) < len(grades):
            raise ValueError("one grade must start at 0, and no two grades may start at the same score")
        return ordered
