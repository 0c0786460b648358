"""Targets by name, dry: each brings what it needs and nothing else."""

from pathlib import Path

import pytest

from scripts.common.config import RULES, TARGETS
from scripts.common.load_config import load_config
from tests.workflow.running import RECIPES, REPOSITORY, planned_jobs, read_recipe, snakemake, write_recipe


def plan(folder: Path, *targets: str, recipe: str | None = "smoke") -> set[str]:
    arguments = ["--configfile", str(RECIPES / f"{recipe}.yaml")] if recipe else []
    run = snakemake(folder, "-n", *targets, *arguments)
    assert run.returncode == 0, run.stdout[-3000:]
    return planned_jobs(run.stdout)


def test_sft_needs_its_data_and_the_base(tmp_path: Path) -> None:
    assert plan(tmp_path, "sft") == {
        "sft", "train_sft sft", "filter_dataset sums", "inspect_rows sums 0", "download_dataset sums", "download_model",
        "download_benchmark chain_sum", "download_benchmark traps", "check_stage sft",
    }  # fmt: skip


def test_dpo_needs_sft_and_pairs(tmp_path: Path) -> None:
    jobs = plan(tmp_path, "dpo")
    assert {"train_dpo dpo", "train_sft sft", "sample_rejections pairs"} <= jobs
    assert not any(job.startswith(("run_benchmark", "score_preferences", "plot", "write_report")) for job in jobs)


def test_benchmark_runs_for_every_model(tmp_path: Path) -> None:
    jobs = plan(tmp_path, "chain_sum")
    assert {f"run_benchmark {model} chain_sum" for model in ("base", "sft", "dpo")} <= jobs
    assert not any(job.startswith(("score_preferences", "compare_models")) for job in jobs)


def test_processes_that_share_questions_are_started_by_torchrun(tmp_path: Path) -> None:
    """Each with the cores of an evaluation; the other benchmark stays by itself."""
    recipe = read_recipe("smoke")
    recipe["benchmarks"]["chain_sum"]["processes"] = 3
    path = write_recipe(tmp_path, recipe)
    told = snakemake(tmp_path, "chain_sum", "traps", "-n", "-p", "--cores", "8", "--configfile", path).stdout
    shared = "torchrun --standalone --nproc-per-node 3 -m -- scripts.evaluate.run_benchmark --name chain_sum"
    assert told.count(shared) == 3 and told.count("python -m scripts.evaluate.run_benchmark --name traps") == 3
    assert told.count("cpus_per_task=3,") == 3


def test_a_plan_needs_nothing(tmp_path: Path) -> None:
    assert plan(tmp_path, "plan") == {"plan"}


def test_data_trains_only_what_answers(tmp_path: Path) -> None:
    jobs = plan(tmp_path, "data")
    assert "filter_dataset pairs" in jobs and "train_sft sft" in jobs
    assert "train_dpo dpo" not in jobs


@pytest.mark.parametrize("target", ["plots", "report", "models", "benchmarks", "all"])
def test_named_targets_exist(tmp_path: Path, target: str) -> None:
    assert target in plan(tmp_path, target)


def test_shards_are_jobs_side_by_side(tmp_path: Path) -> None:
    recipe = read_recipe("smoke")
    recipe["datasets"]["sums"]["shards"] = 4
    run = snakemake(tmp_path, "-n", "sft", "--configfile", write_recipe(tmp_path, recipe))
    inspected = {job for job in planned_jobs(run.stdout) if job.startswith("inspect_rows")}
    assert inspected == {f"inspect_rows sums {shard}" for shard in range(4)}


def test_default_run_is_the_course_project(tmp_path: Path) -> None:
    jobs = plan(tmp_path, recipe=None)
    assert {"train_sft sft", "train_dpo dpo", "run_benchmark dpo humaneval", "build_pdf"} <= jobs
    assert sum(job.startswith("run_benchmark") for job in jobs) == 33


def test_every_recipe_plans(tmp_path: Path) -> None:
    for path in sorted(RECIPES.glob("*.yaml")):
        config = load_config(read_recipe(path.stem))
        jobs = plan(tmp_path, recipe=path.stem)
        assert {f"train_{stage.method} {name}" for name, stage in config.stages.items()} <= jobs


def test_every_rule_is_a_reserved_name(tmp_path: Path) -> None:
    run = snakemake(tmp_path, "--list-rules", "--configfile", RECIPES / "smoke.yaml")
    config = load_config(read_recipe("smoke"))
    assert set(run.stdout.split()) == {*TARGETS, *RULES, *config.stages, *config.benchmarks}


def test_cluster_profile_is_found_by_its_plain_name(tmp_path: Path) -> None:
    """Snakemake looks for a profile's name in the folder where it is started: the link at the root serves that."""
    run = snakemake(tmp_path, "-n", "--profile", "slurm", started_in=REPOSITORY)
    assert run.returncode == 0, run.stdout[-3000:]
    assert "train_sft sft" in planned_jobs(run.stdout)
    assert "gpu_model=h100" in run.stdout and "gpu=4" in run.stdout and "runtime=1440" in run.stdout


def test_a_judge_scores_what_was_answered(tmp_path: Path) -> None:
    recipe = read_recipe("smoke") | {"judge": {"url": "http://127.0.0.1:9/v1", "model": "wise"}}
    run = snakemake(tmp_path, "-n", "--configfile", write_recipe(tmp_path, recipe))
    assert run.returncode == 0, run.stdout[-3000:]
    assert {f"judge_answers {model} traps_judged" for model in ("base", "sft", "dpo")} <= planned_jobs(run.stdout)
