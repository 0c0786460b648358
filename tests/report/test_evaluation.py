"""Tables of abilities, seeds and further metrics: each number is in its place."""

from dataclasses import replace

from scripts.common.records import Ability
from scripts.report.evaluation import (
    ability_tables,
    cut_notes,
    describe_other,
    other_tables,
    protocol_tables,
    seed_table,
)
from scripts.report.words import Words
from tests.report.conftest import plain, table_rows
from tests.report.tables import change, make_other, make_score, make_seed_comparison, make_stage, make_tables

NAMES = ["base", "a", "b", "c", "d", "e", "f"]


def test_abilities_of_many_models_get_a_second_table(words: Words) -> None:
    rows: list[Ability] = [
        {
            "ability": ability,
            "model": model,
            "benchmarks": benchmarks,
            "n": n,
            "score": low + 0.05 + 0.1 * place,
            "ci_low": low + 0.1 * place,
            "ci_high": low + 0.2 + 0.1 * place,
            "grade": grade,
        }
        for ability, benchmarks, n, low, grade in (
            ("knowledge", ["mmlu", "arc"], 1500, 0.0, "weak"),
            ("mathematics", ["sums"], 40, 0.1, "good"),
        )
        for place, model in enumerate(NAMES)
    ]
    first, second = ability_tables(rows, NAMES, words)
    assert plain(first).splitlines()[0] == "| Ability | Benchmarks | n | base | a | b | c | d |"
    assert table_rows(first)[0].startswith(
        "| knowledge | mmlu and arc | 1,500 | 5.0 [0.0, 20.0] weak | 15.0 [10.0, 30.0] weak | 25.0 [20.0, 40.0] weak |"
    )
    assert plain(second).splitlines()[0] == "| Ability | Benchmarks | n | e | f |"
    assert table_rows(second) == [
        "| knowledge | mmlu and arc | 1,500 | 55.0 [50.0, 70.0] weak | 65.0 [60.0, 80.0] weak |",
        "| mathematics and algorithms | sums | 40 | 65.0 [60.0, 80.0] good | 75.0 [70.0, 90.0] good |",
    ]
    assert ability_tables([], NAMES, words) == []


def test_further_metrics_are_shown_by_model_and_filter(words: Words) -> None:
    scores = [
        change(
            make_score(model, "sums", "acc", 0.5),
            others=[
                change(
                    make_other(metric, 0.1 * place + shift, 0.1 * place, 0.1 * place + 0.3, is_share),
                    filter=chosen,
                    n=n,
                )
                for metric, chosen, n, is_share, shift in (
                    ("rouge1", "none", 50, True, 0.1),
                    ("right", "loose", 1200, True, 0.2),
                    ("right", "strict", 1200, True, 0.15),
                    ("loss", "none", 50, False, 0.25),
                )
            ],
        )
        for place, model in enumerate(NAMES)
        if model != "f"
    ]
    scores.append(make_score("f", "sums", "acc", 0.5))
    stages = [make_stage(name, "sft", "base", "sums") for name in NAMES[1:]]
    first, second = other_tables(replace(make_tables(), stages=stages, scores=scores), words)
    assert [row.split(" | ")[1:5] for row in table_rows(first)] == [
        ["ROUGE-1", "50", "10.0 [0.0, 30.0]", "20.0 [10.0, 40.0]"],
        ["right, loose", "1,200", "20.0 [0.0, 30.0]", "30.0 [10.0, 40.0]"],
        ["right, strict", "1,200", "15.0 [0.0, 30.0]", "25.0 [10.0, 40.0]"],
        ["loss of the reference answers", "50", "0.250 [0.000, 0.300]", "0.350 [0.100, 0.400]"],
    ]
    assert table_rows(second) == [
        "| sums | ROUGE-1 | 50 | 60.0 [50.0, 80.0] | – |",
        "| sums | right, loose | 1,200 | 70.0 [50.0, 80.0] | – |",
        "| sums | right, strict | 1,200 | 65.0 [50.0, 80.0] | – |",
        "| sums | loss of the reference answers | 50 | 0.750 [0.500, 0.800] | – |",
    ]


