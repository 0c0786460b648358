"""Writing a report from tables, as its rule does."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.report import write_report
from tests.report.tables import MODELS, Json, make_items, make_tables, write_tables

REPORT = Path(__file__).parents[2] / "report"
FIGURES = ("funnel", "lengths", "training", "scores")

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write the report of some tables to `report.md` in the test's folder, and give its text."""

    def run(
        tables: Json | None = None, items: dict[str, list[Json]] | None = None, language: str = "en", **config: Any
    ) -> str:
        items = items or {model: make_items(model) for model in MODELS}
        options = write_tables(tmp_path, tables or make_tables(), items) | {
            "--config": [json.dumps({"language": language} | config)],
            "--run": ["small"],
            "--seed": ["42"],
            "--alpha": ["0.05"],
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
    """Stand-ins for the figures: small, since the report only places them."""
    for name in FIGURES:
        path = tmp_path / "figures" / f"{name}.svg"
        path.parent.mkdir(exist_ok=True)
        path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="400pt" height="100pt"/>', encoding="utf-8")
