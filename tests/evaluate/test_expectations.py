"""What was expected, and one line for each outcome."""

import os
from pathlib import Path

from scripts.common.files import write_json
from scripts.evaluate.expectations import list_outcomes
from tests.report.tables import change, make_comparison


def test_each_expectation_has_a_line(tmp_path: Path) -> None:
    gain = make_comparison("base", "sft", "sums", (0.05, 0.345), "improved")
    drop = make_comparison("sft", "dpo", "mmlu", (0.31, 0.29), "no difference found")
    rows = [
        change(gain, family="confirmatory", expected="improves", outcome="confirmed"),
        change(gain, family="exploratory", model="dpo"),
        change(drop, family="confirmatory", expected="holds", outcome="not confirmed", margin=0.025),
    ]
    path = tmp_path / "comparison.json"
    write_json(path, rows)
    assert list_outcomes(path, since=0.0) == [
        "confirmed: sft against base: sums improves (+29.5 points, n = 200, adjusted p <0.001)",
        "not confirmed: dpo against sft: mmlu holds within 2.5 points (−2.0 points, n = 200, adjusted p = 0.400)",
    ]


def test_an_older_or_missing_comparison_has_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    assert list_outcomes(path, since=0.0) == []
    row = make_comparison("base", "sft", "sums", (0.05, 0.345), "improved")
    write_json(path, [change(row, family="confirmatory", expected="improves", outcome="confirmed")])
    os.utime(path, (1_000, 1_000))
    assert list_outcomes(path, since=1_001.0) == [] and len(list_outcomes(path, since=999.0)) == 1
