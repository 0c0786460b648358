"""Parts of the report on abilities, seeds and further metrics."""

from scripts.common.formats import DASH, count, loss, p_value, percent
from scripts.common.markdown import Cells, Markdown, make_table
from scripts.common.records import Ability, OtherMetric, Score, SeedComparison
from scripts.report.contents import (
    MODELS_A_TABLE,
    VERDICTS,
    Tables,
    confidence,
    describe_difference,
    describe_score,
    join,
)
from scripts.report.words import Words

NOTABLE_CUT = 0.05
"""Share of answers cut at the length limit from which the report mentions it."""


def protocol_tables(tables: Tables, benchmark_of: dict[str, str], words: Words) -> list[Markdown]:
    """Tables of the benchmarks that were scored under several protocols. Each has a few of the models.

    Args:
        benchmark_of: the benchmark of each score that has one.
    """
    benchmarks = list(benchmark_of.values())
    several = [score for score in tables.benchmarks if benchmarks.count(benchmark_of.get(score, "")) > 1]
    found = {(score["benchmark"], score["model"]): score for score in tables.scores}
    made = []
    for group in split(tables.model_names):
        cells: list[Cells] = [
            [
                benchmark_of[name],
                describe_protocol(found[name, group[0]], words),
                count(found[name, group[0]]["n"]),
                *(describe_score(found[name, model]) for model in group),
            ]
            for name in several
        ]
        header = [words("benchmark"), words("protocol"), "n", *group]
        made.append(make_table(header, cells, "lwr" + "r" * len(group), words("protocols_caption")))
    return made if several else []


def describe_protocol(score: Score, words: Words) -> Markdown:
    """Few-shot examples, chat template and filter of a score: `5-shot, without chat template, strict-match`."""
    protocol = score["protocol"]
    shots = protocol["shots"]
    parts = [
        words("shots_of_task") if shots is None else words("shots", shots=shots),
        words("with_template" if protocol["chat_template"] else "without_template"),
        None if protocol["filter"] == "none" else protocol["filter"],
    ]
    return join(parts, words("list_comma"))


def cut_notes(scores: list[Score], words: Words) -> list[Markdown]:
    """A sentence for each benchmark, or data set with held-out rows, on which a model's answers were often cut."""
    shares: dict[str, list[Markdown]] = {}
    cut = [(score, other) for score in scores for other in score["others"] if other["metric"] == "cut_answers"]
    for score, other in cut:
        share, low, high = other["score"], other["ci_low"], other["ci_high"]
        if share is None or low is None or high is None or share <= NOTABLE_CUT:
            continue
        numbers = {"share": percent(share), "low": percent(low), "high": percent(high), "n": count(other["n"])}
        shares.setdefault(score["benchmark"], []).append(words("cut_share", model=score["model"], **numbers))
    return [words("cut_note", benchmark=name, models=words.enumerate(notes)) for name, notes in shares.items()]


def ability_tables(abilities: list[Ability], names: list[str], words: Words) -> list[Markdown]:
    """Tables of the abilities: mean, interval and grade of each model. Each table has a few of the models."""
    found = {(row["ability"], row["model"]): row for row in abilities}
    rows = list(dict.fromkeys(row["ability"] for row in abilities))
    tables = []
    for group in split(names):
        of_first = {ability: found[ability, group[0]] for ability in rows}
        cells: list[Cells] = [
            [
                *(words.either("ability", ability), words.enumerate(of_first[ability]["benchmarks"])),
                count(of_first[ability]["n"]),
                *(describe_ability(found[ability, model], words) for model in group),
            ]
            for ability in rows
        ]
        header = [words("ability"), words("benchmarks"), "n", *group]
        tables.append(make_table(header, cells, "lwr" + "r" * len(group), words("abilities_caption")))
    return tables if rows else []


def describe_ability(row: Ability, words: Words) -> Markdown:
    """A mean score in percent with its interval and its grade."""
    return Markdown(f"{describe_score(row)} {words.either('grade', row['grade'])}")


def seed_table(rows: list[SeedComparison], alpha: float, words: Words) -> Markdown:
    """Table of stages that were trained with several seeds: mean difference, and deviation between seeds."""
    cells: list[Cells] = [
        [
            row["benchmark"],
            words("comparison_value", model=row["stage"], baseline=row["baseline"]),
            count(row["seeds"]),
            count(row["n"]),
            describe_difference(row),
            percent(row["seed_deviation"]),
            p_value(row["p_adjusted"]),
            words(f"short_{VERDICTS[row['verdict']]}"),
        ]
        for row in rows
    ]
    header = [words("benchmark"), words("comparison"), words("seeds"), "n", words("difference")]
    header += [words("seed_deviation"), words("adjusted_p"), words("verdict")]
    return make_table(header, cells, "llrrrrrl", words("seeds_caption", confidence=confidence(alpha)))


def other_tables(tables: Tables, words: Words) -> list[Markdown]:
    """Tables of the metrics that are reported, but not compared. Each table has a few of the models."""
    found = {
        (score["benchmark"], other["metric"], other["filter"], score["model"]): other
        for score in tables.scores
        for other in score["others"]
    }
    rows = [row for row in dict.fromkeys(key[:3] for key in found) if row[1] != "cut_answers"]
    made = []
    for group in split(tables.model_names):
        cells: list[Cells] = [
            [
                benchmark,
                words.either("metric", metric) if chosen == "none" else f"{metric}, {chosen}",
                count(found[benchmark, metric, chosen, group[0]]["n"]),
                *(describe_other(found.get((benchmark, metric, chosen, model))) for model in group),
            ]
            for benchmark, metric, chosen in rows
        ]
        header = [words("benchmark"), words("metric"), "n", *group]
        made.append(make_table(header, cells, "lwr" + "r" * len(group), words("others_caption")))
    return made if rows else []


def describe_other(other: OtherMetric | None) -> Markdown:
    """A metric with its interval. Shares are in percent, other values unchanged."""
    if other is None or other["score"] is None:
        return Markdown(DASH)
    score, low, high = other["score"], other["ci_low"], other["ci_high"]
    if other["is_share"] and low is not None and high is not None:
        return Markdown(f"{percent(score)} [{percent(low)}, {percent(high)}]")
    return Markdown(f"{loss(score)} [{loss(low)}, {loss(high)}]")


def split(names: list[str]) -> list[list[str]]:
    """Split models into groups that fit the width of a page."""
    return [names[start : start + MODELS_A_TABLE] for start in range(0, len(names), MODELS_A_TABLE)]
