"""Parts of the report on what was expected of training, and what became of it."""

from collections.abc import Sequence
from datetime import UTC, datetime

from scripts.common.config import Expected, ExpectedChange
from scripts.common.formats import count, p_value, percent, signed_points
from scripts.common.markdown import Cells, Markdown, make_table
from scripts.common.records import Comparison, Outcome, Registration
from scripts.report.contents import confidence, describe_difference, describe_p, group, shorten_commit
from scripts.report.words import Words

OUTCOMES: dict[Outcome, str] = {
    "confirmed": "confirmed",
    "not confirmed": "unconfirmed",
    "contradicted": "contradicted",
}
"""Suffix of the words of each outcome, in the order in which the report lists them."""


def in_family(comparisons: list[Comparison], *, is_expected: bool) -> list[Comparison]:
    """The comparisons of which something was expected, or all others."""
    return [row for row in comparisons if (row["family"] == "confirmatory") == is_expected]


def count_outcomes(comparisons: list[Comparison], words: Words) -> Markdown:
    """The sentence with the number of expectations by outcome."""
    rows = in_family(comparisons, is_expected=True)
    numbers = {word: count(sum(row["outcome"] == outcome for row in rows)) for outcome, word in OUTCOMES.items()}
    return words("outcome_counts", total=count(len(rows)), **numbers)


def describe_registrations(registered: list[Registration], words: Words) -> list[Markdown]:
    """When the expectations were registered. If they were changed after training began, a sentence for each entry."""
    if len(registered) == 1:
        return [words(_registered(registered[0]), **_when(registered[0]))] if registered[0]["expectations"] else []
    sentences = []
    for number, entry in enumerate(registered):
        when = words("registered_later" if number else _registered(entry), **_when(entry))
        listed = words("registered_list", expectations=list_expectations(entry["expectations"], words))
        sentences.append(Markdown(f"{when} {listed}"))
    return sentences


def _registered(entry: Registration) -> str:
    return "registered_after" if entry["after_training"] else "registered_before"


def _when(entry: Registration) -> dict[str, str]:
    created = datetime.fromisoformat(entry["created"]).astimezone(UTC)
    return {"date": created.strftime("%Y-%m-%d %H:%M UTC"), "commit": shorten_commit(entry["commit"])}


def list_expectations(expectations: Sequence[ExpectedChange], words: Words) -> Markdown:
    """All expectations of an entry in one line; a dash if there are none."""
    if not expectations:
        return words("expects_nothing")
    pairs = group(list(expectations), lambda one: (one["baseline"], one["model"]))
    return Markdown(
        words("verdict_separator").join(
            words(
                "expected_pair",
                model=model,
                baseline=baseline,
                expectations=words.enumerate(
                    [name_expectation(one["benchmark"], one["expected"], one["margin"], words) for one in ones]
                ),
            )
            for (baseline, model), ones in pairs.items()
        )
    )


def name_expectation(benchmark: str, expected: Expected, margin: float | None, words: Words) -> Markdown:
    """`chain_sum improves`, or `mmlu holds within 10.0 points`."""
    return words(f"expected_{expected}", benchmark=benchmark, margin=f"{100 * (margin or 0):.1f}")


def outcomes(comparisons: list[Comparison], alpha: float, words: Words) -> list[Markdown]:
    """One sentence for each pair of models: which expectations were confirmed, were not, or were contradicted."""
    pairs = group(in_family(comparisons, is_expected=True), lambda row: (row["baseline"], row["model"]))
    return [
        words("verdict_pair", model=model, baseline=baseline, findings=describe_outcomes(rows, alpha, words))
        for (baseline, model), rows in pairs.items()
    ]


def describe_outcomes(rows: list[Comparison], alpha: float, words: Words) -> Markdown:
    """The expectations of one pair of models, grouped by outcome."""
    findings = []
    for outcome, word in OUTCOMES.items():
        items = [describe_expectation(row, alpha, words) for row in rows if row["outcome"] == outcome]
        if items:
            findings.append(words(f"outcome_{word}", items=words.enumerate(items)))
    return Markdown(words("verdict_separator").join(findings))


def describe_expectation(row: Comparison, alpha: float, words: Words) -> Markdown:
    """An expectation with the difference, its interval, n and adjusted p value."""
    assert row["expected"] is not None
    return words(
        "verdict_item",
        benchmark=name_expectation(row["benchmark"], row["expected"], row["margin"], words),
        difference=signed_points(row["difference"]),
        confidence=confidence(alpha),
        low=signed_points(row["ci_low"]),
        high=signed_points(row["ci_high"]),
        n=count(row["n"]),
        p=describe_p(row, words),
    )


def outcome_table(comparisons: list[Comparison], alpha: float, words: Words) -> Markdown:
    """Table of the expectations with their outcomes."""
    rows: list[Cells] = []
    for row in in_family(comparisons, is_expected=True):
        assert row["outcome"] is not None and row["expected"] is not None
        rows.append(
            [
                words("comparison_value", model=row["model"], baseline=row["baseline"]),
                name_expectation(row["benchmark"], row["expected"], row["margin"], words),
                count(row["n"]),
                percent(row["baseline_score"]),
                percent(row["model_score"]),
                describe_difference(row),
                p_value(row["p_adjusted"]),
                words(f"short_{OUTCOMES[row['outcome']]}"),
            ]
        )
    header = [words("comparison"), words("expectation"), "n", words("before"), words("after")]
    header += [words("difference"), words("adjusted_p"), words("outcome")]
    return make_table(header, rows, "llrrrrrl", words("outcomes_caption", confidence=confidence(alpha)))
