"""Parts of the report on abilities, seeds and further metrics."""

from scripts.common.formats import DASH, count, loss, p_value, percent
from scripts.common.markdown import Cells, Markdown, make_table
from scripts.common.records import Ability, OtherMetric, SeedComparison
from scripts.report.contents import MODELS_A_TABLE, VERDICTS, Tables, confidence, describe_difference, describe_score
from scripts.report.words import Words


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
