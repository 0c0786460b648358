"""Load a configuration, and report each mistake in it in one line."""

from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from scripts.common.config import BASE, FORMATS, ROW_TYPE_BY_METHOD, Config, RejectionsDataset
from scripts.common.config.section import Section
from scripts.common.errors import UserError, nearest


def load_config(raw: Mapping[str, Any], origin: str = "config") -> Config:
    """Check a configuration that was read from YAML.

    Args:
        raw: the mapping that Snakemake or yaml.safe_load returns.
        origin: name of its file, for the messages.

    Raises:
        UserError: one line for each mistake: where it is, what is wrong, and what to do.
    """
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise UserError("\n".join(_explain(problem, origin) for problem in error.errors())) from None
    problems = list(_find_broken_references(config)) or list(_find_circle(config)) or list(_find_copies(config))
    if problems:
        raise UserError("\n".join(f"{origin}: {problem}" for problem in problems))
    return config


def _explain(problem: Any, origin: str) -> str:
    """One line for one pydantic error: the key, the mistake, and for an unknown key the nearest known one."""
    # Pydantic adds the tag of a union (`hub`, `file`) to the location, and `[key]` after an invalid name in a mapping.
    # Neither is a key of the user's file.
    keys = [str(key) for key in problem["loc"] if key != "[key]"]
    section = _section_at(keys)
    where = ".".join(_without_tags(keys)) or "(top)"
    if problem["type"] == "extra_forbidden":
        return f"{origin}: {where}: unknown key{nearest(keys[-1], section)}"
    if problem["type"] == "missing":
        return f"{origin}: {where}: this key is required"
    given = problem.get("input")
    shown = "" if isinstance(given, Mapping | list) else f" (given: {given!r})"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{origin}: {where}: {message[0].lower()}{message[1:]}{shown}"


def _walk(keys: list[str]) -> Iterator[tuple[str, type[Section] | None, bool]]:
    """Follow a location through the sections: yields (key, section that contains it, whether it is a union tag)."""
    here: Any = Config
    for key in keys:
        tags = _tags(here)
        if key in tags:
            here = tags[key]
            yield key, None, True
            continue
        section = here if isinstance(here, type) and issubclass(here, Section) else None
        yield key, section, False
        if section is not None:
            fields = {info.alias or name: info for name, info in section.model_fields.items()}
            info = fields.get(key)
            here = None if info is None else (_section_or(info.annotation) if not info.discriminator else info)
        else:
            here = _value_type(here)


def _tags(annotation: Any) -> dict[str, type[Section]]:
    """The sections of a union by the value of `kind` that selects each; empty for other annotations."""
    union = getattr(annotation, "annotation", annotation)
    members = [m for m in getattr(union, "__args__", ()) if isinstance(m, type) and issubclass(m, Section)]
    return {str(get_args(m.model_fields["kind"].annotation)[0]): m for m in members if "kind" in m.model_fields}


def _section_or(annotation: Any) -> Any:
    """The section of an annotation such as `Sample | None`, else the annotation."""
    sections = [a for a in get_args(annotation) if isinstance(a, type) and issubclass(a, Section)]
    return sections[0] if len(sections) == 1 and get_origin(annotation) is not dict else annotation


def _value_type(annotation: Any) -> Any:
    """The type of the values of a mapping, else None."""
    arguments: tuple[Any, ...] = get_args(annotation)
    return arguments[1] if get_origin(annotation) is dict else None


def _without_tags(keys: list[str]) -> list[str]:
    return [key for key, _, is_tag in _walk(keys) if not is_tag]


def _section_at(keys: list[str]) -> list[str]:
    """The known keys of the section that contains the last key of a location."""
    section = list(_walk(keys))[-1][1] if keys else Config
    return [info.alias or name for name, info in section.model_fields.items()] if section else []


