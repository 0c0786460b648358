"""Jobs that an earlier Snakemake left, as SLURM tells them; with a real one in tests/slurm."""

import os
from pathlib import Path

import pytest

from scripts.cluster.slurm import Job, find_jobs

SQUEUE = """#!/bin/sh
echo "11|RUNNING|1:07|rule_train_sft_wildcards_sft|{here}"
echo "12|PENDING|0:00|rule_run_benchmark_wildcards_base_gsm8k|{here}"
echo "13|RUNNING|0:01||/elsewhere"
"""

SCONTROL = """#!/bin/sh
case $3 in
  11) echo "snakemake --wait-for-files 'work/mine/models/base/manifest.json'" ;;
  12) echo "snakemake --wait-for-files 'work/other/models/base/manifest.json'" ;;
  *) exit 1 ;;
esac
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands, first in the path."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_jobs_of_this_run_in_this_folder(tmp_path: Path, tools: Path) -> None:
    _write(tools / "squeue", SQUEUE.format(here=tmp_path))
    _write(tools / "scontrol", SCONTROL)
    assert find_jobs(tmp_path, "mine") == [Job("11", "RUNNING", "1:07", "train_sft_wildcards_sft")]
    assert find_jobs(tmp_path, "another") == []
    assert find_jobs(tools, "mine") == []


def test_without_slurm_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_jobs(tmp_path, "mine") == []


def test_a_slurm_that_does_not_answer_has_none(tmp_path: Path, tools: Path) -> None:
    _write(tools / "squeue", "#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    assert find_jobs(tmp_path, "mine") == []
