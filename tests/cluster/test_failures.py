"""The list of failures at the end of a run."""

import copy
from pathlib import Path

import pytest

from tests.workflow.running import read_recipe, snakemake, write_recipe


@pytest.mark.parametrize(("arguments", "times"), [([], 1), (["--keep-going"], 2)], ids=["stops", "keeps going"])
def test_a_single_failure_is_repeated_only_if_more_output_may_follow_it(
    tmp_path: Path, arguments: list[str], times: int
) -> None:
    recipe = copy.deepcopy(read_recipe("smoke"))
    recipe["datasets"]["sums"]["source"] = {"kind": "file", "path": "nowhere/*.jsonl"}
    options = ["--configfile", str(write_recipe(tmp_path, recipe)), "--cores", "1", "--quiet", "rules", *arguments]
    run = snakemake(tmp_path, "work/smoke/datasets/sums/source.parquet", *options)
    assert run.returncode == 1
    lines = [line for line in run.stdout.splitlines() if line.strip()]
    assert sum("no file matches nowhere/*.jsonl" in line for line in lines) == times, run.stdout
    if times == 2:
        failed = lines[lines.index("failed") :]
        assert failed[1].strip() == "logs/smoke/download_dataset/sums.log" and "no file matches" in failed[2]
