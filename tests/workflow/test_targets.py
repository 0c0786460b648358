"""Dry runs of targets: each plans the jobs that it needs and no others."""

import re
from pathlib import Path

import pytest

from scripts.common.config.loader import load_config
from scripts.common.paths import RunPaths
from scripts.common.targets import READ_ONLY_TARGETS
from tests.workflow.running import RECIPES, REPOSITORY, planned_jobs, read_recipe, snakemake, write_recipe


def plan(folder: Path, *targets: str, recipe: str | None = "smoke") -> set[str]:
    arguments = ["--configfile", str(RECIPES / f"{recipe}.yaml")] if recipe else []
    run = snakemake(folder, "-n", *targets, *arguments)
    assert run.returncode == 0, run.stdout[-3000:]
    return planned_jobs(run.stdout)


def test_sft_needs_its_data_and_the_base(tmp_path: Path) -> None:
    assert plan(tmp_path, "sft") == {
        "sft", "train_sft sft", "filter_dataset sums", "inspect_rows sums 0", "download_dataset sums", "download_model",
        "download_benchmark chain_sum", "download_benchmark traps", "check_stage sft", "register_expectations",
    }  # fmt: skip


def test_dpo_needs_sft_and_pairs(tmp_path: Path) -> None:
    jobs = plan(tmp_path, "dpo")
    assert {"train_dpo dpo", "train_sft sft", "sample_rejections pairs"} <= jobs
    assert not any(job.startswith(("run_benchmark", "score_preferences", "plot", "write_report")) for job in jobs)


def test_a_benchmark_scores_every_model(tmp_path: Path) -> None:
    jobs = plan(tmp_path, "chain_sum")
    assert {f"run_benchmark {model} chain_sum" for model in ("base", "sft", "dpo")} <= jobs
    assert not any(job.startswith(("score_preferences", "compare_models")) for job in jobs)


def test_torchrun_starts_the_processes_of_a_benchmark(tmp_path: Path) -> None:
    """Each process has the cores of one evaluation. The other benchmark has one process."""
    recipe = read_recipe("smoke")
    recipe["benchmarks"]["chain_sum"]["processes"] = 3
    path = write_recipe(tmp_path, recipe)
    shown = snakemake(tmp_path, "chain_sum", "traps", "-n", "-p", "--cores", "8", "--configfile", path).stdout
    shared = "torchrun --standalone --nproc-per-node 3 -m -- scripts.evaluate.run_benchmark --name chain_sum"
    assert shown.count(shared) == 3 and shown.count("python -m scripts.evaluate.run_benchmark --name traps") == 3
    assert shown.count("cpus_per_task=3,") == 3


def test_plan_needs_no_other_job(tmp_path: Path) -> None:
    assert plan(tmp_path, "plan") == {"plan"}


def test_data_trains_only_the_stage_whose_answers_it_samples(tmp_path: Path) -> None:
    jobs = plan(tmp_path, "data")
    assert "filter_dataset pairs" in jobs and "train_sft sft" in jobs
    assert "train_dpo dpo" not in jobs


def test_named_targets_exist(tmp_path: Path) -> None:
    targets = {"plots", "report", "models", "benchmarks", "data", "all"}
    assert targets <= plan(tmp_path, *targets)


def test_each_shard_is_a_job(tmp_path: Path) -> None:
    recipe = read_recipe("smoke")
    recipe["datasets"]["sums"]["shards"] = 4
    run = snakemake(tmp_path, "-n", "sft", "--configfile", write_recipe(tmp_path, recipe))
    inspected = {job for job in planned_jobs(run.stdout) if job.startswith("inspect_rows")}
    assert inspected == {f"inspect_rows sums {shard}" for shard in range(4)}


def test_the_default_config_trains_and_scores_everything(tmp_path: Path) -> None:
    jobs = plan(tmp_path, recipe=None)
    assert {"train_sft sft", "train_dpo dpo", "run_benchmark dpo humaneval", "build_pdf"} <= jobs
    assert sum(job.startswith("run_benchmark") for job in jobs) == 39


