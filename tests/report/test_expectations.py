"""The report on expectations: outcomes, later changes, and no findings among exploratory comparisons."""

import re
from dataclasses import replace

import pytest

from scripts.common.config import Expected
from scripts.common.records import Comparison, Outcome, Verdict
from scripts.report.contents import Tables
from tests.report.conftest import Write
from tests.report.conftest import plain as strip_escapes
from tests.report.tables import change, make_comparison, make_registration, make_seed_comparison, make_tables

NONE: Verdict = "no difference found"


def plain(report: str) -> str:
    """The report without escapes, emphasis and word joiners."""
    return strip_escapes(report).replace("*", "").replace("\u2060", "")


def _expected(
    benchmark: str, scores: tuple[float, float], expected: Expected, outcome: Outcome, model: str = "sft"
) -> Comparison:
    row = make_comparison("base", model, benchmark, scores, "improved" if outcome == "confirmed" else NONE)
    margin = 0.02 if expected == "holds" else None
    return change(row, family="confirmatory", expected=expected, outcome=outcome, margin=margin)


def _tables(*rows: Comparison, **changes: object) -> Tables:
    expectations = [
        {
            "model": row["model"],
            "baseline": row["baseline"],
            "benchmark": row["benchmark"],
            "expected": row["expected"],
            "margin": row["margin"],
        }
        for row in rows
        if row["expected"]
    ]
    registered = [make_registration(*expectations)]  # type: ignore[arg-type]
    return replace(make_tables(), **{"comparisons": list(rows), "registered": registered} | changes)  # type: ignore[arg-type]


SUMS = _expected("sums", (0.05, 0.345), "improves", "confirmed")
MMLU = _expected("mmlu-dev", (0.31, 0.30), "holds", "not confirmed")
PAIRS = _expected("pairs", (0.6, 0.4), "improves", "contradicted", "dpo")
STRAY = change(make_comparison("sft", "dpo", "sums", (0.3, 0.7), "improved"), family="exploratory")


def test_outcomes_are_sentences_and_a_table(write: Write) -> None:
    report = plain(write(_tables(SUMS, MMLU, PAIRS, STRAY)))
    assert "Expectations: 3. Confirmed: 1; not confirmed: 1; contradicted: 1." in report
    assert "They were registered on 2026-11-28 09:30 UTC (commit 0123456), before training began." in report
    sentence = (
        "sft against base: confirmed: sums improves (+29.5 points, 95% interval +24.5 to +34.5; n = 200; adjusted p "
        "<0.001); not confirmed: mmlu-dev holds within 2.0 points (−1.0 points, 95% interval −6.0 to +4.0; n = 200; "
        "adjusted p = 0.400)."
    )
    assert sentence in report
    assert "dpo against base: contradicted: pairs improves (−20.0 points" in report
    assert (
        "| sft against base | sums improves | 200 | 5.0 | 34.5 | +29.5 [+24.5, +34.5] | <0.001 | confirmed |" in report
    )
    assert "| not confirmed |" in report and "| contradicted |" in report


def test_exploratory_comparisons_are_no_findings(write: Write) -> None:
    report = plain(write(_tables(SUMS, STRAY)))
    assert "| sums | dpo against sft | 200 | 30.0 | 70.0 | +40.0 [+35.0, +45.0] | 7.1 | <0.001 | improved |" in report
    assert "dpo against sft:" not in report and "Improvements:" not in report
    assert report.count("Exploratory comparisons, of which nothing was expected") == 1
    seeds = (
        make_seed_comparison(family="exploratory"),
        make_seed_comparison(benchmark="talk", family="confirmatory", expected="improves", outcome="confirmed"),
    )
    report = plain(write(_tables(SUMS, seed_comparisons=list(seeds))))
    assert "sft, over 3 seeds, against base: improved on talk" in report
    assert "improved on sums" not in report


def test_without_expectations_nothing_is_exploratory(write: Write) -> None:
    report = plain(write())
    assert "Expectations:" not in report and "registered" not in report and "Exploratory" not in report
    assert "Comparisons: 9. Improvements:" in report


CHANGED = {
    "en": [
        "before training began. Expected at that time: sft against base: sums improves.",
        "They were changed after training began, on 2026-11-29 10:00 UTC (commit fedcba9).",
        "Expected at that time: sft against base: mmlu-dev holds within 2.0 points.",
    ],
    "zh": [
        "早于训练开始。 当时的预期：sft 对比 base：sums 提升。",
        "在训练开始后被修改。 当时的预期：sft 对比 base：mmlu-dev 降幅不超过 2.0 个百分点。",
    ],
}


@pytest.mark.parametrize("language", CHANGED)
def test_later_changes_are_shown_with_what_was_expected_before(write: Write, language: str) -> None:
    first, second = _tables(SUMS).registered[0], _tables(MMLU).registered[0]
    changed = change(second, after_training=True, created="2026-11-29T10:00:00+00:00", commit="fedcba9876543210")
    tables = _tables(MMLU, registered=[first, changed])
    report = plain(write(tables, language=language))
    for line in CHANGED[language]:
        assert line in report
    removed = change(changed, expectations=[])
    report = plain(write(_tables(STRAY, registered=[first, removed]), language=language))
    assert ("Expected at that time: nothing." if language == "en" else "当时的预期：无。") in report


def test_expectations_registered_late_are_marked(write: Write) -> None:
    late = change(_tables(SUMS).registered[0], after_training=True)
    report = plain(write(_tables(SUMS, registered=[late])))
    assert re.search(r"They were registered on .*, after training began\.", report)
