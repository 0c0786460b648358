"""The configuration of a run: all sections, and properties that follow from several of them.

It imports neither torch nor transformers, so that a dry run stays fast.
"""

import json
from typing import Any

from pydantic import Field

from scripts.common.config.benchmark import Benchmark
from scripts.common.config.comparison import Comparison, SeedGroup
from scripts.common.config.dataset import FORMATS, Dataset, RejectionsDataset, RowType
from scripts.common.config.expectation import Expectation, ExpectedChange
from scripts.common.config.judge import Judge
from scripts.common.config.model import Model
from scripts.common.config.plan import Plan
from scripts.common.config.plot import Plot
from scripts.common.config.report import Report
from scripts.common.config.resources import Resources
from scripts.common.config.responses import Responses
from scripts.common.config.run import Run
from scripts.common.config.section import Name, Section
from scripts.common.config.stage import ROW_TYPE_BY_METHOD, Method, Stage

BASE = "base"
"""Name of the base model. Every other model has the name of its stage."""


class Config(Section):
    """The sections of a configuration file."""

    run: Run = Field(description="Name, seed and cache of the run.")
    model: Model = Field(description="The base model.")
    datasets: dict[Name, Dataset] = Field({}, description="Data sets, under names that you choose.")
    stages: dict[Name, Stage] = Field(
        {}, description="Training stages, under names that you choose. `snakemake <name>` trains one."
    )
    benchmarks: dict[Name, Benchmark] = Field(
        {}, description="Benchmarks, under names that you choose. `snakemake <name>` scores all models on one."
    )
    expectations: dict[Name, Expectation] = Field(
        {}, description="What training should change, under names that you choose; the name of a stage is enough."
    )
    comparison: Comparison = Field(Comparison(), description="How models are compared and graded.")
    judge: Judge | None = Field(
        None, description="Judge model for the answers to `traps`. Null: score only the points that rules can decide."
    )
    responses: Responses = Field(
        Responses(), description="Answers to held-out rows, scored by ROUGE, BLEU, length, loss and perplexity."
    )
    plot: Plot = Field(Plot(), description="How figures look.")
    report: Report = Field(Report(), description="The PDF report.")
    resources: Resources = Field(Resources(), description="CPUs, GPUs, memory and time that jobs request.")
    plan: Plan = Field(Plan(), description="GPUs, power and prices that `snakemake plan` assumes.")

    @property
    def models(self) -> list[str]:
        """`base` and all stages, parents before children."""
        return [BASE, *self.lineage()]

    def lineage(self) -> list[str]:
        """All stages, parents before children."""
        done: list[str] = []
        while len(done) < len(self.stages):
            done += [n for n, s in self.stages.items() if n not in done and s.parent in (BASE, *done)]
        return done

    def ancestry(self, stage: str) -> list[str]:
        """The models from `base` to the stage, each after its parent."""
        parent = self.stages[stage].parent
        return [*(self.ancestry(parent) if parent != BASE else [BASE]), stage]

    def seed_of(self, stage: str) -> int:
        """Seed that a stage trains with."""
        seed = self.stages[stage].seed
        return self.run.seed if seed is None else seed

    @property
    def first_repetition(self) -> dict[str, str]:
        """For each model, the first model that differs from it at most in its own seed or in seeds of its ancestors."""
        first = {BASE: BASE}
        known: dict[str, str] = {}
        for name in self.lineage():
            stage = self.stages[name]
            limits = {"time_limit": stage.time_limit, "over_time": stage.over_time}  # they may cut the schedule
            trained = json.dumps(stage.identity() | limits | {"from": first[stage.parent]}, sort_keys=True)
            first[name] = known.setdefault(trained, name)
        return first

    @property
    def seed_comparisons(self) -> list[SeedGroup]:
        """Stages that were trained with several seeds, each group against its parents and against base.

        `stage` is the first stage of a group, `baseline` the first of its baselines, and `pairs` has (baseline, model)
        for each seed. A group in which some stages, but not all, share a parent is left out: its differences are
        neither independent nor all from one parent.
        """
        first = self.first_repetition
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

    def row_type(self, dataset: str) -> RowType:
        """The kind of rows of a data set: what the stages that train on it need, or else what its format gives."""
        section = self.datasets[dataset]
        if isinstance(section.source, RejectionsDataset):
            return "preference"
        methods = {stage.method for stage in self.stages.values() if stage.dataset == dataset}
        if methods:
            return ROW_TYPE_BY_METHOD[min(methods)]
        formats = {part.format for part in section.parts.values()}
        return next((row_type for row_type, known in FORMATS.items() if formats <= {*known}), "messages")

    def stages_by(self, method: Method) -> list[str]:
        """The stages that a method trains."""
        return [name for name, stage in self.stages.items() if stage.method == method]

    def compared_benchmarks(self, dataset: str) -> list[str]:
        """The benchmarks that the rows of a data set are searched for."""
        return list(self.benchmarks) if self.datasets[dataset].filters.benchmark_overlap != "ignore" else []

    @property
    def protocols(self) -> dict[str, Benchmark]:
        """Every benchmark under each of its protocols, by the name of the score."""
        found: dict[str, Benchmark] = {}
        for name, benchmark in self.benchmarks.items():
            found[name] = benchmark
            found |= {f"{name}_{protocol}": benchmark.under(protocol) for protocol in benchmark.protocols}
        return found

    @property
    def benchmark_of(self) -> dict[str, str]:
        """The benchmark that each of these scores has its questions from."""
        return {
            score: name
            for name, benchmark in self.benchmarks.items()
            for score in (name, *(f"{name}_{protocol}" for protocol in benchmark.protocols))
        }

    @property
    def held_out_pairs(self) -> list[str]:
        """Preference data sets with a test split. Every model is scored on them."""
        return [n for n, d in self.datasets.items() if d.test and self.row_type(n) == "preference"]

    @property
    def held_out_conversations(self) -> dict[str, str]:
        """Data sets of conversations that a stage trains on, each with the held-out split that every model answers."""
        trained = {stage.dataset for stage in self.stages.values()}
        return {
            name: "test" if dataset.test else "validation"
            for name, dataset in self.datasets.items()
            if self.responses.rows and name in trained and self.row_type(name) == "messages"
            if dataset.test or dataset.validation
        }

    @property
    def abilities(self) -> dict[str, str]:
        """The ability of each benchmark that has one."""
        return {name: benchmark.ability for name, benchmark in self.benchmarks.items() if benchmark.ability}

    @property
    def scores(self) -> list[str]:
        """Names of all scores of a model: benchmarks by protocol, the judge's, held-out pairs and conversations."""
        return [*self.protocols, *self.judged, *self.held_out_pairs, *self.held_out_conversations]

    @property
    def judged(self) -> dict[str, str]:
        """The name of the judge's score, and the benchmark whose answers it judges; empty without a judge."""
        return {f"{self.judge.benchmark}_judged": self.judge.benchmark} if self.judge else {}

    def forecast_inputs(self) -> dict[str, Any]:
        """The part of the configuration that determines the work, pace and memory of the stages, as JSON types."""
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
        """Pairs (baseline, model): each stage against its parent, then against base, then what else is expected."""
        pairs = [(self.stages[n].parent, n) for n in self.lineage()]
        pairs += [(BASE, n) for n in self.lineage()]
        pairs += [(one["baseline"], one["model"]) for one in self.expected_changes]
        return list(dict.fromkeys(pairs))

    @property
    def expected_changes(self) -> list[ExpectedChange]:
        """What is expected of each score of each stage, in the order of the configuration."""
        changes: list[ExpectedChange] = []
        for name, expectation in self.expectations.items():
            model = expectation.of or name
            for score, expected in expectation.scores.items():
                changes.append(
                    {
                        "model": model,
                        "baseline": expectation.against or self.stages[model].parent,
                        "benchmark": score,
                        "expected": expected,
                        "margin": self.protocols[score].margin if expected == "holds" else None,
                    }
                )
        return changes
