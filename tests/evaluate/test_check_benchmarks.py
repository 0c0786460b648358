"""Whether benchmarks would run without the internet, told one by one before a cluster's hours are spent."""

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


def test_each_is_told(tmp_path: Path, hub_mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirrored = EASY | {"source": {"kind": "file", "path": str(hub_mirror)}}
    _check(tmp_path, {"traps": TRAPS, "easy": mirrored})
    told = capsys.readouterr().err
    assert "traps: would run; 50 questions from file benchmarks/traps.jsonl" in told
    assert re.search(r"easy: would run; 12 questions from folder \S+", told)
    assert not list(tmp_path.rglob("*.parquet")), "it only looks"


def test_a_metric_that_the_task_does_not_have_is_told(tmp_path: Path, hub_mirror: Path) -> None:
    mirrored = EASY | {"source": {"kind": "file", "path": str(hub_mirror)}, "metric": "acc_nrom"}
    with pytest.raises(UserError, match=r"^benchmarks.easy.metric: .* 'acc_nrom'; did you mean 'acc_norm'\?$"):
        _check(tmp_path, {"easy": mirrored})


def test_all_that_would_not_run_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = {"task": "piqa", "metric": "acc", "source": {"kind": "hub"}, "unsafe_code": False}
    gone = {"task": "piqa", "metric": "acc", "source": {"kind": "file", "path": "nowhere"}, "unsafe_code": False}
    with pytest.raises(UserError) as caught:
        _check(tmp_path, {"absent": absent, "traps": TRAPS, "gone": gone})
    first, second = str(caught.value).splitlines()
    assert first.startswith("benchmarks.absent: the data of task piqa cannot be read: ")
    assert "set HF_HOME to a filled cache" in first
    assert second == "benchmarks.gone.source.path: nowhere is no folder"
    told = capsys.readouterr().err
    assert "absent: would not run" in told and "traps: would run" in told
