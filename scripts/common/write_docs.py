"""Generate the parts of the documentation that describe the configuration and the rules. `make docs` runs this.

The JSON schema and docs/configuration.md are generated from scripts/common/config/, the diagram in docs/steps.md from
rules/.
"""

import json
from collections.abc import Iterator
from textwrap import wrap
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from scripts.common.config import Config
from scripts.common.config.section import Section
from scripts.common.files import write_text
from scripts.common.paths import REPOSITORY
from scripts.common.rule_graph import draw_mermaid, list_rules, read_graph, simplify

SCHEMA = REPOSITORY / "schemas" / "config.schema.json"
DOCUMENTATION = REPOSITORY / "docs" / "configuration.md"
STEPS = REPOSITORY / "docs" / "steps.md"

WIDTH = 118
"""Longest line of prose."""

INTRODUCTION = """\
# Configuration

This page is generated from `scripts/common/config/` by `make docs`. Edit the descriptions there.

One YAML file describes a run. Snakemake reads `config.yaml` unless you name another file:

    snakemake                                      # config.yaml
    snakemake --configfile my.yaml                 # my.yaml alone: all other keys have the defaults below
    snakemake --configfile config.yaml my.yaml     # config.yaml, with the keys of my.yaml on top
    snakemake --config 'run={seed: 43}'            # config.yaml, with single keys changed

Mistakes are reported before anything runs, an unknown key with the nearest known one. After a change, only the steps
that depend on the changed keys run again.

Where a section has several kinds, `kind` selects one, as in `source: {kind: file, path: rows.jsonl}`. A string such as
`file.py:function` names a Python function; the path is relative to the folder in which Snakemake runs. Editors that
support JSON schemas complete and check the keys with `schemas/config.schema.json`.
"""


def main() -> None:
    write_text(SCHEMA, make_schema())
    write_text(DOCUMENTATION, make_documentation())
    write_text(STEPS, insert_diagram(STEPS.read_text(encoding="utf-8"), make_diagram()))


def make_schema() -> str:
    """The JSON schema with which editors complete and check `config.yaml`."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def make_diagram() -> str:
    """The rules of `recipes/tour.yaml`, as a Mermaid flowchart."""
    return draw_mermaid(simplify(read_graph(REPOSITORY, "tour")), list_rules(REPOSITORY))


def insert_diagram(text: str, diagram: str) -> str:
    """The Markdown page `text` with the diagram in its Mermaid block."""
    start, fence, rest = text.partition("```mermaid\n")
    _, end, after = rest.partition("```\n")
    return f"{start}{fence}{diagram}\n{end}{after}"


def make_documentation() -> str:
    """Every key of every section, as Markdown tables."""
    parts = [INTRODUCTION, *(_describe(section, title) for section, title in _sections())]
    return "\n".join(parts)


def _sections() -> Iterator[tuple[type[Section], str]]:
    """Each section once, with its path, parents first."""
    seen: set[type[Section]] = set()
    queue: list[tuple[type[Section], str]] = [(Config, "")]
    while queue:
        section, path = queue.pop(0)
        if section in seen:
            continue
        seen.add(section)
        yield section, path
        for name, info in section.model_fields.items():
            below = f"{path}.{info.alias or name}".lstrip(".")
            queue += [
                (inner, below + ("." + _name_of(below) if _is_mapping(info.annotation) else ""))
                for inner in _inner(info.annotation)
            ]


def _describe(section: type[Section], path: str) -> str:
    title = f"`{path}`" if path else "Top level"
    if "kind" in section.model_fields:
        (kind,) = get_args(section.model_fields["kind"].annotation)
        title += f" of kind `{kind}`"
    lines = [f"## {title}", "", *wrap(" ".join((section.__doc__ or "").split()), WIDTH, break_on_hyphens=False), ""]
    fields = {info.alias or name: info for name, info in section.model_fields.items() if name != "kind"}
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"] if fields else ["It has no further keys."]
    for key, info in fields.items():
        cells = [f"`{key}`", _type(info.annotation), _default(info), info.description or ""]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "required"
    value = info.default
    if isinstance(value, Section):
        value = value.model_dump(exclude_defaults=True)
        if not value:
            return "see below"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(annotation: Any) -> str:
    """A type in the words of YAML and JSON."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type(get_args(annotation)[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (UnionType, Union):
        options = [_type(option) for option in get_args(annotation)]
        return " or ".join(dict.fromkeys(options))
    if origin is dict:
        return f"mapping (name: {_type(get_args(annotation)[1])})"
    if origin is list:
        return f"list of {_type(get_args(annotation)[0])}s"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    names = {
        int: "integer",
        float: "number",
        str: "string",
        bool: "boolean",
        type(None): "null",
        Any: "any value",
    }
    return names[annotation]


def _inner(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _inner(argument)


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _name_of(path: str) -> str:
    """A placeholder for the name in a section such as `stages.<stage>`."""
    return f"<{path.rsplit('.', 1)[-1].removesuffix('s')}>"


if __name__ == "__main__":
    main()
