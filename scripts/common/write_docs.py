"""Write the configuration's JSON schema and its documentation from the models in config.py. Run by `make docs`."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from scripts.common.config import Config
from scripts.common.files import write_text
from scripts.common.section import Section

REPOSITORY = Path(__file__).parents[2]
SCHEMA = REPOSITORY / "schemas" / "config.schema.json"
DOCUMENTATION = REPOSITORY / "docs" / "configuration.md"

INTRODUCTION = """\
# Configuration

Made from `scripts/common/config.py` by `make docs`; edit that.

`config.yaml` is the run. `snakemake --configfile recipes/demo.yaml` takes another file in its place; a key that it does
not set has the default below, not the value in `config.yaml`. `--configfile config.yaml mine.yaml` puts the second over
the first, and `--config 'run={seed: 43}'` sets single keys.

Unknown keys are refused with the nearest right name. A rule gets only the part of the configuration that it uses, so a
change reruns what depends on it and nothing else.
"""


def main() -> None:
    write_text(SCHEMA, make_schema())
    write_text(DOCUMENTATION, make_documentation())


def make_schema() -> str:
    """The JSON schema that editors complete and check `config.yaml` with."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def make_documentation() -> str:
    """Every key of every section, as Markdown tables."""
    parts = [INTRODUCTION, *(_describe(section, title) for section, title in _sections())]
    return "\n".join(parts)


def _sections() -> Iterator[tuple[type[Section], str]]:
    """Each section once, with the place where it stands, parents first."""
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
    title = f"`{path}`" if path else "The file"
    if "kind" in section.model_fields:
        (kind,) = get_args(section.model_fields["kind"].annotation)
        title += f" of kind `{kind}`"
    lines = [
        f"## {title}",
        "",
        " ".join((section.__doc__ or "").split()),
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, info in section.model_fields.items():
        if name == "kind":
            continue
        cells = [f"`{info.alias or name}`", _type(info.annotation), _default(info), info.description or ""]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "needed"
    value = info.default
    if isinstance(value, Section):
        return "see there"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(annotation: Any) -> str:
    """A type in words that a user of YAML knows."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type(get_args(annotation)[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (UnionType, Union):
        options = [_type(option) for option in get_args(annotation)]
        return " or ".join(dict.fromkeys(options))
    if origin is dict:
        return f"{_type(get_args(annotation)[1])} by name"
    if origin is list:
        return f"list of {_type(get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    names = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "true or false",
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
