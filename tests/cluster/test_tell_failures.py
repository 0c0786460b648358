"""What a head says at its very end of what failed."""

import copy
from pathlib import Path

import pytest

from tests.workflow.running import read_recipe, snakemake, write_recipe


@pytest.mark.parametrize(("arguments", "times"), [([], 1), (["--keep-going"], 2)], ids=["stops", "keeps going"])
def test_a_single_failure_is_told_again_where_more_may_lie_behind_it(
    tmp_path: Path, arguments: list[str], times: int
) -> None:
    recipe = copy.deepcopy(read_recipe("smoke"))
    recipe["datasets"]["sums"]["source"] = {"kind": "file", "path": "nowhere/*.jsonl"}
    options = ["--configfile", str(write_recipe(tmp_path, recipe)), "--cores", "1", "--quiet", "rules", *arguments]
    run = snakemake(tmp_path, "work/smoke/datasets/sums/source.parquet", *options)
    assert run.returncode == 1
    said = [line for line in run.stdout.splitlines() if line.strip()]
    assert sum("no file matches nowhere/*.jsonl" in line for line in said) == times, run.stdout
    if times == 2:
        failed = said[said.index("failed") :]
        assert failed[1].strip() == "logs/smoke/download_dataset/sums.log" and "no file matches" in failed[2]
