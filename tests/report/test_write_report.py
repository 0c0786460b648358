"""The report in Markdown: its numbers are those of the tables, and it claims no more than they show."""

import re
from dataclasses import replace

import pytest

from scripts.common.errors import UserError
from scripts.common.records import Comparison, Verdict
from scripts.report.contents import Tables
from tests.report.conftest import Write, plain
from tests.report.tables import (
    change,
    make_card,
    make_comparison,
    make_items,
    make_other,
    make_overlap,
    make_registration,
    make_score,
    make_seed_comparison,
    make_tables,
)

NONE_FOUND: Verdict = "no difference found"


def with_comparisons(*rows: Comparison) -> Tables:
    return replace(make_tables(), comparisons=list(rows))


def test_numbers_come_from_the_tables(write: Write) -> None:
    report = plain(write())
    for line in (
        "| Base model | package tiny-model 1.0; SHA-256 abababababab; dequantised from GGUF: not the original",
        "| Parameters | 134.5 M |",
        "| Stage dpo | DPO from sft on pairs; LoRA, r = 16, alpha = 32, dropout = 0.0; 20 steps; seed 42 |",
        "| Seed | 42 |",
        "| Total job time | 15 min 10 s, summed over the jobs in the provenance table |",
        "| sums | 652 | too long 12, duplicates 3 | 637 | 600 | 25 | 12 |",
        "| sft | SFT | 600 | 20 | 133 | 120 | 2.500 | 0.559 | 1.4 GB |",
        "| sums | exact_match, last-number, 5-shot | 200 | 5.0 [0.0, 12.0] | 34.5 [28.5, 41.5] | 36.5 [30.5, 43.5] |",
        "| sums | sft against base | 200 | 5.0 | 34.5 | +29.5 [+24.5, +34.5] | 7.1 | <0.001 | improved |",
        "| mmlu-dev | sft against base | 200 | 31.0 | 30.0 | −1.0 [−6.0, +4.0] | 7.1 | 0.400 | no difference found |",
        "| mathematics and algorithms | sums and mmlu-dev | 485 | 20.0 [15.0, 25.0] weak | 50.0 [45.0, 55.0] good |",
        "| pairs | log-probability margin | 200 | 12.500 [−1.250, 26.000] |",
        "| pairs | preference accuracy by mean log-probability | 200 | 60.0 [50.0, 70.0] |",
        "| model sft | base, data set sums | 0123456+ | CPU (x86_64) | 1 min 5 s | 1.4 GB |",
        "All of these were made with python 3.11.7, torch 2.9.0, transformers 5.0.0, trl 1.0.0.",
    ):
        assert line in report


def test_significant_differences_have_their_numbers(write: Write) -> None:
    report = plain(
        write(
            with_comparisons(
                make_comparison("base", "sft", "sums", (0.05, 0.345), "improved"),
                make_comparison("base", "sft", "pairs", (0.6, 0.4), "worsened"),
            )
        )
    )
    assert "improved on sums (+29.5 points, 95% interval +24.5 to +34.5; n = 200; adjusted p <0.001)" in report
    assert "worsened on pairs (−20.0 points, 95% interval −25.0 to −15.0; n = 200; adjusted p <0.001)" in report
    assert "Comparisons: 2. Improvements: 1; declines: 1; held: 0; no difference found: 0." in report


@pytest.mark.parametrize(("language", "claim"), [("en", "improve(s|d)"), ("zh", "有提升")])
def test_a_higher_score_without_significance_is_no_improvement(write: Write, language: str, claim: str) -> None:
    row = make_comparison("base", "sft", "sums", (0.1, 0.9), NONE_FOUND)
    assert not re.search(claim, write(with_comparisons(row), language=language))
    assert re.search(claim, write(with_comparisons(change(row, verdict="improved")), language=language))


def test_all_intervals_of_comparisons_have_the_same_level(write: Write) -> None:
    """With an alpha of 0.1 they are 90% intervals. Those of single scores remain 95% intervals."""
    report = plain(write(alpha=0.1))
    for words in (
        "improved on sums (+29.5 points, 90% interval +24.5 to +34.5;",
        "is below 0.1.",
        "Paired comparisons in percentage points, with 90% intervals",
        "These intervals are at 90%.",
    ):
        assert words in report
    assert "95% interval +" not in report and "Scores in percent, with 95% intervals." in report


