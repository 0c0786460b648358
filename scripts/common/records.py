"""The records that rooms exchange: the fields of each JSON file, JSON line and table row of a run.

Writers return these types and readers annotate with them, so mypy checks both sides. At run time they are plain dicts.
Shares are from 0 to 1, intervals are at 95 % unless a record says otherwise, and memory is in bytes.
"""

from collections.abc import Mapping
from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

from scripts.common.config import Expected, ExpectedChange, RowType, SeedGroup

Section = Mapping[str, Any]
"""A section of the configuration as JSON types."""

Facts = TypeVar("Facts")
SectionType = TypeVar("SectionType")

Turns = list[dict[str, str]]
"""A conversation: a list of turns with `role` and `content`."""


# --- manifests ----------------------------------------------------------------------------------


class Manifest(TypedDict, Generic[SectionType, Facts]):
    """How an artefact was made; `manifest.describe` documents the fields."""

    artefact: str
    name: str
    config: SectionType
    inputs: dict[str, str]
    facts: Facts
    versions: dict[str, str]
    git_commit: str | None
    device: str
    seconds: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int | None
    created: str


AnyManifest = Manifest[Any, Any]
"""A manifest of which only the common fields are read."""


class OriginFacts(TypedDict):
    """Where a model or a data set was fetched from."""

    origin: str
    revision: NotRequired[str | None]
    sha256: NotRequired[str]
    note: NotRequired[str]
    licence: NotRequired[str | None]


class BaseFacts(OriginFacts):
    """The base model."""

    parameters: int


class SourceFacts(OriginFacts):
    """A data set as downloaded or sampled.

    `malformed` counts rows that could not be read, `files` has checksums by path, and `parts` the parts of a mixture.
    Sampled rejections have the numbers of `questions`, of `answers`, and of `right` answers.
    """

    rows: int
    malformed: int
    files: NotRequired[dict[str, str]]
    parts: NotRequired[dict[str, "SourceFacts"]]
    questions: NotRequired[int]
    answers: NotRequired[int]
    right: NotRequired[int]


class MirrorFacts(TypedDict):
    """Where the questions of a benchmark come from.

    `revisions` has the commits of data sets from the hub, `files` the checksums of a local mirror, and `left_out` the
    number of questions that were dropped because their form differs from the others'.
    """

    origin: str
    revisions: NotRequired[dict[str, str]]
    files: NotRequired[dict[str, str]]
    rows: NotRequired[int]
    sha256: NotRequired[str]
    left_out: NotRequired[int]


class BenchmarkFacts(MirrorFacts):
    """A downloaded benchmark."""

    questions: int
    questions_sha256: str


StageConfig = TypedDict(
    "StageConfig",
    {
        "method": str,
        "from": str,
        "dataset": str,
        "tuning": str,
        "lora": dict[str, Any],
        "strategy": str,
        "attention": str,
        "args": dict[str, Any],
        "seed": int,
        "dtype": str,
    },
)
"""The configuration of a trained stage, with its seed and precision."""


class StrategyFacts(TypedDict):
    """The number of processes, the strategy and the attention that training used."""

    processes: int
    strategy: str
    attention: str


class BudgetFacts(TypedDict):
    """The time budget of a stage; see `scripts/train/budget.py`."""

    seconds: float
    attempts: int
    planned: int
    cuts: list[list[int]]
    stopped: bool
    limit_seconds: float | None


class CostFacts(TypedDict):
    """What training cost, over all attempts. Null: not known."""

    train_seconds: float
    seconds_per_epoch: float | None
    tokens: int
    tokens_per_second: float | None
    flops: float | None
    mfu: float | None
    energy_kwh: float | None
    peak_train_memory_gb: float


class FitFacts(StrategyFacts, CostFacts):
    """Results of the training loop of a stage."""

    steps: int
    epochs: float | None
    effective_batch: int
    budget: BudgetFacts
    resumed_from: int
    parameters: int
    trainable_parameters: int


class ProofRow(TypedDict):
    """A row of the proof: its number, and its templated conversations with the trained tokens marked."""

    row: int
    texts: list[str]


class ProofFacts(TypedDict):
    """What the model sees in training; see `scripts/train/proof.py`."""

    trained_token_share: float | None
    cut_rows: int
    proof: list[ProofRow]


