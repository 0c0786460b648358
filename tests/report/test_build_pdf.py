"""Tests of the PDF: it is set in both languages, whatever the text, and always with the same bytes."""

import re
import sys
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.report import build_pdf
from tests.report.conftest import REPORT, Write
from tests.report.tables import MODELS, make_overlap, make_tables
from tests.report.test_markdown import HOSTILE

PAGE = REPORT / "page.typ"


def build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    arguments = ["--report", folder / "report.md", "--page", PAGE, "--output", folder / "report.pdf"]
    monkeypatch.setattr(sys, "argv", ["build_pdf", *map(str, arguments)])
    build_pdf.main()
    return (folder / "report.pdf").read_bytes()


def count_pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize("language", ["en", "zh"])
def test_report_has_a_few_pages_and_the_same_bytes_again(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    write(language=language)
    pdf = build(tmp_path, monkeypatch)
    assert pdf.startswith(b"%PDF")
    assert 2 <= count_pages(pdf) <= 5
    assert b"D:20260102030905" in pdf  # the newest manifest's date, not today's
    assert build(tmp_path, monkeypatch) == pdf


@pytest.mark.usefixtures("figures")
def test_hostile_text_is_set(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = make_tables()
    manifests = [*(card["source"] for card in tables["cards"]), tables["models"][0]]
    for manifest, text in zip(manifests, HOSTILE, strict=False):
        manifest["facts"]["origin"] = text
    for card, text in zip(tables["cards"], HOSTILE[3:], strict=False):
        card["source"]["facts"]["licence"] = text
        card["summary"]["languages"] = {text: 1}
        card["summary"]["benchmarks"] = [make_overlap("sums", hits=1)]
        card["summary"]["benchmarks"][0]["examples"][0]["span"] = text
    texts = [*HOSTILE, "\x00\u202e", "", "x" * 1000, "中" * 1000]
    items = [
        {"key": str(place), "prompt": text, "target": text, "answer": text, "score": 0.5}
        for place, text in enumerate(texts)
    ]
    write(tables, dict.fromkeys(MODELS, items), examples=len(items), title=" ".join(HOSTILE))
    assert count_pages(build(tmp_path, monkeypatch)) > 2


@pytest.mark.usefixtures("figures")
def test_long_tables_go_over_several_pages(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    before = count_pages(build(tmp_path, monkeypatch))
    tables = make_tables()
    tables["comparisons"] *= 30
    write(tables)
    assert count_pages(build(tmp_path, monkeypatch)) >= before + 4


def test_missing_figure_is_an_error_of_one_cause(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    with pytest.raises(UserError, match=r"the report cannot be set: .*funnel\.svg"):
        build(tmp_path, monkeypatch)


def test_warnings_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown font family"):
        build_pdf.set_pages('#set text(font: "No Such Font")\nText', root=tmp_path, created=0)


def test_nothing_outside_of_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "root").mkdir()
    with pytest.raises(UserError, match="the report cannot be set"):
        build_pdf.set_pages('#read("../secret.txt")', root=tmp_path / "root", created=0)
