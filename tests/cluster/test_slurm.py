"""Jobs of an earlier Snakemake, as SLURM lists them. tests/slurm has tests on a real Slurm."""

from pathlib import Path

import pytest

from scripts.cluster.slurm import Job, find_jobs
from scripts.common.errors import UserError
from tests.cluster.conftest import Tool

SQUEUE = """\
echo "11|RUNNING|1:07|{here}|rule_train_sft_wildcards_sft"
echo "12|PENDING|0:00|{here}|rule_run_benchmark_wildcards_base_gsm8k"
echo "13|RUNNING|0:01|/elsewhere|a comment | of"
echo "two lines"
echo "14|RUNNING|0:09|{here}|rule_filter_dataset_wildcards_rows"
echo "15|RUNNING|0:09|{here}|"
"""

SCONTROL = """\
case $3 in
  11) echo "snakemake --wait-for-files 'work/mine/models/base/manifest.json'" ;;
  12) echo "snakemake --wait-for-files 'work/other/models/base/manifest.json'" ;;
  14) echo "snakemake --wait-for-files-file /tmp/list" ;;
  *) exit 1 ;;
esac
"""


def test_find_jobs_lists_those_of_this_run_in_this_folder(tmp_path: Path, tool: Tool) -> None:
    tool("squeue", SQUEUE.format(here=tmp_path))
    tool("scontrol", SCONTROL)
    assert find_jobs(tmp_path, "mine") == [
        Job("11", "RUNNING", "1:07", "train_sft_wildcards_sft"),
        Job("14", "RUNNING", "0:09", "filter_dataset_wildcards_rows"),  # its run is unknown
    ]
    assert [job.number for job in find_jobs(tmp_path, "another")] == ["14"]
    assert find_jobs(tmp_path / "a folder", "mine") == []


def test_without_slurm_there_are_no_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_jobs(tmp_path, "mine") == []


def test_find_jobs_reports_that_slurm_does_not_answer(tmp_path: Path, tool: Tool) -> None:
    tool("squeue", "echo 'squeue: error: Unable to contact slurm controller' >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"^SLURM does not answer: Unable to contact slurm controller$"):
        find_jobs(tmp_path, "mine")