class PackingFacts(TypedDict):
    """Relative difference between the logits of packed and of separate examples. Null: not compared."""

    packing_difference: float | None


class TrainedFacts(FitFacts, ProofFacts):
    """A stage before its model is saved."""

    train_rows: int


class PackedFacts(TrainedFacts, PackingFacts):
    """An SFT stage, which may pack examples, before its model is saved."""


class SavedFacts(TypedDict):
    """A saved model: checksum of its weights, and relative difference between its logits and the trained model's."""

    weights_sha256: str
    reload_difference: float


class StageFacts(TrainedFacts, SavedFacts):
    """A trained stage."""

    packing_difference: NotRequired[float | None]


BaseManifest = Manifest[Section, BaseFacts]
SourceManifest = Manifest[Section, SourceFacts]
StageManifest = Manifest[StageConfig, StageFacts]


TrainingStep = Mapping[str, float | None]
"""A row of a training log: `step`, the values that TRL logs (validation as `eval_...`) and those of our meter.

`scripts/train/meter.py` adds the latter.
"""


# --- data sets ----------------------------------------------------------------------------------


class FunnelStep(TypedDict):
    """Number of rows that a step removed, and of `rows` left after it."""

    step: str
    removed: int
    rows: int


class Funnel(TypedDict):
    """Numbers of rows after each step. `splits` has the number of rows of each split."""

    dataset: str
    row_type: RowType
    steps: list[FunnelStep]
    splits: dict[str, int]


class Lengths(TypedDict):
    """Tokens of the templated rows of a split. Only `rows` and `counted` are present if no row was counted."""

    rows: int
    counted: int
    total: NotRequired[int]
    mean: NotRequired[float]
    min: NotRequired[int]
    p5: NotRequired[int]
    median: NotRequired[int]
    p95: NotRequired[int]
    max: NotRequired[int]
    counts: NotRequired[list[int]]


class TokenLengths(TypedDict):
    """Lengths of each split, and the bin edges of their histograms."""

    edges: list[int]
    splits: dict[str, Lengths]


class MalformedRow(TypedDict):
    """A row that could not be read."""

    source_index: int
    reason: str


class Overlap(TypedDict):
    """A row that contains a text of a benchmark: the covered share of the text, and the longest common span."""

    item: int
    source_index: int
    share: float
    span: str
    removed: bool


class BenchmarkOverlap(TypedDict):
    """Overlap of a data set with a benchmark. `share` is the share of compared rows that overlap."""

    benchmark: str
    items: int
    items_hit: int
    rows_hit: int
    share: float
    removed: bool
    examples: list[Overlap]


class Summary(TypedDict):
    """Statistics of a data set. Languages, groups, parts and labels are counts by value."""

    dataset: str
    read: int
    tokens: TokenLengths
    languages: dict[str, int]
    groups: dict[str, int]
    parts: dict[str, int]
    labels: dict[str, int]
    problems: list[MalformedRow]
    benchmarks: list[BenchmarkOverlap]


class DataCard(TypedDict):
    """The card of a data set. `columns` has types by column, `examples` the first training rows."""

    source: SourceManifest
    funnel: Funnel
    summary: Summary
    columns: dict[str, str]
    examples: list[dict[str, Any]]


class WorkedQuestion(TypedDict):
    """A question of a reasoning task, with a worked solution and the answer as text."""

    question: str
    solution: str
    answer: str


# --- scores -------------------------------------------------------------------------------------


class Question(TypedDict):
    """A question of a benchmark, and the texts of its document that training rows are searched for."""

    question: str
    texts: list[str]


class Item(TypedDict):
    """A model's answer to one question. `key` pairs the items of two models; `score` is from 0 to 1."""

    key: str
    prompt: str
    target: str
    answer: str
    score: float


class BenchmarkItem(Item):
    """An answer to a question of a benchmark.

    `is_readable` is whether a filter that extracts found anything in it, and `is_cut` whether a generated answer ended
    only because it reached the length limit.
    """

    is_readable: NotRequired[bool]
    is_cut: NotRequired[bool]


