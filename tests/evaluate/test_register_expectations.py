"""Expectations are kept as they were before training, and later changes are further entries."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from scripts.common.config import ExpectedChange
from scripts.common.files import read_json, write_json
from scripts.common.records import Registration
from scripts.evaluate.expectations import read_expected
from scripts.evaluate.register_expectations import register
from tests.common.running import call_main
from tests.report.tables import make_registration


def _change(benchmark: str) -> ExpectedChange:
    return {"model": "sft", "baseline": "base", "benchmark": benchmark, "expected": "improves", "margin": None}


FIRST, SECOND = make_registration(_change("sums")), make_registration(_change("talk"))
LATER: Registration = {**SECOND, "after_training": True}


def test_before_training_the_newest_entry_replaces_the_others() -> None:
    assert register([], FIRST) == [FIRST]
    assert register([FIRST], SECOND) == [SECOND]


def test_after_training_every_change_is_kept() -> None:
    assert register([FIRST], LATER) == [FIRST, LATER]
    again: Registration = {**FIRST, "after_training": True}
    assert register([FIRST, LATER], again) == [FIRST, LATER, again]


def test_the_same_expectations_keep_their_date() -> None:
    assert register([FIRST], {**FIRST, "created": "2030-01-01T00:00:00+00:00", "after_training": True}) == [FIRST]


def test_another_order_is_no_change() -> None:
    both = make_registration(_change("sums"), _change("talk"))
    assert register([both], make_registration(_change("talk"), _change("sums"), after_training=True)) == [both]


def _run(folder: Path, *expected: ExpectedChange, **options: Any) -> list[Registration]:
    options = {"config_sha256": "ab" * 32, "output": "expectations.json"} | options
    call_main("evaluate.register_expectations", folder, expectations=json.dumps(expected), **options)
    return list(read_json(folder / "expectations.json"))


def test_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = [tmp_path / "sft", tmp_path / "dpo"]
    stages[0].mkdir()
    (entry,) = _run(tmp_path, _change("sums"), stages=stages)
    assert entry["expectations"] == [_change("sums")] and not entry["after_training"]
    assert entry["config_sha256"] == "ab" * 32 and datetime.fromisoformat(entry["created"]).tzinfo is not None
    assert capsys.readouterr().err.endswith("register_expectations: 1 expectations, before training\n")
    (stages[0] / "checkpoints").mkdir()
    first, second = _run(tmp_path, _change("talk"), stages=stages, config_sha256="cd" * 32)
    assert first == entry and second["after_training"] and second["config_sha256"] == "cd" * 32
    assert capsys.readouterr().err.endswith("register_expectations: 1 expectations, after training began\n")
    assert read_expected(tmp_path / "expectations.json") == {("base", "sft", "talk"): "improves"}


def test_a_run_may_expect_nothing(tmp_path: Path) -> None:
    (entry,) = _run(tmp_path)
    assert entry["expectations"] == []
    write_json(tmp_path / "expectations.json", [entry])
    assert read_expected(tmp_path / "expectations.json") == {}
