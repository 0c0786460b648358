"""Where differences come from: a sentence for improvements, and a table."""

from typing import Any

from scripts.common.records import Comparison
from scripts.report.origins import origin_table, origins
from scripts.report.words import Words
from tests.report.conftest import Write, plain
from tests.report.tables import change, make_comparison
from tests.report.test_write_report import with_comparisons


def _row(unreadable: float, **changes: Any) -> Comparison:
    origin = {
        "unreadable": {"items": 60, "difference": unreadable},
        "wrong": {"items": 130, "difference": 0.295 - unreadable + 0.01},
        "right": {"items": 10, "difference": -0.01},
    }
    return change(make_comparison("base", "sft", "sums", (0.05, 0.345), "improved"), **{"origin": origin} | changes)


SENTENCE = (
    "Of the +29.5 points of sft against base on sums, +24.0 come from the 60 of 200 items whose base answer could not "
    "be read."
)


def test_an_improvement_has_a_sentence(words: Words) -> None:
    assert [plain(sentence) for sentence in origins([_row(0.24)], words)] == [SENTENCE]
    assert origins([_row(0.0)], words) == origins([_row(-0.1)], words) == []
    assert origins([_row(0.24, verdict="no difference found"), _row(0.24, origin=None)], words) == []


def test_the_table_has_all_parts(words: Words) -> None:
    table = origin_table([_row(0.24, verdict="no difference found")], words)
    assert table is not None
    assert "| sums | sft against base | +29.5 | +24.0 (60) | +6.5 (130) | −1.0 (10) |" in plain(table)
    assert origin_table([_row(0.24, origin=None)], words) is None


def test_the_report_has_both(write: Write) -> None:
    report = plain(write(with_comparisons(_row(0.24))))
    assert SENTENCE in report and "Where the differences come from" in report
    report = plain(write(with_comparisons(_row(0.24, origin=None))))
    assert "could not be read" not in report and "Where the differences" not in report
    expected = _row(0.24, family="confirmatory", expected="improves", outcome="confirmed")
    stray = _row(0.2, model="dpo", family="exploratory")
    report = plain(write(with_comparisons(expected, stray)))
    assert report.count("could not be read.") == 1 and SENTENCE in report, "exploratory rows are only in the table"
