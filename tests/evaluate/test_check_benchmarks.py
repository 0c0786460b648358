"""Checks that benchmarks would run offline, before any job is submitted."""

import re
from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from tests.common.running import OWN_TASKS, call_main

TRAPS = {"task": "traps", "source": {"kind": "own"}, "metric": "rule_points", "unsafe_code": False}
EASY = {"task": "arc_easy", "metric": "acc_norm", "unsafe_code": False}


def _check(folder: Path, benchmarks: dict[str, Any]) -> None:
    call_main("evaluate.check_benchmarks", folder, benchmarks=benchmarks, tasks=OWN_TASKS)


def test_reports_each_benchmark(tmp_path: Path, hub_mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirrored = EASY | {"source": {"kind": "file", "path": str(hub_mirror)}}
    _check(tmp_path, {"traps": TRAPS, "easy": mirrored})
    output = capsys.readouterr().err
    assert "traps: would run; 50 questions from file benchmarks/traps.jsonl" in output
    assert re.search(r"easy: would run; 12 questions from folder \S+", output)
    assert not list(tmp_path.rglob("*.parquet")), "the check leaves no files"


def test_refuses_a_metric_that_the_task_does_not_have(tmp_path: Path, hub_mirror: Path) -> None:
    mirrored = EASY | {"source": {"kind": "file", "path": str(hub_mirror)}, "metric": "acc_nrom"}
    with pytest.raises(UserError, match=r"^benchmarks.easy.metric: .* 'acc_nrom'; did you mean 'acc_norm'\?$"):
        _check(tmp_path, {"easy": mirrored})


def test_reports_all_benchmarks_that_would_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = {"task": "piqa", "metric": "acc", "source": {"kind": "hub"}, "unsafe_code": False}
    gone = {"task": "piqa", "metric": "acc", "source": {"kind": "file", "path": "nowhere"}, "unsafe_code": False}
    with pytest.raises(UserError) as caught:
        _check(tmp_path, {"absent": absent, "traps": TRAPS, "gone": gone})
    first, second = str(caught.value).splitlines()
    assert first.startswith("benchmarks.absent: the data of task piqa cannot be loaded: ")
    assert "set HF_HOME to a cache that has it" in first
    assert second == "benchmarks.gone.source.path: nowhere is not a folder"
    output = capsys.readouterr().err
    assert "absent: would not run" in output and "traps: would run" in output
