"""Section `expectations`: what training should change, written down before it starts."""

from typing import Literal, Self, TypedDict

from pydantic import ConfigDict, Field, model_validator

from scripts.common.config.section import Name, Section

Expected = Literal["improves", "holds"]


class ExpectedChange(TypedDict):
    """What is expected of one score of a model, against a baseline. `margin` is the drop that `holds` tolerates."""

    model: str
    baseline: str
    benchmark: str
    expected: Expected
    margin: float | None


class Expectation(Section):
    """What a stage should change. Every key except `of` and `against` is a score (a benchmark, or a data set with
    held-out rows), with `improves` or `holds`: `sft: {chain_sum: improves, mmlu: holds}`. `holds` means that the score
    does not drop by more than the `margin` of its benchmark. Expectations are registered before any stage trains, and
    are tested by themselves. All other comparisons of the run are then exploratory.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[Name, Expected]

    of: Name | None = Field(
        None, description="Stage that should change the scores. Null: the stage with the name of this entry."
    )
    against: Name | None = Field(
        None, description="Model that the stage is compared with: `base` or another stage. Null: the stage's parent."
    )

    @property
    def scores(self) -> dict[str, Expected]:
        """What is expected of each score."""
        return dict(self.__pydantic_extra__)

    @model_validator(mode="after")
    def expects_something(self) -> Self:
        if not self.scores:
            raise ValueError("it expects nothing; add a score with 'improves' or 'holds'")
        return self
