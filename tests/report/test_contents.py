"""Parts of the report: each number is in its place."""

from dataclasses import replace
from typing import Any

import pytest

from scripts.common.records import Comparison, Item, Score, Verdict
from scripts.report.contents import (
    NAMED_IN_FULL,
    comparison_table,
    count_verdicts,
    describe_findings,
    describe_memory,
    describe_p,
    describe_versions,
    find_generated,
    judge,
    last_question,
    provenance_table,
    sample_tables,
    score_tables,
    shorten_commit,
    summarise,
    verdicts,
)
from scripts.report.words import Words
from tests.report.conftest import plain, table_rows
from tests.report.tables import change, make_base, make_comparison, make_score, make_stage, make_tables

NONE_FOUND: Verdict = "no difference found"


def _compare(verdict: Verdict, benchmark: str = "sums", **changes: Any) -> Comparison:
    return make_comparison("base", "sft", benchmark, (0.5, 0.52), verdict, **changes)


def test_each_comparison_counts_once_by_its_verdict() -> None:
    """If a difference was found, a comparison counts as such, even if its margin holds."""
    rows = [
        *[_compare("improved", is_held=True, margin=0.02)] * 4,
        *[_compare("worsened", is_held=True, margin=0.02)] * 2,
        _compare("held", is_held=True, margin=0.02),
        *[_compare(NONE_FOUND, is_held=False, margin=0.02)] * 3,
        *[_compare(NONE_FOUND)] * 5,
    ]
    assert count_verdicts(rows) == {"total": 15, "improved": 4, "worsened": 2, "held": 1, "unclear": 8}
    assert count_verdicts([]) == {"total": 0, "improved": 0, "worsened": 0, "held": 0, "unclear": 0}


def test_the_comparison_table_has_the_numbers_of_each_row(words: Words) -> None:
    changes: dict[str, Any] = {
        "ci_low": -0.013,
        "ci_high": 0.057,
        "smallest_difference": 0.064,
        "p_value": 0.021,
        "n": 1319,
    }
    held = _compare("held", margin=0.025, is_held=True, p_adjusted=0.063, **changes)
    table = comparison_table([held, _compare("worsened", margin=0.03, is_held=False)], 0.1, words)
    numbers = "| 1,319 | 50.0 | 52.0 | +2.0 [−1.3, +5.7] | 6.4 | 0.063 | held within 2.5 |"
    assert table_rows(table)[0] == f"| sums | sft against base {numbers}"
    assert table_rows(table)[1].endswith("| 7.1 | <0.001 | worsened |")
    assert "with 90% intervals" in plain(table)


def test_findings_are_ordered_by_verdict_and_have_intervals_if_they_are_few(words: Words) -> None:
    rows = [_compare(NONE_FOUND, f"b{place}", p_adjusted=0.4) for place in range(NAMED_IN_FULL)]
    rows += [_compare("held", "kept", margin=0.02, p_adjusted=0.75), _compare("improved", "sums")]
    text = plain(describe_findings(rows, 0.05, words))
    numbers = "(+2.0 points, 95% interval −3.0 to +7.0; n = 200; adjusted p"
    assert text == (
        f"improved on sums {numbers} <0.001); did not drop beyond the margin on kept {numbers} = 0.750); "
        f"no difference found on b0 {numbers} = 0.400), b1 {numbers} = 0.400), b2 {numbers} = 0.400) "
        f"and b3 {numbers} = 0.400)"
    )
    text = plain(describe_findings([*rows, _compare(NONE_FOUND, "b4")], 0.05, words))
    assert text.endswith("b3 (+2.0 points, adjusted p = 0.400) and b4 (+2.0 points, adjusted p = 0.400)")


@pytest.mark.parametrize(
    ("p", "text"), [(0.0009999, "<0.001"), (0.001, "= 0.001"), (0.05, "= 0.050"), (1.0, "= 1.000")]
)
def test_small_p_values_are_shown_as_bounds(words: Words, p: float, text: str) -> None:
    assert plain(describe_p(_compare(NONE_FOUND, p_value=0.5, p_adjusted=p), words)) == text


def test_each_pair_of_models_has_its_own_sentence(words: Words) -> None:
    rows = [
        make_comparison("base", "sft", "sums", (0.1, 0.4), "improved"),
        make_comparison("sft", "dpo", "sums", (0.4, 0.2), "worsened"),
        make_comparison("base", "sft", "talk", (0.5, 0.5), NONE_FOUND),
    ]
    first, second = map(plain, verdicts(rows, 0.05, words))
    assert first.startswith("**sft** against **base**: improved on sums (+30.0 points") and "found on talk" in first
    assert second.startswith("**dpo** against **sft**: worsened on sums (−20.0 points") and "talk" not in second


def test_the_summary_names_stages_models_and_benchmarks(words: Words) -> None:
    text = plain(summarise(make_tables(), "demo", words))
    for part in ("run demo ", "package tiny-model 1.0", "sft and dpo", "base, sft and dpo", "sums, mmlu-dev and pairs"):
        assert part in text


TURNS = [("user", "1 + 1 ="), ("assistant", "2"), ("user", "2 + 2 =")]
FEW_SHOT = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in TURNS) + "<|im_start|>assistant\n"
"""A few-shot example and a question."""


def test_the_question_is_the_last_user_turn() -> None:
    assert last_question(FEW_SHOT) == "2 + 2 ="
    assert last_question("Question: 2 + 2\nAnswer:") == "Question: 2 + 2\nAnswer:"