def test_the_date_is_that_of_the_newest_part(write: Write) -> None:
    """In UTC, not today's date, so that the same tables always give the same report."""
    tables = make_tables()
    tables.stages[0]["created"] = "2026-03-04T05:06:07+02:00"
    report = write(tables)
    assert "\ncreated: 1772593567\n" in report
    assert 'date: "2026-03-04 03:06 UTC"' in plain(report).replace("\u2060", "")


def test_many_benchmarks_are_listed_without_intervals(write: Write) -> None:
    rows = [make_comparison("base", "sft", f"b{place}", (0.5, 0.51), NONE_FOUND) for place in range(5)]
    report = plain(write(with_comparisons(*rows)))
    assert "no difference found on b0 (+1.0 points, adjusted p = 0.400), b1 (+1.0 points, adjusted p = 0.400)" in report


def test_samples_show_the_same_items_for_all_models(write: Write) -> None:
    items = {model: make_items(model) for model in ("base", "sft", "dpo")}
    items["sft"].reverse()
    report = plain(write(items=items, examples=2))
    assert report.count("| Prompt |") == 2
    assert "| base | I do not know | wrong |\n| sft | 4 + 0 ↵ = 4 | right |\n| dpo | 4 + 0 ↵ = 4 | right |" in report


def test_no_samples_without_generated_answers(write: Write) -> None:
    scores = [make_score(model, "mmlu", "acc", 0.5) for model in ("base", "sft", "dpo")]
    assert "Sample answers" not in write(replace(make_tables(), scores=scores))


def test_no_samples_if_none_are_configured(write: Write) -> None:
    assert "Sample answers" not in write(examples=0)


def test_refuses_a_funnel_that_does_not_add_up(write: Write) -> None:
    tables = make_tables()
    tables.cards[0]["funnel"]["splits"]["train"] = 601
    with pytest.raises(UserError, match="funnel of sums: 637 rows are left, but the splits have 638"):
        write(tables)
    tables = make_tables()
    tables.cards[1]["funnel"]["steps"][3]["removed"] = 11
    with pytest.raises(
        UserError, match="funnel of pairs: step max_tokens removed 11 of 652 rows, but 640 are left; run filter_dataset"
    ):
        write(tables)


def test_refuses_models_with_different_items(write: Write) -> None:
    tables = make_tables()
    tables.scores[1]["n"] = 199
    with pytest.raises(UserError, match=r"scores of sums: .*base 200, sft 199"):
        write(tables)


def test_a_run_without_stages_has_no_training_and_no_verdicts(write: Write) -> None:
    tables = make_tables()
    scores = [score for score in tables.scores if score["model"] == "base"]
    report = write(Tables([], tables.base, [], [], [], scores, [], [], [make_registration()], []))
    assert "There is nothing to compare" in report
    assert "figures/training.svg" not in report and "McNemar" not in report and "# Data" not in report


def test_forecast_and_use_are_side_by_side(write: Write) -> None:
    report = plain(write(make_tables()))
    assert "| sft | 300 / 20 | 12,346 / 16,000 | 821.0 K / 134.5 M | 1.2 GB / 1.4 GB | – / 2 min 0 s |" in report
    assert "| ≤ 15 min 0 s / " in report and "≤ 12,346 / " in report, "bounds must be marked"


def test_several_seeds_are_compared(write: Write) -> None:
    report = plain(write(replace(make_tables(), seed_comparisons=[make_seed_comparison()])))
    assert "| sums | sft against base | 3 | 200 | +25.0 [+10.0, +40.0] | 5.0 | 0.004 | improved |" in report
    sentence = "sft, over 3 seeds, against base: improved on sums (+25.0 points, 95% interval +10.0 to +40.0; n = 200"
    assert sentence in report.replace("*", "")
    assert "one stage trained several times" in report and "trained once, with one seed" not in report
    assert "trained once, with one seed" in plain(write(make_tables()))