class PreferenceItem(Item):
    """A held-out pair. `answer` is the rejected side. Log-probabilities are sums over tokens, in nats."""

    chosen_log_probability: float
    rejected_log_probability: float


class Response(TypedDict):
    """An answer to a held-out row. `log_probability` and `tokens` are those of the row's reference answer, `target`."""

    key: str
    prompt: str
    target: str
    answer: str
    is_cut: bool
    log_probability: float
    tokens: int


class ResponseItem(Item):
    """A scored response."""

    is_cut: bool
    log_probability: float
    tokens: int


class DecidedPoint(TypedDict):
    """A point of a rubric: whether it is met (null: undecided), by whose decision, and the judge's words."""

    point: str
    is_met: bool | None
    by: Literal["rule", "judge"]
    words: str | None


class JudgedItem(Item):
    """An item with the decision on each point of its rubric."""

    points: list[DecidedPoint]


class Estimate(TypedDict):
    """A value with its number of observations and its interval. Null: undefined."""

    n: int
    score: float | None
    ci_low: float | None
    ci_high: float | None
    is_share: bool


class OtherMetric(Estimate):
    """Another metric of the same answers. It is reported, but not compared between models."""

    metric: str
    filter: str


Protocol = Mapping[str, Any]
"""How a model was prompted and scored. Scores with different protocols are not compared."""


class ScoreSummary(TypedDict):
    """A score without its protocol and provenance."""

    metric: str
    n: int
    score: float
    ci_low: float
    ci_high: float
    others: list[OtherMetric]


class Score(ScoreSummary):
    """The score of a model on a benchmark or on held-out rows."""

    benchmark: str
    model: str
    task: str
    protocol: Protocol
    provenance: AnyManifest


Verdict = Literal["improved", "worsened", "held", "no difference found"]


FamilyName = Literal["all", "confirmatory", "exploratory"]
"""Comparisons that are corrected together: those that were expected, those that were not, or all of a run."""

Outcome = Literal["confirmed", "not confirmed", "contradicted"]


class Conclusion(TypedDict):
    """The conclusion of a comparison, after Holm's correction over its family."""

    family: FamilyName
    expected: Expected | None
    outcome: Outcome | None
    p_adjusted: float
    verdict: Verdict


class Contribution(TypedDict):
    """Number of items, and how much their scores changed, as a part of the mean difference."""

    items: int
    difference: float


class Origin(TypedDict):
    """Where a difference comes from, by the baseline's answers: not readable, read and wrong, or read and right.

    An answer is right if its score is 1. The three parts of the difference add up to it.
    """

    unreadable: Contribution
    wrong: Contribution
    right: Contribution


class PairedDifference(TypedDict):
    """A model against a baseline, item by item. The interval is at 1 - alpha.

    `origin` is null if the benchmark has no filter that extracts answers. `p_margin` is the p value of a drop by the
    margin or more, and `p_beyond` that of any smaller drop.
    """

    benchmark: str
    metric: str
    baseline: str
    model: str
    n: int
    baseline_score: float
    model_score: float
    difference: float
    origin: Origin | None
    ci_low: float
    ci_high: float
    smallest_difference: float
    margin: float | None
    is_held: bool | None
    p_margin: float | None
    p_beyond: float | None
    p_value: float


class Comparison(PairedDifference, Conclusion):
    """A row of `comparison.json`."""


class Registration(TypedDict):
    """What was expected of a run at some time: an entry of `expectations.json`.

    `config_sha256` is the hash of the whole configuration, and `after_training` whether a stage had already started.
    """

    created: str
    commit: str | None
    config_sha256: str
    after_training: bool
    expectations: list[ExpectedChange]


class SeedDifference(TypedDict):
    """The mean difference over items and seeds. `differences` has one value for each seed."""

    n: int
    seeds: int
    differences: list[float]
    difference: float
    seed_deviation: float
    ci_low: float
    ci_high: float
    p_value: float


class SeedComparison(SeedGroup, SeedDifference, Conclusion):
    """A row of `seed_comparison.json`."""

    benchmark: str
    metric: str


class MeanScore(TypedDict):
    """The mean of the scores of one model on several benchmarks, with its grade."""

    benchmarks: list[str]
    n: int
    score: float
    ci_low: float
    ci_high: float
    grade: str