def test_a_sample_shows_its_question_without_few_shot_examples(words: Words) -> None:
    item: Item = {"key": "a", "prompt": FEW_SHOT, "target": "4", "answer": "5", "score": 0.0}
    items = {"base": [change(item, key="b"), item], "sft": [change(item, answer="four", score=0.25)]}
    (table,) = sample_tables(items, "sums", 3, words)
    assert plain(table).splitlines()[0] == "| Prompt | 2 + 2 = |  |"
    assert [line for line in plain(table).splitlines() if line.startswith("| ")][2:] == [
        "| Expected | 4 |  |",
        "| base | 5 | wrong |",
        "| sft | four | 25.0% |",
    ]
    assert "Item 1 of sums." in plain(table)


@pytest.mark.parametrize(("score", "text"), [(0.0, "wrong"), (1.0, "right"), (0.5, "50.0%"), (0.999, "99.9%")])
def test_only_full_scores_are_right(words: Words, score: float, text: str) -> None:
    assert plain(judge(score, words)) == text


def test_samples_come_from_the_first_benchmark_with_generated_answers() -> None:
    scores = [make_score("base", name, metric, 0.5) for name, metric in (("a", "acc"), ("b", "acc_norm"), ("c", "f1"))]
    assert find_generated([*scores, make_score("base", "d", "f1", 0.5)]) == "c"
    assert find_generated(scores[:2]) is None


def test_each_artefact_has_its_own_time_memory_and_device(words: Words) -> None:
    tables = make_tables()
    for place, manifest in enumerate(tables.manifests):
        manifest |= {
            "seconds": 100.0 + place,
            "peak_memory_bytes": (place + 1) * 10**9,
            "peak_gpu_memory_bytes": (70 + place) * 10**9 if manifest["artefact"] == "model" else None,
            "device": f"device {place}",
            "git_commit": f"{place:07}9999",
        }
    rows = table_rows(provenance_table(tables, words))
    shared = [f"| {place:07} | device {place} | 1 min {40 + place} s | {place + 1}.0 GB" for place in range(12)]
    assert len(rows) == 2 + 3 + 9
    assert rows[0] == f"| data set sums | package reasoning-gym, task chain_sum; SHA-256 cdcdcdcdcdcd {shared[0]} |"
    assert rows[2] == f"| model base | package tiny-model 1.0; SHA-256 abababababab {shared[2]}; GPU 72.0 GB |"
    assert rows[4] == f"| model dpo | sft, data set pairs {shared[4]}; GPU 74.0 GB |"
    assert rows[5] == f"| scores base on sums | sums_task, exact_match {shared[5]} |"
    assert rows[11] == f"| scores base on pairs | pairs_task, preference_accuracy {shared[11]} |"


def test_memory_is_the_largest_of_any_process(words: Words) -> None:
    sizes = [(2 * 10**9, None), (9 * 10**9, 30 * 10**9), (4 * 10**9, 41 * 10**9)]
    manifests = [change(make_base(), peak_memory_bytes=memory, peak_gpu_memory_bytes=gpu) for memory, gpu in sizes]
    assert plain(describe_memory(manifests, words)) == "9.0 GB; GPU 41.0 GB"
    assert plain(describe_memory(manifests[:1], words)) == "2.0 GB"


def test_a_commit_is_marked_only_if_files_had_changed() -> None:
    assert shorten_commit("0123456789abcdef") == "0123456"
    assert shorten_commit("0123456789abcdef+") == "0123456+"
    assert shorten_commit(None) == "–"


def test_versions_are_listed_with_their_artefacts(words: Words) -> None:
    tables = make_tables()
    for manifest in tables.stages:
        manifest["versions"] = {"torch": "2.10.0"}
    tables = replace(tables, scores=tables.scores[:1])
    usual = "python 3.11.7, torch 2.9.0, transformers 5.0.0, trl 1.0.0"
    assert [plain(sentence) for sentence in describe_versions(tables, words)] == [
        f"data set sums, data set pairs, model base and scores base on sums: made with {usual}.",
        "model sft and model dpo: made with torch 2.10.0.",
    ]


def test_many_models_get_a_second_table(words: Words) -> None:
    names = ["base", "a", "b", "c", "d", "e", "f"]
    scores: list[Score] = [
        make_score(model, benchmark, "acc", 0.1 * place + shift, n=n)
        for benchmark, shift, n in (("sums", 0.1, 200), ("talk", 0.2, 90))
        for place, model in enumerate(names)
        if (model, benchmark) != ("f", "talk")
    ]
    stages = [make_stage(name, "sft", "base", "sums") for name in names[1:]]
    first, second = score_tables(replace(make_tables(), stages=stages, scores=scores), words)
    assert plain(first).splitlines()[0] == "| Benchmark | Metric | n | base | a | b | c | d |"
    assert plain(second).splitlines()[0] == "| Benchmark | Metric | n | e | f |"
    assert table_rows(first)[0].endswith(
        "| 200 | 10.0 [4.0, 17.0] | 20.0 [14.0, 27.0] | 30.0 [24.0, 37.0] | 40.0 [34.0, 47.0] | 50.0 [44.0, 57.0] |"
    )
    assert [row.partition("5-shot ")[2] for row in table_rows(second)] == [
        "| 200 | 60.0 [54.0, 67.0] | 70.0 [64.0, 77.0] |",
        "| 90 | 70.0 [64.0, 77.0] | – |",
    ]
