"""After a change of one key, exactly the jobs that depend on it run again."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.running import planned_jobs, read_recipe, snakemake, write_recipe

pytestmark = pytest.mark.slow

REPORT = {"write_report", "build_pdf", "all"}
MODEL_CARDS = {"write_model_card sft", "write_model_card dpo"}
COMPARED = REPORT | MODEL_CARDS | {"compare_models", "compare_seeds", "plot_differences", "collect_results"}
COMPARISON = COMPARED | {"plot_scores", "grade_abilities"}


def _scores(model: str) -> set[str]:
    """The jobs that score a model, except on the pairs."""
    benchmarks = {f"run_benchmark {model} {benchmark}" for benchmark in ("chain_sum", "traps")}
    return benchmarks | _answers(model)


def _answers(model: str) -> set[str]:
    """The jobs for a model's answers to the held-out conversations."""
    return {f"generate_responses {model} sums", f"score_responses {model} sums", "write_examples"}


TRAINING = {"plot_training", "forecast_training"}
PLOTS = {"plot_training", "plot_scores", "plot_differences"}
DPO = COMPARISON | TRAINING | _scores("dpo") | {"train_dpo dpo", "score_preferences dpo pairs"}
DATA = {"plot_funnel", "plot_lengths", *(f"describe_dataset {name}" for name in ("sums", "more_sums", "pairs"))}
PAIRS = DPO | DATA | {"score_preferences base pairs", "score_preferences sft pairs", "filter_dataset pairs"}
SFT = PAIRS | _scores("sft") | {"train_sft sft", "sample_rejections pairs", "inspect_rows pairs 0"}
FILTERED = SFT | _answers("base") | {"filter_dataset sums", "inspect_rows sums 0"}
SEED = SFT | _scores("base") | {"filter_dataset sums", "filter_dataset more_sums"}
SHOTS = COMPARISON | {f"run_benchmark {model} chain_sum" for model in ("base", "sft", "dpo")}

BARE = COMPARED | {"plot_scores"} | {f"run_benchmark {model} chain_sum_bare" for model in ("base", "sft", "dpo")}

CHANGES: list[tuple[str, Any, set[str]]] = [
    ("stages.dpo.args.beta", 0.2, DPO | {"check_stage dpo"}),
    ("stages.sft.args.learning_rate", 2e-3, SFT | {"check_stage sft"}),
    ("stages.sft.seed", 8, SFT),
    ("datasets.sums.filters.max_tokens", 199, FILTERED),
    ("datasets.pairs.test", 7, PAIRS),
    ("datasets.pairs.filters.refusals", True, PAIRS | {"inspect_rows pairs 0"}),
    ("benchmarks.chain_sum.shots", 1, SHOTS),
    ("benchmarks.chain_sum.protocols", {"bare": {"chat_template": False}}, BARE),
    ("expectations.dpo", {"pairs": "improves"}, COMPARED | {"register_expectations"}),
    ("comparison.alpha", 0.01, COMPARED),
    ("plot.colours", ["#000000", "#111111", "#222222"], REPORT | MODEL_CARDS | DATA | PLOTS),
    ("report.language", "zh", REPORT),
    ("run.seed", 8, SEED),
    ("stages.dpo.time_limit", 5, set()),
    ("datasets.sums.expected", {"rows": 5}, set()),
    ("plan", {"gpu": "H100"}, REPORT | {"forecast_training"}),
    ("resources.train.memory_gb", 9, set()),
    ("resources.train.hours", 2, set()),
]


@pytest.mark.parametrize(("changed", "value", "expected"), CHANGES, ids=[changed for changed, _, _ in CHANGES])
def test_a_change_reruns_what_depends_on_it(
    finished: Path, tmp_path: Path, changed: str, value: Any, expected: set[str]
) -> None:
    recipe = copy.deepcopy(read_recipe("smoke"))
    section = recipe
    *path, key = changed.split(".")
    for name in path:
        section = section.setdefault(name, {})
    assert section.get(key) != value
    section[key] = value
    run = snakemake(finished, "--configfile", write_recipe(tmp_path, recipe), "-n")
    assert run.returncode == 0, run.stdout[-3000:]
    assert planned_jobs(run.stdout) == expected


def test_the_order_of_benchmarks_reruns_nothing(finished: Path, tmp_path: Path) -> None:
    recipe = copy.deepcopy(read_recipe("smoke"))
    recipe["benchmarks"] = dict(reversed(recipe["benchmarks"].items()))
    run = snakemake(finished, "--configfile", write_recipe(tmp_path, recipe), "-n")
    assert run.returncode == 0 and planned_jobs(run.stdout) == set(), run.stdout[-3000:]