class Ability(MeanScore):
    """A row of `abilities.json`."""

    ability: str
    model: str


class TrainingSummary(TypedDict):
    """Losses, steps and seconds of a stage. Null: nothing was logged."""

    first_loss: float | None
    last_loss: float | None
    best_validation_loss: float | None
    last_validation_loss: float | None
    steps: int
    seconds: float


class Sample(TypedDict):
    """A sample answer of a model to a held-out row."""

    prompt: str
    target: str
    answer: str
    score: float


class ModelResults(TypedDict):
    """All results of a model. `training` is null for the base."""

    training: TrainingSummary | None
    scores: dict[str, ScoreSummary]
    samples: dict[str, list[Sample]]


class Results(TypedDict):
    """`results.json`."""

    run: str
    models: dict[str, ModelResults]
    comparisons: list[Comparison]
    seed_comparisons: list[SeedComparison]
    abilities: list[Ability]


# --- plans --------------------------------------------------------------------------------------

Certainty = Literal["measured", "expected", "at most", "unknown"]
"""What kind of number an estimate is: a count, an expectation, an upper bound, or not known."""


OverTime = Literal["fit", "refuse", "end"]
"""What happens to a stage that takes too long: its schedule is cut, it is refused, or its job is killed."""


class Fit(TypedDict):
    """Whether memory and time are within their limits (null: unknown), and what happens if the time is not."""

    fits_memory: bool | None
    fits_time: bool | None
    over_time: OverTime


class Costs(TypedDict):
    """GPU-hours, energy and money. Null: not known."""

    gpu_hours: float | None
    energy_kwh: float | None
    money: float | None


class StageForecast(TypedDict):
    """Estimate of what a stage needs. Null: not known."""

    name: str
    work_is: Certainty
    tokens: float | None
    steps: int | None
    epochs: float | None
    trainable_parameters: int | None
    flops: float | None
    memory_bytes: float | None
    memory_is: Certainty
    hours: float | None
    pace: str


class StageUse(TypedDict):
    """What a finished stage used."""

    steps: int
    epochs: float | None
    tokens: int
    flops: float | None
    hours: float
    memory_bytes: int
    energy_kwh: float | None
    trainable_parameters: int
    device: str


class StagePlan(StageForecast, Costs):
    """A stage of the plan. `memory` has bytes by purpose, such as weights or gradients."""

    method: str
    tuning: str
    rows: int | None
    rows_are: Certainty
    tokens_are: Certainty
    steps_are: Certainty
    effective_batch: int | None
    memory: dict[str, float] | None
    memory_limit_bytes: float | None
    hours_limit: float
    verdict: Fit
    used: StageUse | None


class BenchmarkPlan(Costs):
    """A benchmark of the plan. `hours` and costs are for all models, everything else is for one job."""

    name: str
    rows: int | None
    rows_are: Certainty
    models: int
    read_tokens: int | None
    answers: bool
    generated_tokens: int | None
    flops: float | None
    memory: dict[str, float] | None
    memory_bytes: float | None
    memory_limit_bytes: float | None
    job_hours: float | None
    hours: float | None
    hours_are: str
    hours_limit: float
    work_is: Certainty
    verdict: Fit
    estimated_job_hours: float | None
    used_job_hours: float | None


class ExpectationPlan(ExpectedChange):
    """What the items of an expectation can show.

    `detectable` is the smallest gain, or excluded drop, that is confirmed with 80 % power, and `smallest` the smallest
    gain that can be found at all. Both are shares, null if unknown or impossible. `is_enough` is whether n suffices.
    """

    n: int | None
    n_is: Certainty
    detectable: float | None
    smallest: float | None
    is_enough: bool | None


class PlannedModel(TypedDict):
    """Size of the base model, and where that is known from."""

    parameters: int | None
    found_in: str


class Totals(Costs):
    """Costs of all stages and benchmarks."""

    training_gpu_hours: float | None
    evaluation_gpu_hours: float | None


class RunPlan(TypedDict):
    """`plan.json`."""

    run: str
    device: str
    model: PlannedModel
    currency: str
    stages: list[StagePlan]
    benchmarks: list[BenchmarkPlan]
    expectations: list[ExpectationPlan]
    changed_share: float
    totals: Totals
