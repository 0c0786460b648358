"""Fixtures of this room: the report of some tables, and helpers to read it."""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from scripts.common.records import Item
from scripts.report import write_report
from scripts.report.contents import Tables
from scripts.report.words import Words
from tests.report.tables import MODELS, make_items, make_tables, write_tables

REPORT = Path(__file__).parents[2] / "report"
FIGURES = ("funnel", "lengths", "training", "scores", "differences")

Write = Callable[..., str]


def plain(report: str) -> str:
    """Markdown without escapes and non-breaking spaces."""
    return re.sub(r"\\(?=[!-/:-@\[-`{-~])", "", report).replace("\u00a0", " ")


def table_rows(table: str) -> list[str]:
    """The rows of a table below its header."""
    return [line for line in plain(table).splitlines() if line.startswith("| ")][2:]


@pytest.fixture(scope="session")
def words() -> Words:
    """The report's words in English."""
    return Words.read(REPORT / "words" / "en.yaml")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write the report of some tables to `report.md` in the test's folder, and return its text."""

    def run(
        tables: Tables | None = None,
        items: Mapping[str, Sequence[Item]] | None = None,
        language: str = "en",
        alpha: float = 0.05,
        **config: Any,
    ) -> str:
        items = items or {model: make_items(model) for model in MODELS}
        options = write_tables(tmp_path, tables or make_tables(), items) | {
            "--config": [json.dumps({"language": language} | config)],
            "--run": ["small"],
            "--seed": ["42"],
            "--alpha": [str(alpha)],
            "--protocols": ["{}"],
            "--template": [str(REPORT / "report.md.jinja")],
            "--words": [str(REPORT / "words" / f"{language}.yaml")],
            "--figures": [str(tmp_path / "figures" / f"{name}.svg") for name in FIGURES],
            "--output": [str(tmp_path / "report.md")],
        }
        monkeypatch.setattr(
            sys, "argv", ["write_report", *(word for pair in options.items() for word in (pair[0], *pair[1]))]
        )
        write_report.main()
        return (tmp_path / "report.md").read_text(encoding="utf-8")

    return run


@pytest.fixture
def figures(tmp_path: Path) -> None:
    """Placeholders for the figures, which the report only includes."""
    for name in FIGURES:
        path = tmp_path / "figures" / f"{name}.svg"
        path.parent.mkdir(exist_ok=True)
        path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="400pt" height="100pt"/>', encoding="utf-8")
