"""Runs with fewer steps: only an evaluation of the base model, and only a data set from a local file."""

import copy
import json
from pathlib import Path

import pytest

from tests.workflow.running import planned_jobs, read_recipe, snakemake, write_recipe

pytestmark = pytest.mark.slow


def test_an_evaluation_of_only_the_base_gives_a_report(tmp_path: Path) -> None:
    recipe = copy.deepcopy(read_recipe("smoke")) | {"stages": {}, "expectations": {}, "datasets": {}}
    run = snakemake(tmp_path, "--configfile", write_recipe(tmp_path, recipe), "--cores", "2")
    assert run.returncode == 0, run.stdout[-3000:]
    assert json.loads((tmp_path / "results/smoke/comparison.json").read_text()) == []
    assert (tmp_path / "results/smoke/report.pdf").read_bytes().startswith(b"%PDF")


def test_a_benchmark_is_scored_under_several_protocols(tmp_path: Path) -> None:
    """Both scores come from one download. Another protocol later runs nothing but itself and what reads its score."""
    recipe = copy.deepcopy(read_recipe("smoke")) | {"stages": {}, "expectations": {}, "datasets": {}}
    del recipe["benchmarks"]["traps"]
    recipe["benchmarks"]["chain_sum"]["protocols"] = {"bare": {"chat_template": False}}
    run = snakemake(tmp_path, "chain_sum", "--configfile", write_recipe(tmp_path, recipe), "--cores", "2")
    assert run.returncode == 0, run.stdout[-3000:]
    scores = [tmp_path / f"results/smoke/scores/base/{name}.json" for name in ("chain_sum", "chain_sum_bare")]
    main, bare = (json.loads(path.read_text()) for path in scores)
    assert main["protocol"]["chat_template"] and not bare["protocol"]["chat_template"]
    assert main["n"] == bare["n"] == 16 and bare["benchmark"] == "chain_sum_bare"
    assert [path.name for path in (tmp_path / "work/smoke/benchmarks").glob("*/questions.jsonl")] == ["questions.jsonl"]

    recipe["benchmarks"]["chain_sum"]["protocols"]["short"] = {"max_new_tokens": 4}
    again = snakemake(tmp_path, "chain_sum", "--configfile", write_recipe(tmp_path, recipe), "-n")
    assert planned_jobs(again.stdout) == {"run_benchmark base chain_sum_short", "chain_sum"}


def test_a_changed_local_file_reruns_the_data_set(tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": str(i)}, {"role": "assistant", "content": "x"}] for i in range(9)]
    rows = [{"messages": messages} for messages in turns]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[:8]))
    recipe = copy.deepcopy(read_recipe("smoke"))
    alone = {"benchmark_overlap": "ignore"}
    recipe["datasets"]["sums"] = {"source": {"kind": "file", "path": "rows.jsonl"}, "filters": alone}
    arguments: list[str | Path] = [
        "work/smoke/datasets/sums/train.parquet",
        "--configfile",
        write_recipe(tmp_path, recipe),
    ]
    assert snakemake(tmp_path, *arguments, "--cores", "2").returncode == 0
    assert planned_jobs(snakemake(tmp_path, *arguments, "-n").stdout) == set()
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    jobs = planned_jobs(snakemake(tmp_path, *arguments, "-n").stdout)
    assert jobs == {"download_dataset sums", "inspect_rows sums 0", "filter_dataset sums"}
