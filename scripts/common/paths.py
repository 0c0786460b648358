"""The paths of all files of a run, for the rules and for the commands that read a run.

Large files are in `work/<run>/`, results in `results/<run>/` and logs in `logs/<run>/`, relative to the folder in which
Snakemake runs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scripts.common.config import ModelSource
from scripts.common.files import hash_json

REPOSITORY = Path(__file__).parents[2]
"""The checkout of the pipeline."""

OWN_TASKS = REPOSITORY / "benchmarks"
"""Folder of our own lm-eval tasks."""


Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
"""Splits of a filtered data set. Stages train only on the first."""


def shared_model(cache: Path, source: ModelSource) -> Path:
    """Folder of a base model in the cache that all runs share."""
    return cache / "models" / hash_json(source.as_dict())[:16]


@dataclass(frozen=True)
class RunPaths:
    """The paths of one run.

    Rules and scripts use the same functions. In a rule, a name may be a wildcard: `paths.score("{model}", "{name}")`.

    Args:
        run: name of the run.
        root: folder in which Snakemake runs.
    """

    run: str
    root: Path = Path()

    @property
    def work(self) -> Path:
        """Folder of large files."""
        return self.root / "work" / self.run

    @property
    def results(self) -> Path:
        """Folder of results."""
        return self.root / "results" / self.run

    @property
    def logs(self) -> Path:
        """Folder of logs."""
        return self.root / "logs" / self.run

    def log(self, rule: str, *wildcards: str) -> Path:
        """Log of a job of `rule`. The last wildcard names the file, those before it are folders."""
        return (
            self.logs.joinpath(rule, *wildcards[:-1], f"{wildcards[-1]}.log")
            if wildcards
            else self.logs / f"{rule}.log"
        )

    def rule_of(self, log: Path) -> tuple[str, ...]:
        """The rule and the wildcards of the job that wrote a log: the inverse of `log`."""
        return log.relative_to(self.logs).with_suffix("").parts

    @property
    def slurm_logs(self) -> Path:
        """Folder in which Snakemake's executor keeps the output of SLURM jobs, of all runs."""
        return self.root / ".snakemake" / "slurm_logs"

    @property
    def probe_report(self) -> Path:
        """What the test job of `check_cluster` found on a compute node."""
        return self.work / "probe.json"

    @property
    def probe_log(self) -> Path:
        """Output of the test job."""
        return self.work / "probe.log"

    # --- models and stages ----------------------------------------------------------------------

    def model(self, name: str) -> Path:
        """Manifest of a model: `base` or a stage. The model folder is next to it (`manifest.find_model`)."""
        return self.work / "models" / name / "manifest.json"

    def checkpoints(self, stage: str) -> Path:
        """Folder of the checkpoints of a stage. No rule declares it, so Snakemake keeps it when a job fails."""
        return self.model(stage).parent / "checkpoints"

    def proof(self, stage: str) -> Path:
        """Some rows as the model sees them in training, with the trained tokens marked."""
        return self.model(stage).parent / "proof.json"

    def tensorboard(self, stage: str) -> Path:
        """Folder of TensorBoard event files."""
        return self.results / "training" / "tensorboard" / stage

    def models_of_all_runs(self) -> list[Path]:
        """Manifests of the models of all runs under `root`."""
        return sorted(self.work.parent.glob("*/models/*/manifest.json"))

    def checked_stage(self, stage: str) -> Path:
        """Configuration of a stage, written after its arguments were checked."""
        return self.work / "stages" / f"{stage}.json"

    def training_log(self, stage: str) -> Path:
        """Table of the logged steps of a stage."""
        return self.results / "training" / f"{stage}.parquet"

    @property
    def expectations(self) -> Path:
        """What training should change, as registered before it began."""
        return self.results / "expectations.json"

    @property
    def forecast(self) -> Path:
        """Estimate of what the stages need, from the filtered rows."""
        return self.results / "training" / "forecast.json"

    def model_card(self, stage: str) -> Path:
        """Card of a trained model."""
        return self.results / "models" / f"{stage}.md"

    # --- data sets ------------------------------------------------------------------------------

    def dataset(self, name: str) -> Path:
        """Folder of a data set."""
        return self.work / "datasets" / name

    def source_rows(self, dataset: str) -> Path:
        """Rows as downloaded or sampled, in the pipeline's schema."""
        return self.dataset(dataset) / "source.parquet"

    def source(self, dataset: str) -> Path:
        """Manifest of the source rows."""
        return self.dataset(dataset) / "source.json"

    def inspected(self, dataset: str, shard: str) -> Path:
        """Table with the results of the filters for each row of a shard."""
        return self.dataset(dataset) / "inspected" / f"{shard}.parquet"

    def signatures(self, dataset: str, shard: str) -> Path:
        """MinHash signatures of the rows of a shard."""
        return self.dataset(dataset) / "inspected" / f"{shard}.signatures"

    def rows(self, dataset: str, split: str) -> Path:
        """Rows of a split."""
        return self.dataset(dataset) / f"{split}.parquet"

    def rejected(self, dataset: str) -> Path:
        """Removed rows, with reasons."""
        return self.dataset(dataset) / "rejected.parquet"

    def contamination(self, dataset: str) -> Path:
        """Overlaps of rows with the benchmarks."""
        return self.dataset(dataset) / "contamination.parquet"

    def funnel(self, dataset: str) -> Path:
        """Numbers of rows that each step removed and kept."""
        return self.dataset(dataset) / "funnel.json"

    def summary(self, dataset: str) -> Path:
        """Statistics of the rows: lengths, languages, groups and overlaps."""
        return self.dataset(dataset) / "summary.json"

    def filtered(self, dataset: str) -> Path:
        """Manifest of the filtered rows."""
        return self.dataset(dataset) / "manifest.json"

    def data_card(self, dataset: str, ending: Literal["md", "json"]) -> Path:
        """Card of a data set, as Markdown or as JSON."""
        return self.results / "data" / f"{dataset}.{ending}"

    # --- scores ---------------------------------------------------------------------------------

    def questions(self, benchmark: str) -> Path:
        """Questions of a benchmark, with which training rows are compared."""
        return self.work / "benchmarks" / benchmark / "questions.jsonl"

    def benchmark(self, name: str) -> Path:
        """Manifest of a downloaded benchmark."""
        return self.work / "benchmarks" / name / "manifest.json"

    def mirror(self, benchmark: str) -> Path:
        """Folder with a benchmark's mirror of the hub."""
        return self.work / "benchmarks" / benchmark / "mirror"

    def batch_sizes(self, benchmark: str) -> Path:
        """Batch sizes that `batch_size: auto` found, by machine."""
        return self.work / "benchmarks" / benchmark / "batch_sizes.json"

    def responses(self, model: str, dataset: str) -> Path:
        """Answers of a model to held-out rows."""
        return self.work / "responses" / model / f"{dataset}.jsonl"

    def responses_manifest(self, model: str, dataset: str) -> Path:
        """Manifest of the answers."""
        return self.work / "responses" / model / f"{dataset}.manifest.json"

    def score(self, model: str, name: str) -> Path:
        """Score of a model on a benchmark or on held-out rows."""
        return self.results / "scores" / model / f"{name}.json"

    def items(self, model: str, name: str) -> Path:
        """Items of a score: each question with the model's answer."""
        return self.results / "scores" / model / f"{name}.items.jsonl"

    @property
    def comparison(self) -> Path:
        """Comparisons of models, paired by item."""
        return self.results / "comparison.json"

    @property
    def comparison_manifest(self) -> Path:
        """Manifest of the comparisons."""
        return self.results / "comparison.manifest.json"

    @property
    def seed_comparison(self) -> Path:
        """Comparisons over items and seeds."""
        return self.results / "seed_comparison.json"

    @property
    def seed_comparison_manifest(self) -> Path:
        """Manifest of the comparisons over items and seeds."""
        return self.results / "seed_comparison.manifest.json"

    @property
    def abilities(self) -> Path:
        """Mean score and grade of each ability."""
        return self.results / "abilities.json"

    # --- reports --------------------------------------------------------------------------------

    @property
    def collected(self) -> Path:
        """All results in one file."""
        return self.results / "results.json"

    def figure(self, name: str, ending: Literal["svg", "png"]) -> Path:
        """A figure."""
        return self.results / "figures" / f"{name}.{ending}"

    @property
    def examples(self) -> Path:
        """Answers of all models to held-out rows, side by side."""
        return self.results / "examples.md"

    @property
    def report(self) -> Path:
        """The report as Markdown."""
        return self.results / "report.md"

    @property
    def pdf(self) -> Path:
        """The report as PDF."""
        return self.results / "report.pdf"

    def plan(self, ending: Literal["md", "json"]) -> Path:
        """What `snakemake plan` estimated, as Markdown or as JSON."""
        return self.results / f"plan.{ending}"
