"""The PDF: both languages, hostile text, identical bytes, and errors."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.common.records import Item, OriginFacts
from scripts.report import build_pdf
from tests.common.test_markdown import HOSTILE
from tests.report.conftest import REPORT, Write
from tests.report.tables import MODELS, make_overlap, make_tables

PAGE = REPORT / "page.typ"

MOST_EXAMPLES = 20
"""Most items that `report.examples` may show."""


def build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    arguments = ["--report", folder / "report.md", "--page", PAGE, "--output", folder / "report.pdf"]
    monkeypatch.setattr(sys, "argv", ["build_pdf", *map(str, arguments)])
    build_pdf.main()
    return (folder / "report.pdf").read_bytes()


def count_pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize("language", ["en", "zh"])
def test_pdf_has_a_few_pages_and_the_same_bytes_again(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    write(language=language)
    pdf = build(tmp_path, monkeypatch)
    assert pdf.startswith(b"%PDF")
    assert 2 <= count_pages(pdf) <= 5
    assert b"D:20260102030905" in pdf  # date of the newest manifest, not today's
    assert build(tmp_path, monkeypatch) == pdf


@pytest.mark.usefixtures("figures")
def test_hostile_text_is_typeset(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = make_tables()
    origins: list[OriginFacts] = [*(card["source"]["facts"] for card in tables.cards), tables.base["facts"]]
    for facts, text in zip(origins, HOSTILE, strict=False):
        facts["origin"] = text
    for card, text in zip(tables.cards, HOSTILE[3:], strict=False):
        card["source"]["facts"]["licence"] = text
        card["summary"]["languages"] = {text: 1}
        card["summary"]["benchmarks"] = [make_overlap("sums", hits=1)]
        card["summary"]["benchmarks"][0]["examples"][0]["span"] = text
    texts = [*HOSTILE, "\x00\u202e", "", "x" * 1000, "中" * 1000]
    items: list[Item] = [
        {"key": str(place), "prompt": text, "target": text, "answer": text, "score": 0.5}
        for place, text in enumerate(texts)
    ]
    for start in range(0, len(items), MOST_EXAMPLES):
        shown = items[start : start + MOST_EXAMPLES]
        write(tables, dict.fromkeys(MODELS, shown), examples=len(shown), title=" ".join(HOSTILE))
        assert count_pages(build(tmp_path, monkeypatch)) > 2


@pytest.mark.usefixtures("figures")
def test_long_tables_span_several_pages(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    before = count_pages(build(tmp_path, monkeypatch))
    tables = make_tables()
    write(replace(tables, comparisons=30 * tables.comparisons))
    assert count_pages(build(tmp_path, monkeypatch)) >= before + 4


def test_a_missing_figure_is_reported(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    with pytest.raises(UserError, match=r"typesetting the report failed: .*differences\.svg"):
        build(tmp_path, monkeypatch)


def test_warnings_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown font family"):
        build_pdf.set_pages('#set text(font: "No Such Font")\nText', root=tmp_path, created=0)


def test_files_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "root").mkdir()
    with pytest.raises(UserError, match="typesetting the report failed"):
        build_pdf.set_pages('#read("../secret.txt")', root=tmp_path / "root", created=0)
