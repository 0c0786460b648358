"""Bad input is reported in one clear line, before anything runs if possible, and never with a traceback."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.running import planned_jobs, read_recipe, snakemake, write_recipe


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The smoke recipe with values set by dotted paths."""
    recipe = copy.deepcopy(read_recipe("smoke"))
    for path, value in changes.items():
        section = recipe
        *names, key = path.split(".")
        for name in names:
            section = section[name]
        section[key] = value
    return recipe


REFUSED = [
    ({"stages.dpo.parent": "sft"}, "stages.dpo.parent: unknown key"),
    ({"benchmarks.chain_sum.shot": 5}, "benchmarks.chain_sum.shot: unknown key; did you mean 'shots'?"),
    ({"stages.dpo.from": "stf"}, "stages.dpo.from: unknown stage 'stf'; did you mean 'sft'?"),
    ({"stages.sft.from": "dpo"}, "stages.sft.from: sft needs dpo, which needs sft; break this circular dependency"),
    ({"benchmarks.chain_sum.task": "chain_sums"}, "lm-eval knows no task 'chain_sums'; did you mean 'chain_sum'?"),
    ({"datasets.pairs.source.model": "stf"}, "datasets.pairs.source.model: unknown stage 'stf'"),
]


@pytest.mark.parametrize(("changes", "line"), REFUSED, ids=[line for _, line in REFUSED])
def test_is_refused_before_anything_runs(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    run = snakemake(tmp_path, "--configfile", write_recipe(tmp_path, changed(changes)), "--cores", "1")
    assert run.returncode != 0
    assert sum(line in shown for shown in run.stdout.splitlines()) == 1, run.stdout
    assert "Traceback" not in run.stdout
    assert planned_jobs(run.stdout) == set()


SUMS = "work/smoke/datasets/sums"
ALONE = {"benchmark_overlap": "ignore"}
"""Filters of rows that need no benchmark."""

FAILING = [
    (
        {"datasets.sums.source": {"kind": "file", "path": "nowhere/*.jsonl"}},
        f"{SUMS}/source.parquet",
        "no file matches nowhere/*.jsonl",
    ),
    (
        {"datasets.sums.filters": {"max_tokens": 5} | ALONE},
        f"{SUMS}/train.parquet",
        "no row is left to train on after filtering",
    ),
    (
        {"model.source": {"kind": "file", "path": "."}},
        "work/smoke/models/base/manifest.json",
        "it has no config.json",
    ),
    (
        {"benchmarks.traps": {"task": "piqa", "metric": "acc", "source": {"kind": "file", "path": "nowhere"}}},
        "work/smoke/benchmarks/traps/manifest.json",
        "benchmarks.traps.source.path: nowhere is not a folder",
    ),
    (
        {"benchmarks.chain_sum.metric": "exact"},
        "results/smoke/scores/base/chain_sum.json",
        "has no metric 'exact'; did you mean 'exact_match'?",
    ),
    (
        {"stages.sft.args.learning_rat": 1},
        "work/smoke/stages/sft.json",
        "no such field; did you mean 'learning_rate'?",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "target", "line"), FAILING, ids=[line for _, _, line in FAILING])
def test_fails_with_one_line(tmp_path: Path, changes: dict[str, Any], target: str, line: str) -> None:
    recipe = write_recipe(tmp_path, changed(changes))
    run = snakemake(tmp_path, target, "--configfile", recipe, "--cores", "2", "--quiet", "rules")
    assert run.returncode != 0
    assert sum(line in shown for shown in run.stdout.splitlines()) == 1, run.stdout
    assert "Traceback" not in run.stdout