def _find_broken_references(config: Config) -> Iterator[str]:
    """References to names that do not exist, names that are used twice, and data sets that do not fit their stages."""
    models, datasets = [BASE, *config.stages], list(config.datasets)
    for name, stage in config.stages.items():
        yield from _unless_known(f"stages.{name}.from", "stage", stage.parent, models)
        yield from _unless_known(f"stages.{name}.dataset", "data set", stage.dataset, datasets)
    for name, dataset in config.datasets.items():
        for other in dataset.filters.not_in:
            others = [known for known in datasets if known != name]
            yield from _unless_known(f"datasets.{name}.filters.not_in", "data set", other, others)
        yield from _broken_rejections(config, name)
        yield from _broken_formats(config, name)
        users = {stage.method for stage in config.stages.values() if stage.dataset == name}
        row_types = {ROW_TYPE_BY_METHOD[method] for method in users}
        methods = " and ".join(sorted(users))
        if len(row_types) > 1:
            yield f"datasets.{name}: {methods} need different kinds of rows; use a data set for each"
        elif isinstance(dataset.source, RejectionsDataset) and row_types - {"preference"}:
            yield f"datasets.{name}: {methods} cannot train on preference pairs; use another data set"
    yield from _broken_judge(config)
    yield from _broken_expectations(config)
    yield from _find_taken_names(config, rules=())  # `_find_circle` needs unique names


def check_names(config: Config, origin: str, taken: Collection[str]) -> None:
    """Refuse stages, benchmarks and data sets that have the name of a rule of the pipeline.

    Stages and benchmarks become targets, and the names of all three are part of the paths of logs.

    Args:
        config: the run.
        origin: name of its file, for the messages.
        taken: names of the pipeline's rules.

    Raises:
        UserError: one line for each such name.
    """
    if problems := list(_find_taken_names(config, taken)):
        raise UserError("\n".join(f"{origin}: {problem}" for problem in problems))


def _find_taken_names(config: Config, rules: Collection[str]) -> Iterator[str]:
    """Names of stages, benchmarks and data sets that are used twice, or that a rule has."""
    users: dict[str, str] = dict.fromkeys(rules, "a target of the pipeline") | {BASE: "the base model"}
    for group in ("stages", "benchmarks", "datasets"):
        for name in getattr(config, group):
            if name in users:
                yield f"{group}.{name}: this name is taken by {users[name]}; choose another"
            users[name] = f"{group}.{name}"
    for name, benchmark in config.benchmarks.items():
        for protocol in benchmark.protocols:
            score, where = f"{name}_{protocol}", f"benchmarks.{name}.protocols.{protocol}"
            if score in users:
                yield f"{where}: its score would have the name of {users[score]}, '{score}'; choose another"
            users[score] = where


def _broken_judge(config: Config) -> Iterator[str]:
    """A judge whose benchmark is unknown or has no rubrics, and names that collide with the judge's score."""
    for name, benchmark in config.judged.items():
        yield from _unless_known("judge.benchmark", "benchmark", benchmark, list(config.benchmarks))
        if benchmark in config.benchmarks and config.benchmarks[benchmark].source.kind != "own":
            yield f"judge.benchmark: '{benchmark}' has no rubrics; choose a benchmark whose source is 'own'"
        for group, names in (("benchmarks", config.protocols), ("datasets", config.datasets)):
            if name in names:
                yield f"{group}.{name}: this name is taken by the judge's score; choose another"


