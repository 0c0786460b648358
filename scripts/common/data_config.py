"""The part of the configuration that says which data a stage trains on: sources, filters, sampling."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from scripts.common.section import Name, Section, check_function, check_pattern

Form = Literal["messages", "preference", "kto", "prompt"]
"""The kinds of rows that training methods take."""

Verify = Literal["pattern", "math"]
"""How an answer is compared with the right one."""

Format = Literal[
    "auto",
    "messages",
    "sharegpt",
    "alpaca",
    "prompt_completion",
    "problem_answer",
    "preference",
    "kto",
    "kto_messages",
    "prompt",
]
"""What the columns of a data set may look like; docs/data.md has the table."""

FORMATS: dict[Form, tuple[Format, ...]] = {
    "messages": ("messages", "sharegpt", "alpaca", "prompt_completion", "problem_answer"),
    "preference": ("preference",),
    "kto": ("kto", "kto_messages"),
    "prompt": ("problem_answer", "prompt", "messages", "sharegpt", "alpaca"),
}
"""The formats that rows of each kind can be made from, in the order in which they are looked for."""

# --- where rows come from -----------------------------------------------------------------------


class HubDataset(Section):
    """A data set on the Hugging Face hub."""

    kind: Literal["hub"]
    repository: str = Field(description="Repository, such as `HuggingFaceH4/ultrafeedback_binarized`.")
    config: str | None = Field(None, description="Configuration of the data set, when it has several.")
    split: str = Field("train", description="Split to take.")
    revision: str = Field(description="Commit, tag or branch; what it resolved to is recorded.")


class FileDataset(Section):
    """Local data files: JSON lines, JSON, CSV, TSV or Parquet; text may be compressed (gz, bz2, xz, zst)."""

    kind: Literal["file"]
    path: str = Field(description="A file, or a glob of several, taken in the order of their names.")
    licence: str | None = Field(None, description="Licence of the data, for the data card.")


class PackageDataset(Section):
    """Tasks made by the `reasoning-gym` package: questions, worked answers, and answers that can be verified."""

    kind: Literal["package"]
    package: Literal["reasoning-gym"] = Field(description="The package that makes the tasks.")
    task: Literal["chain_sum"] = Field(description="Name of the task.")
    size: int = Field(gt=0, description="Number of different questions.")
    seed: int = Field(
        ge=0, description="Seed of the first item; item i has seed + i, so keep the seeds of two data sets far apart."
    )
    parameters: dict[str, int] = Field({}, description="Parameters of the task, such as `max_terms`.")


VERIFY = (
    "How an answer is compared with the row's `answer`: as the text that `answer_pattern` finds (`pattern`), or by its "
    "value, in `\\boxed{}`, between `$` or as a plain number, with math-verify (`math`)."
)
ANSWER_PATTERN = "Regular expression; its last match, or what its first group holds, is the answer of a text."


class RejectionsDataset(Section):
    """Preference pairs for a verifiable task: the right answer against the model's own wrong samples."""

    kind: Literal["rejections"]
    model: Name = Field(description="Stage (or `base`) that answers.")
    dataset: Name = Field(description="Data set of messages with a verifiable `answer`; all its rows are asked.")
    samples: int = Field(1, ge=1, description="Answers sampled a question.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature.")
    max_new_tokens: int = Field(64, ge=1, description="Longest answer, in tokens.")
    verify: Verify = Field("pattern", description=VERIFY)
    answer_pattern: str = Field(r"-?\d+", description=ANSWER_PATTERN)
    batch_size: int = Field(64, ge=1, description="Questions answered at once.")

    @model_validator(mode="after")
    def pattern_compiles(self) -> Self:
        check_pattern("answer_pattern", self.answer_pattern)
        return self


class Part(Section):
    """One source of a mixture. Its rows are filtered with all others; what it may contribute is drawn afterwards."""

    source: Annotated[HubDataset | FileDataset | PackageDataset, Field(discriminator="kind")] = Field(
        description="Where the rows come from."
    )
    format: Format = Field("auto", description="Format of the rows; `auto` finds it by the columns.")
    rename: dict[str, str] = Field({}, description="Columns to rename first: their name, then ours.")
    rows: int | None = Field(None, ge=1, description="Most rows to keep after filtering; null for all.")
    weight: float | None = Field(
        None, gt=0, description="Share relative to the other parts; no row is repeated, so the scarcest part decides."
    )


class MixtureDataset(Section):
    """Rows of several sources together, by counts or by weights."""

    kind: Literal["mixture"]
    parts: dict[Name, Part] = Field(min_length=1, description="The sources, by names of yours.")

    @model_validator(mode="after")
    def weighs_all_or_none(self) -> Self:
        weighed = [name for name, part in self.parts.items() if part.weight is not None]
        if weighed and (len(weighed) < len(self.parts) or any(part.rows is not None for part in self.parts.values())):
            raise ValueError("give every part a weight and none a number of rows, or weigh none")
        return self


DatasetSource = Annotated[
    HubDataset | FileDataset | PackageDataset | RejectionsDataset | MixtureDataset, Field(discriminator="kind")
]

# --- what is removed ----------------------------------------------------------------------------