def test_an_undefined_metric_is_a_dash() -> None:
    assert describe_other(make_other("m", None, None, None, is_share=False)) == describe_other(None) == "–"
    single = make_other("m", 1.7, None, None, is_share=False)
    assert plain(describe_other(single)) == "1.700 [–, –]", "a single value has no interval"
    assert plain(describe_other(make_other("m", 0.5, 0.25, 0.7, is_share=True))) == "50.0 [25.0, 70.0]"


def test_seed_comparisons_by_hand(words: Words) -> None:
    row = make_seed_comparison(
        n=1319,
        seeds=4,
        seed_deviation=0.013,
        difference=-0.08,
        ci_low=-0.11,
        ci_high=-0.05,
        p_value=0.004,
        p_adjusted=0.008,
        verdict="worsened",
    )
    table = seed_table([row], 0.1, words)
    assert table_rows(table) == [
        "| sums | sft against base | 4 | 1,319 | −8.0 [−11.0, −5.0] | 1.3 | 0.008 | worsened |"
    ]
    assert "90%" in plain(table)


def test_protocols_of_a_benchmark_are_side_by_side(words: Words) -> None:
    tables = make_tables()
    scores = [
        change(make_score(model, name, "exact_match", share), protocol=protocol)
        for model, shares in (("base", (0.25, 0.75, 0.5)), ("sft", (0.8, 0.7, 0.5)))
        for name, share, protocol in zip(
            ("gsm8k", "gsm8k_few_shot", "piqa"),
            shares,
            (
                {"shots": None, "chat_template": True, "filter": "none"},
                {"shots": 8, "chat_template": False, "filter": "strict-match"},
                {"shots": 0, "chat_template": True, "filter": "none"},
            ),
            strict=True,
        )
    ]
    tables = replace(tables, scores=scores, stages=tables.stages[:1])
    benchmark_of = {"gsm8k": "gsm8k", "gsm8k_few_shot": "gsm8k", "piqa": "piqa"}
    (table,) = protocol_tables(tables, benchmark_of, words)
    assert table_rows(table) == [
        "| gsm8k | shots as the task sets them, chat template | 200 | 25.0 [19.0, 32.0] | 80.0 [74.0, 87.0] |",
        "| gsm8k | 8-shot, no chat template, strict-match | 200 | 75.0 [69.0, 82.0] | 70.0 [64.0, 77.0] |",
    ]
    assert protocol_tables(tables, {"gsm8k": "gsm8k", "piqa": "piqa"}, words) == []


def test_cut_answers_are_mentioned_where_there_are_many(words: Words) -> None:
    """Above 5 %, with interval and number. They have no row among the further metrics."""
    cut = {
        ("base", "sums"): (0.5, 0.4, 0.6),
        ("sft", "sums"): (0.05, 0.03, 0.09),
        ("dpo", "sums"): (0.0625, 0.04, 0.1),
        ("base", "gsm8k"): (0.01, 0.0, 0.03),
    }
    scores = [
        change(
            make_score(model, benchmark, "exact_match", 0.5),
            others=[make_other("unreadable", *found, is_share=True), make_other("cut_answers", *found, is_share=True)],
        )
        for (model, benchmark), found in cut.items()
    ]
    assert [plain(note) for note in cut_notes(scores, words)] == [
        "Answers to sums that were cut at the maximum length: base 50.0% (95% interval 40.0 to 60.0; n = 200) and "
        "dpo 6.2% (95% interval 4.0 to 10.0; n = 200)."
    ]
    (table,) = other_tables(replace(make_tables(), scores=scores), words)
    assert [row.split(" | ")[1] for row in table_rows(table)] == ["answers that could not be read"] * 2
