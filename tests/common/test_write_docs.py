"""What is generated is up to date with the code."""

import json

from scripts.common.config import Config
from scripts.common.write_docs import (
    DOCUMENTATION,
    SCHEMA,
    STEPS,
    insert_diagram,
    make_diagram,
    make_documentation,
    make_schema,
)


def test_the_schema_is_up_to_date() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == make_schema(), "run `make docs`"


def test_the_documentation_is_up_to_date() -> None:
    assert DOCUMENTATION.read_text(encoding="utf-8") == make_documentation(), "run `make docs`"


def test_the_diagram_is_up_to_date() -> None:
    page = STEPS.read_text(encoding="utf-8")
    assert page == insert_diagram(page, make_diagram()), "run `make docs`"


def test_every_key_is_described() -> None:
    schema = json.loads(make_schema())
    sections = [Config.__name__, *schema["$defs"]]
    assert len(sections) > 20
    for section in schema["$defs"].values():
        for key, field in section["properties"].items():
            assert key == "kind" or field.get("description"), f"{section['title']}.{key} has no description"


def test_every_table_row_has_four_cells() -> None:
    """A bar in a description or a default would split its row."""
    rows = [line for line in make_documentation().splitlines() if line.startswith("|")]
    assert len(rows) > 60
    for row in rows:
        assert row.replace(r"\|", "").count("|") == 5, row