class Filters(Section):
    """Filters of a data set, applied in the order in which they stand here. Null, false or empty: not applied."""

    empty: bool = Field(True, description="Remove rows with an empty turn or without an assistant's answer.")
    roles: bool = Field(
        True,
        description="Remove rows whose turns are out of order: a system turn first or not at all, then user and "
        "assistant in turn.",
    )
    control_tokens: bool = Field(
        True, description="Remove rows whose text holds `<|im_start|>` or `<|im_end|>`: it could forge a turn."
    )
    equal_answers: bool = Field(True, description="Preference pairs: remove pairs whose two answers are the same text.")
    min_margin: float | None = Field(
        None,
        description="Preference pairs: smallest `score_chosen - score_rejected`; pairs without scores are removed.",
    )
    max_length_ratio: float | None = Field(
        None, ge=1, description="Preference pairs: most characters of the longer answer for one of the shorter."
    )
    refusals: bool = Field(
        False, description="Remove rows whose answer (the chosen one of a pair) refuses or speaks of itself as a model."
    )
    patterns: dict[Name, list[str]] = Field(
        {}, description="Regular expressions by names of yours; a row in whose answer one is found is removed."
    )
    max_repetition: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Largest share of repeated 5-word sequences in an answer, from 0 (none is repeated) to 1.",
    )
    languages: list[str] = Field(
        [], description="Languages to keep, as two-letter codes; the likeliest language of the row's text decides."
    )
    functions: dict[Name, str] = Field(
        {},
        description="Filters of your own by names of yours: `file.py:function`. It gets a row and gives True to keep "
        "it; False, or a reason as text, removes it.",
    )
    min_tokens: int | None = Field(None, ge=1, description="Fewest tokens of a templated row.")
    max_tokens: int | None = Field(
        None, ge=1, description="Most tokens of a templated row; of the longer side of a pair."
    )
    not_in: list[Name] = Field(
        [], description="Remove rows whose normalised prompt stands among the training rows of these data sets."
    )
    benchmark_overlap: Literal["remove", "flag", "ignore"] = Field(
        "remove",
        description="What to do with rows that hold a question or an answer of a configured benchmark: remove them, "
        "only show them in the data card, or do not look. The rule stands in docs/data.md.",
    )
    duplicates: bool = Field(True, description="Keep only the first of rows with the same normalised text.")
    near_duplicates: float | None = Field(
        None,
        ge=0.5,
        lt=1,
        description="Keep only the first of rows whose sets of 5-word sequences are at least this similar (Jaccard, "
        "estimated by MinHash).",
    )
    max_label_ratio: float | None = Field(
        None, ge=1, description="KTO rows: most rows of the more frequent label for one of the other."
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
                raise ValueError(f"the name '{name}' of a filter of yours is taken; choose another")
        if self.min_tokens and self.max_tokens and self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens ({self.min_tokens}) is larger than max_tokens ({self.max_tokens})")
        return self


STEPS = ("read", "schema", "mixture", "sample")
"""Lines of the funnel that are no filters."""


class Sample(Section):
    """Which of the rows that are left after filtering are taken."""

    rows: int = Field(ge=1, description="Rows to take; all when there are fewer.")
    method: Literal["random", "first", "margin"] = Field(
        "random", description="At random by the run's seed, the first ones, or the pairs with the largest margins."
    )
    balance: str | None = Field(
        None, description="Column of the source, such as a task type, whose values get equal shares as far as they go."
    )


class Expected(Section):
    """What `snakemake plan` counts with until the rows are there; nothing else reads it."""

    rows: int | None = Field(
        None, ge=1, description="Rows that the filters leave, before `sample`, `validation` and `test` take theirs."
    )
    tokens: float | None = Field(
        None, gt=0, description="Mean tokens of a templated row; of the longer side of a pair; of a prompt for GRPO."
    )


def _read_number(value: Any) -> Any:
    """A bare number stands for that many rows at random."""
    return {"rows": value} if isinstance(value, int) and not isinstance(value, bool) else value


class Dataset(Section):
    """A data set that a stage trains on."""

    source: DatasetSource = Field(description="Where the rows come from.")
    format: Format = Field("auto", description="Format of the rows; `auto` finds it by the columns.")
    rename: dict[str, str] = Field({}, description="Columns to rename first: their name, then ours.")
    max_malformed: float = Field(
        0.01, ge=0, le=1, description="Largest share of rows that cannot be read; the run stops when more are bad."
    )
    filters: Filters = Field(Filters(), description="What is removed, and by which bound.")
    sample: Annotated[Sample | None, BeforeValidator(_read_number)] = Field(
        None, description="Rows to take after filtering: a number for that many at random, or a section; null for all."
    )
    validation: int = Field(
        0, ge=0, description="Rows held out for the loss during training. No prompt stands in two splits."
    )
    test: int = Field(
        0, ge=0, description="Rows held out from training altogether. On those of pairs every model is scored."
    )
    shards: int = Field(
        1, ge=1, le=1000, description="Jobs that inspect the rows side by side; the result is the same."
    )
    expected: Expected = Field(Expected(), description="How large it will be, for `snakemake plan`.")

    @model_validator(mode="after")
    def describes_its_own_rows(self) -> Self:
        has_own = isinstance(self.source, MixtureDataset | RejectionsDataset | PackageDataset)
        if has_own and (self.format != "auto" or self.rename):
            where = "each part" if isinstance(self.source, MixtureDataset) else "files and hub data sets"
            raise ValueError(f"format and rename belong to {where}, not to a source of kind {self.source.kind}")
        return self

    def identity(self) -> dict[str, Any]:
        """What its rows depend on: without what is only expected of them."""
        return {key: value for key, value in self.part().items() if key != "expected"}

    @property
    def parts(self) -> dict[str, Part]:
        """The sources that rows are read from, by name; a single one has the empty name."""
        match self.source:
            case MixtureDataset():
                return dict(self.source.parts)
            case RejectionsDataset():
                return {}
            case source:
                return {"": Part(source=source, format=self.format, rename=self.rename)}

    @property
    def balance(self) -> str | None:
        """Column of the source that samples are balanced over."""
        return self.sample.balance if self.sample else None

    @property
    def function_files(self) -> list[str]:
        """The files of the filters that are the user's own."""
        return [function.rpartition(":")[0] for function in self.filters.functions.values()]
