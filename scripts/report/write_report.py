"""Write the report in Markdown, from the data of the run and a template."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scripts.common.config import Report
from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json, read_json_lines, write_text
from scripts.common.markdown import Markdown, finalise
from scripts.common.records import Item
from scripts.report import contents, evaluation, expectations, origins, training
from scripts.report.contents import Tables
from scripts.report.words import Words


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="section `report` of the configuration, as JSON")
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--seed", type=int, required=True, help="seed of the run")
    parser.add_argument("--alpha", type=float, required=True, help="significance level of the comparisons")
    parser.add_argument("--protocols", type=json.loads, required=True, help="benchmark of each score, as JSON")
    parser.add_argument("--template", type=Path, required=True, help="report.md.jinja")
    parser.add_argument("--words", type=Path, required=True, help="words of the report in its language, YAML")
    parser.add_argument("--cards", type=Path, nargs="*", default=[], help="card of each data set, JSON")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="manifest of each model, base first")
    parser.add_argument("--forecast", type=Path, required=True, help="forecast of the stages, JSON")
    parser.add_argument("--logs", type=Path, nargs="*", default=[], help="training log of each stage, in order")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="score of each model and benchmark")
    parser.add_argument("--items", type=Path, nargs="*", default=[], help="items of each score, in order")
    parser.add_argument("--expectations", type=Path, required=True, help="expectations.json")
    parser.add_argument("--comparison", type=Path, required=True, help="comparison.json")
    parser.add_argument("--seed-comparison", type=Path, required=True, help="seed_comparison.json")
    parser.add_argument("--abilities", type=Path, required=True, help="abilities.json")
    parser.add_argument(
        "--figures",
        type=Path,
        nargs="*",
        default=[],
        help="figures, whose names without suffix are used in the template",
    )
    parser.add_argument("--output", type=Path, required=True, help="Markdown file to write")
    options = parser.parse_args()

    base, *stages = map(read_json, options.models)
    tables = Tables(
        cards=[read_json(path) for path in options.cards],
        base=base,
        stages=stages,
        forecast=read_json(options.forecast),
        logs=[pq.read_table(path).to_pylist() for path in options.logs],
        scores=[read_json(path) for path in options.scores],
        comparisons=read_json(options.comparison),
        seed_comparisons=read_json(options.seed_comparison),
        registered=read_json(options.expectations),
        abilities=read_json(options.abilities),
    )
    figures = {path.stem: os.path.relpath(path, options.output.parent) for path in options.figures}
    sampled, items = read_samples(tables, options.items)
    report = render(
        options.template,
        Words.read(options.words),
        tables=tables,
        config=Report.model_validate_json(options.config),
        run=options.run,
        seed=options.seed,
        alpha=options.alpha,
        benchmark_of=options.protocols,
        figures=figures,
        sampled=sampled,
        items=items,
    )
    write_text(options.output, report)
    say(f"write_report: {options.output}")


def read_samples(tables: Tables, paths: list[Path]) -> tuple[str | None, dict[str, list[Item]]]:
    """The benchmark that sample answers are taken from, if any, and the items of each model on it."""
    sampled = contents.find_generated(tables.scores)
    own = [
        (score["model"], path)
        for score, path in zip(tables.scores, paths, strict=True)
        if score["benchmark"] == sampled
    ]
    return sampled, {model: read_json_lines(path) for model, path in own}


def render(
    template: Path,
    words: Words,
    *,
    tables: Tables,
    config: Report,
    run: str,
    seed: int,
    alpha: float,
    benchmark_of: dict[str, str],
    figures: dict[str, str],
    sampled: str | None,
    items: dict[str, list[Item]],
) -> str:
    """The report in Markdown.

    Args:
        benchmark_of: the benchmark of each score that has one.
        figures: paths of the figures by name, relative to the report's folder.
        sampled: benchmark that sample answers are taken from; None for no samples.
        items: items of each model on that benchmark.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        finalize=finalise,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = quote
    expected = expectations.in_family(tables.comparisons, is_expected=True)
    others = expectations.in_family(tables.comparisons, is_expected=False)
    seeds = [row for row in tables.seed_comparisons if row["family"] != "exploratory"]
    return environment.get_template(template.name).render(
        words=words,
        title=config.title,
        run=run,
        created=max(datetime.fromisoformat(manifest["created"]) for manifest in tables.manifests).astimezone(UTC),
        summary=contents.summarise(tables, run, words),
        key_facts=contents.key_facts(tables, seed, words),
        comparisons=tables.comparisons,
        expected=expected,
        registrations=expectations.describe_registrations(tables.registered, words),
        outcome_counts=expectations.count_outcomes(tables.comparisons, words),
        outcomes=expectations.outcomes(tables.comparisons, alpha, words),
        outcome_table=expectations.outcome_table(tables.comparisons, alpha, words) if expected else None,
        verdict_counts=contents.count_verdicts(tables.comparisons),
        verdicts=contents.verdicts([] if expected else others, alpha, words),
        origins=origins.origins(expected or others, words),
        origin_table=origins.origin_table(tables.comparisons, words),
        seed_verdicts=contents.seed_verdicts(seeds, alpha, words),
        alpha=alpha,
        confidence=contents.confidence(alpha),
        figures={name: Markdown(path) for name, path in figures.items()},
        data_table=contents.data_table(tables.funnels, words) if tables.cards else None,
        card_table=contents.card_table(tables.cards, words) if tables.cards else None,
        overlap_table=contents.overlap_table(tables.cards, words) if tables.cards else None,
        stage_table=training.stage_table(tables, words) if tables.stages else None,
        usage_table=training.usage_table(tables.stages, words),
        forecast_table=training.forecast_table(tables, words),
        proof_table=training.proof_table(tables.stages, words),
        training_notes=training.training_notes(tables.stages, words),
        score_tables=contents.score_tables(tables, words),
        protocol_tables=evaluation.protocol_tables(tables, benchmark_of, words),
        cut_notes=evaluation.cut_notes(tables.scores, words),
        ability_tables=evaluation.ability_tables(tables.abilities, tables.model_names, words),
        other_tables=evaluation.other_tables(tables, words),
        comparison_table=contents.comparison_table(others, alpha, words) if others else None,
        seed_table=evaluation.seed_table(tables.seed_comparisons, alpha, words) if tables.seed_comparisons else None,
        sampled=sampled,
        samples=contents.sample_tables(items, sampled, config.examples, words) if sampled else [],
        provenance_table=contents.provenance_table(tables, words),
        versions=contents.describe_versions(tables, words),
    )


def quote(value: object) -> Markdown:
    """A value of the header as a YAML string, whose contents pandoc reads as Markdown."""
    return Markdown(json.dumps(finalise(value), ensure_ascii=False))


if __name__ == "__main__":
    run_script(main)
