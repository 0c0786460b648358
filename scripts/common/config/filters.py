"""Section `datasets.<dataset>.filters`: which rows are removed."""

from typing import Literal, Self

from pydantic import Field, model_validator

from scripts.common.config.section import Name, Section, check_function, check_pattern

STEPS = ("read", "schema", "mixture", "sample")
"""Steps of the funnel that are not filters."""


class Filters(Section):
    """Filters of a data set, in the order in which they are applied. Null, false or empty: the filter is off."""

    empty: bool = Field(
        True,
        description="Remove rows with an empty turn, without a user turn, or that do not end with an answer of the "
        "assistant (GRPO prompts: with a user turn).",
    )
    roles: bool = Field(
        True,
        description="Remove rows whose turns are out of order. In order: at most one system turn, at the start; then "
        "user and assistant alternate, the user first.",
    )
    control_tokens: bool = Field(
        True, description="Remove rows that contain `<|im_start|>` or `<|im_end|>` as text, which could fake a turn."
    )
    equal_answers: bool = Field(True, description="Preference pairs: remove pairs whose two answers are the same text.")
    min_margin: float | None = Field(
        None,
        description="Preference pairs: smallest `score_chosen - score_rejected` to keep. Pairs without scores are "
        "removed.",
    )
    max_length_ratio: float | None = Field(
        None,
        ge=1,
        description="Preference pairs: largest ratio of the longer answer's length to the shorter one's, in "
        "characters.",
    )
    refusals: bool = Field(
        False,
        description="Remove rows whose answer (of a pair: the chosen one) refuses the request or says that it comes "
        "from a language model.",
    )
    patterns: dict[Name, list[str]] = Field(
        {},
        description="Your own filters as regular expressions: a name, then a list. A row is removed if any of them "
        "matches a part of its answer (of a pair: the chosen one). Case is ignored.",
    )
    max_repetition: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Largest share of an answer's 5-word sequences that may occur more than once in it. 0 allows no "
        "repetition.",
    )
    languages: list[str] = Field(
        [],
        description="Languages to keep, as two-letter codes such as `en`. The language of a row is detected in the "
        "first 250 characters of its user and assistant turns.",
    )
    functions: dict[Name, str] = Field(
        {},
        description="Your own filters as Python functions: a name, then `file.py:function`. The function receives a "
        "row. True keeps it; False, or a reason as text, removes it.",
    )
    min_tokens: int | None = Field(
        None, ge=1, description="Fewest tokens of a row with the chat template applied (of a pair: of its longer side)."
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Most tokens of a row with the chat template applied (of a pair: of its longer side)."
    )
    not_in: list[Name] = Field(
        [],
        description="Other data sets. Remove rows whose prompt, after normalisation, is also among their training "
        "rows.",
    )
    benchmark_overlap: Literal["remove", "flag", "ignore"] = Field(
        "remove",
        description="What to do with rows that contain a question or an answer of a benchmark of this run. `remove`: "
        "remove them. `flag`: keep them, and list them in the data card. `ignore`: do not search. docs/data.md "
        "explains what counts as an overlap.",
    )
    duplicates: bool = Field(True, description="Of rows with the same text after normalisation, keep only the first.")
    near_duplicates: float | None = Field(
        None,
        ge=0.5,
        lt=1,
        description="Of rows that are at least this similar, keep only the first. Similarity is the Jaccard index of "
        "their sets of 5-word sequences, estimated with MinHash.",
    )
    max_label_ratio: float | None = Field(
        None,
        ge=1,
        description="KTO rows: largest ratio of the more frequent label to the other. Surplus rows are removed at "
        "random.",
    )

    @model_validator(mode="after")
    def bounds_make_sense(self) -> Self:
        for name, patterns in self.patterns.items():
            for pattern in patterns:
                check_pattern(f"patterns.{name}", pattern)
        for name, function in self.functions.items():
            check_function(f"functions.{name}", function)
        for name in (*self.patterns, *self.functions):
            if name in Filters.model_fields or name in STEPS or (name in self.patterns and name in self.functions):
                raise ValueError(f"another filter or step has the name '{name}' already; choose another for yours")
        if self.min_tokens and self.max_tokens and self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens ({self.min_tokens}) is larger than max_tokens ({self.max_tokens})")
        return self