def test_every_recipe_plans(tmp_path: Path) -> None:
    for path in sorted(RECIPES.glob("*.yaml")):
        config = load_config(read_recipe(path.stem))
        jobs = plan(tmp_path, recipe=path.stem)
        assert {f"train_{stage.method} {name}" for name, stage in config.stages.items()} <= jobs


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the pipeline's rules: those of a run without stages and benchmarks."""
    folder = tmp_path_factory.mktemp("rules")
    recipe = read_recipe("smoke") | {"stages": {}, "expectations": {}, "datasets": {}, "benchmarks": {}}
    run = snakemake(folder, "--list-rules", "--configfile", write_recipe(folder, recipe))
    assert run.returncode == 0, run.stdout[-3000:]
    return run.stdout.split()


def test_a_run_adds_a_rule_for_each_stage_and_benchmark(tmp_path: Path, rules: list[str]) -> None:
    run = snakemake(tmp_path, "--list-rules", "--configfile", RECIPES / "smoke.yaml")
    config = load_config(read_recipe("smoke"))
    assert sorted(run.stdout.split()) == sorted([*rules, *config.stages, *config.benchmarks])


@pytest.mark.parametrize("group", ["stages", "benchmarks", "datasets"])
def test_the_name_of_every_rule_is_refused(tmp_path: Path, rules: list[str], group: str) -> None:
    assert {"all", "data", "train_sft", "run_benchmark", "report", *READ_ONLY_TARGETS} <= set(rules)
    recipe = read_recipe("smoke")
    section = {"stages": "sft", "benchmarks": "chain_sum", "datasets": "sums"}[group]
    for number, name in enumerate(rules):
        seed = {"seed": 100 + number} if group == "stages" else {}  # no two stages may be identical
        recipe[group][name] = recipe[group][section] | seed
    run = snakemake(tmp_path, "-n", "--configfile", write_recipe(tmp_path, recipe))
    assert run.returncode == 1 and "Traceback" not in run.stdout
    refused = re.findall(rf"^error: .*recipe.yaml: {group}\.(\w+): this name is taken by a target", run.stdout, re.M)
    assert sorted(refused) == sorted(rules)


def test_the_path_of_each_log_identifies_its_job(tmp_path: Path) -> None:
    """`snakemake status` relies on these paths."""
    run = snakemake(tmp_path, "-n", "all", "--configfile", RECIPES / "smoke.yaml")
    logs = [Path(log) for log in re.findall(r"^    log: (\S+)$", run.stdout, re.MULTILINE)]
    jobs = {" ".join(RunPaths("smoke").rule_of(log)).replace(".", " ") for log in logs}
    assert jobs == planned_jobs(run.stdout) - {"all"} and "inspect_rows sums 0" in jobs


def test_the_cluster_profile_is_found_by_its_name(tmp_path: Path) -> None:
    """Snakemake looks for a profile in the folder in which it is started, where a link leads to profiles/slurm."""
    run = snakemake(tmp_path, "-n", "--profile", "slurm", started_in=REPOSITORY)
    assert run.returncode == 0, run.stdout[-3000:]
    assert "train_sft sft" in planned_jobs(run.stdout)
    assert "gpu_model=h100" in run.stdout and "gpu=4" in run.stdout and "runtime=1440" in run.stdout


def test_a_judge_scores_the_answers_of_all_models(tmp_path: Path) -> None:
    recipe = read_recipe("smoke") | {"judge": {"url": "http://127.0.0.1:9/v1", "model": "wise"}}
    run = snakemake(tmp_path, "-n", "--configfile", write_recipe(tmp_path, recipe))
    assert run.returncode == 0, run.stdout[-3000:]
    assert {f"judge_answers {model} traps_judged" for model in ("base", "sft", "dpo")} <= planned_jobs(run.stdout)