def _broken_expectations(config: Config) -> Iterator[str]:
    """Expectations of unknown models or scores, of scores that cannot hold, and two of the same score."""
    seen: dict[tuple[str, str, str], str] = {}
    for name, expectation in config.expectations.items():
        where, model = f"expectations.{name}", expectation.of or name
        if expectation.of is None and name not in config.stages:
            yield f"{where}: there is no stage '{name}'; name one in `of`{nearest(name, list(config.stages))}"
            continue
        yield from _unless_known(f"{where}.of", "stage", model, list(config.stages))
        if model not in config.stages:
            continue
        baseline = expectation.against or config.stages[model].parent
        if expectation.against == model:
            yield f"{where}.against: '{model}' cannot be compared with itself; name another model"
        elif expectation.against:
            yield from _unless_known(f"{where}.against", "model", baseline, [BASE, *config.stages])
        for score, expected in expectation.scores.items():
            yield from _unless_known(f"{where}.{score}", "score", score, config.scores)
            benchmark = config.protocols.get(score)
            if expected == "holds" and score in config.scores and not (benchmark and benchmark.margin):
                named = config.benchmark_of.get(score)
                remedy = f"set benchmarks.{named}.margin" if named else "expect it of a benchmark"
                yield f"{where}.{score}: 'holds' needs a margin, the drop that you tolerate; {remedy}"
            other = seen.setdefault((model, baseline, score), name)
            if other != name:
                yield f"{where}.{score}: expectations.{other} says this already; remove one of them"


def _broken_rejections(config: Config, name: str) -> Iterator[str]:
    """What is wrong with the model or the questions of a data set of rejections."""
    source = config.datasets[name].source
    if not isinstance(source, RejectionsDataset):
        return
    where = f"datasets.{name}.source"
    yield from _unless_known(f"{where}.model", "stage", source.model, [BASE, *config.stages])
    yield from _unless_known(f"{where}.dataset", "data set", source.dataset, list(config.datasets))
    if source.dataset in config.datasets and (row_type := config.row_type(source.dataset)) != "messages":
        yield f"{where}.dataset: '{source.dataset}' has {row_type} rows; use a data set of messages with answers"


def _broken_formats(config: Config, name: str) -> Iterator[str]:
    """Formats and sampling methods that do not fit the kind of rows."""
    row_type = config.row_type(name)
    known = FORMATS[row_type]
    sample = config.datasets[name].sample
    if sample and sample.method == "margin" and row_type != "preference":
        yield f"datasets.{name}.sample.method: 'margin' needs preference pairs, and these are {row_type} rows"
    for part, section in config.datasets[name].parts.items():
        if section.format not in ("auto", *known):
            where = f"datasets.{name}.{f'source.parts.{part}.' if part else ''}format"
            yield f"{where}: {row_type} rows cannot be read from '{section.format}'; use one of {', '.join(known)}"


def _unless_known(where: str, what: str, name: str, known: list[str]) -> Iterator[str]:
    if name not in known:
        yield f"{where}: unknown {what} '{name}'{nearest(name, known)}"


def _find_copies(config: Config) -> Iterator[str]:
    """Stages that would train exactly the same model."""
    seen: dict[tuple[str, str, int], str] = {}
    for name, first in config.first_repetition.items():
        if name != BASE:
            other = seen.setdefault((first, config.stages[name].parent, config.seed_of(name)), name)
            if other != name:
                yield f"stages.{name}: identical to stages.{other}, including the seed; give one of them another `seed`"


def _find_circle(config: Config) -> Iterator[str]:
    """Stages and data sets that need each other through `from`, `dataset`, `not_in` or sampled rejections."""
    needs: dict[str, set[str]] = {BASE: set()}
    for name, stage in config.stages.items():
        needs[name] = {stage.parent, stage.dataset}
    for name, dataset in config.datasets.items():
        needs[name] = set(dataset.filters.not_in)
        if isinstance(dataset.source, RejectionsDataset):
            needs[name] |= {dataset.source.model, dataset.source.dataset}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = error.args[1]
        first = next((name for name in config.stages if name in circle), None)
        if first is None:
            where = f"datasets.{circle[0]}.filters.not_in"
        else:
            where = f"stages.{first}.{'from' if config.stages[first].parent in circle else 'dataset'}"
        begin, *rest = reversed(circle)
        chain = f"{begin} needs {', which needs '.join(rest)}"
        yield f"{where}: {chain}; break this circular dependency by starting one of them from something else"
