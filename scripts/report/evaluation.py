"""What the report says of abilities and of the metrics beside the compared ones."""

from typing import Any

from scripts.report.contents import MODELS_A_TABLE, VERDICTS, Tables, confidence, describe_difference, describe_score
from scripts.report.markdown import Cells, Markdown, make_table
from scripts.report.words import DASH, Words, count, loss, p_value, percent

Json = dict[str, Any]


def ability_tables(abilities: list[Json], names: list[str], words: Words) -> list[Markdown]:
    """Tables of the abilities: mean, interval and grade of each model, a few models each."""
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


def describe_ability(row: Json, words: Words) -> Markdown:
    """A mean score in percent with its interval and its grade."""
    return Markdown(f"{describe_score(row)} {words.either('grade', row['grade'])}")


def seed_table(rows: list[Json], alpha: float, words: Words) -> Markdown:
    """Table of the stages that were trained with several seeds: mean difference, and how much a seed changes."""
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
    """Tables of the metrics that are reported beside the compared ones, a few models each."""
    found = {
        (score["benchmark"], other["metric"], other["filter"], score["model"]): other
        for score in tables.scores
        for other in score["others"]
    }
    rows = list(dict.fromkeys(key[:3] for key in found))
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


def describe_other(other: Json | None) -> Markdown:
    """A metric with its interval: shares in percent, all else as it is."""
    if other is None or other["score"] is None:
        return Markdown(DASH)
    if other["is_share"]:
        return describe_score(other)
    return Markdown(f"{loss(other['score'])} [{loss(other['ci_low'])}, {loss(other['ci_high'])}]")


def split(names: list[str]) -> list[list[str]]:
    """Models in groups that fit the width of a page."""
    return [names[start : start + MODELS_A_TABLE] for start in range(0, len(names), MODELS_A_TABLE)]