def test_the_table_of_data_sets(write: Write) -> None:
    tables = make_tables()
    tables.cards[0]["summary"]["tokens"]["splits"]["train"] |= {"p5": 1000, "median": 1234, "p95": 20_000}
    tables.cards[1]["summary"]["languages"] = {}
    hub = make_card("pairs", {"origin": "hub a|b", "revision": "f" * 40, "licence": None})
    tables.cards[1]["source"] = hub["source"]
    other = make_card("other", {"origin": "file x.jsonl", "sha256": "12" * 32})
    other["summary"]["tokens"]["splits"]["train"] = {"rows": 3, "counted": 0}
    tables.cards.append(other)
    report = plain(write(tables))
    sums = "| sums | package reasoning-gym, task chain_sum; SHA-256 cdcdcdcdcdcd | MIT | 1,234 (1,000–20,000) | "
    assert sums + "en 95.8%, zh 3.1%, de 0.6% |" in report, "only the three most frequent languages are listed"
    assert "| pairs | hub a|b; revision ffffffffffff | not stated | 27 (22–33) | – |" in report
    assert "| other | file x.jsonl; SHA-256 121212121212 | not stated | – | en 95.8%" in report, "no row was counted"


def test_the_table_of_overlaps(write: Write) -> None:
    tables = make_tables()
    overlaps = [make_overlap("sums", hits=3), make_overlap("mmlu-dev", items=1285, hits=1, removed=False)]
    tables.cards[0]["summary"]["benchmarks"] = [*overlaps, make_overlap("pairs")]
    report = plain(write(tables))
    rows = [line for line in report.splitlines() if "janet has" in line]
    assert rows == [
        "| sums | sums | 3 of 200 | 6 (0.9%) | removed | janet has 0 ducks |",
        "| sums | mmlu-dev | 1 of 1,285 | 2 (0.3%) | kept | janet has 0 ducks |",
    ]
    assert "No text of a benchmark was found" not in report and "not searched" not in report


def test_long_overlaps_are_cut(write: Write) -> None:
    tables = make_tables()
    tables.cards[1]["summary"]["benchmarks"] = [make_overlap("sums", hits=1)]
    tables.cards[1]["summary"]["benchmarks"][0]["examples"][0]["span"] = "word " * 60
    (row,) = (line for line in plain(write(tables)).splitlines() if "word word" in line)
    assert row.endswith(f"| {('word ' * 16).strip()} … |")


def test_no_overlap_and_no_search_differ(write: Write) -> None:
    found, unknown = "No text of a benchmark was found in the rows that were read.", "The rows were not searched for"
    tables = make_tables()
    report = write(tables)
    assert found in report and unknown not in report
    for card in tables.cards:
        card["summary"]["benchmarks"] = []
    report = write(tables)
    assert unknown in report and found not in report


def test_a_resumed_stage_is_reported(write: Write) -> None:
    tables = make_tables()
    tables.stages[0]["facts"]["resumed_from"] = 10
    assert "Stage sft resumed from step 10 of an earlier attempt" in write(tables)


def test_gpu_memory_and_different_versions_are_reported(write: Write) -> None:
    tables = make_tables()
    tables.stages[1]["peak_gpu_memory_bytes"] = 70_200_000_000
    hub = make_card("sums", {"origin": "hub a/b", "revision": "f" * 40})
    tables.cards[0]["source"] = change(hub["source"], versions={"torch": "2.8.0"})
    report = plain(write(tables))
    assert "| Peak memory | 1.4 GB; GPU 70.2 GB, the largest of any process |" in report
    assert "data set sums: made with torch 2.8.0." in report
    assert "| data set sums | hub a/b; revision ffffffffffff |" in report


def test_the_figure_explains_outcomes_only_if_something_was_expected(write: Write) -> None:
    row = make_comparison("base", "sft", "sums", (0.3, 0.5), "improved")
    expected = change(row, family="confirmatory", expected="improves", outcome="confirmed")
    words = "Filled circles are confirmed expectations"
    assert words in write(with_comparisons(expected)) and words not in write(with_comparisons(row))


def test_answers_cut_at_the_length_limit_are_reported(write: Write) -> None:
    tables = make_tables()
    first = tables.scores[0]
    cut = make_other("cut_answers", 0.25, 0.2, 0.3, is_share=True)
    report = plain(write(replace(tables, scores=[change(first, others=[cut]), *tables.scores[1:]])))
    assert f"Answers to {first['benchmark']} that were cut at the maximum length: base 25.0%" in report
    assert "were cut at the maximum length" not in write(tables)


def test_both_languages_have_the_same_tables(write: Write) -> None:
    reports = [write(language=language) for language in ("en", "zh")]
    assert len({report.count("\n| ") for report in reports}) == 1
    assert "训练带来的变化" in reports[1] and "Summary" not in reports[1]


def test_the_same_tables_give_the_same_report(write: Write) -> None:
    assert write() == write()
