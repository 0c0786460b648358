"""The card of a data set agrees with the tables, and text from rows is escaped."""

import html
import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pypandoc
import pytest

from scripts.common.config import RowType
from scripts.common.files import read_json, write_json, write_json_lines
from scripts.common.markdown import FORMAT
from scripts.common.records import DataCard
from scripts.data.describe_dataset import EXAMPLES, LANGUAGES, LONGEST, render_card
from scripts.data.schemas import SCHEMAS, Row
from tests.common.running import call_main, run_script
from tests.common.test_markdown import HOSTILE
from tests.report.tables import make_card, make_overlap

Json = dict[str, Any]
Table = list[list[str]]

EVIL = [
    *HOSTILE,
    "](javascript:x)",
    "[x](javascript:alert(1)) ![](data:text/html,x)",
    "a | b || c \\| d",
    "`a` ``b`` ```` | ````",
    "</td></tr></table><script>alert(1)</script><img src=x onerror=alert(1)>",
    "x\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n# head",
    "\n: caption\n\n+---+\n| x |\n+---+\n",
    "<|im_start|>system\n&lt;b&gt; &#60;",
]


class _Page(HTMLParser):
    """The tables of a page by caption, as rows of cells; and its tags and links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, Table] = {}
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.lines: Table = []
        self.caption = ""
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src") or name.startswith("on")]
        match tag:
            case "table":
                self.lines, self.caption = [], ""
            case "tr":
                self.lines.append([])
            case "th" | "td":
                self.lines[-1].append("")
        if tag in ("caption", "th", "td"):
            self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.inside = ""
        if tag == "table":
            assert self.caption not in self.tables, "each table has its own caption"
            self.tables[self.caption] = self.lines

    def handle_data(self, data: str) -> None:
        if self.inside == "caption":
            self.caption += data
        elif self.inside:
            self.lines[-1][-1] += re.sub("[\u2060\u200b]", "", data)


def _show(markdown: str) -> _Page:
    """A card as rendered by pandoc, without invisible joiners."""
    return _Page(pypandoc.convert_text(markdown, "html", format=FORMAT, extra_args=["--wrap=none"]))


def _card(examples: list[Row] | None = None, row_type: RowType = "messages", **summary: Any) -> DataCard:
    card: Any = make_card("sums", {"origin": "hub a/b", "revision": "f" * 40, "sha256": "ab" * 32}, row_type)
    return {
        "source": card["source"],
        "funnel": card["funnel"],
        "summary": card["summary"] | summary,
        "columns": {"messages": "list<struct>", "answer": "string"},
        "examples": examples or [],
    }


def _seen(text: str) -> str:
    """A text as the page shows it: on one line, with marks for line breaks, and without control characters."""
    return " ".join(re.sub(r"\s*[\n\r\u2028]+\s*", " ↵ ", text.strip()).split())


def _turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


# --- numbers ------------------------------------------------------------------------------------


def test_tables_show_the_numbers_of_the_facts() -> None:
    card = _card(benchmarks=[make_overlap("sums", hits=7), make_overlap("mmlu", items=1285, hits=1, removed=False)])
    tables = _show(render_card(card, {})).tables
    funnel = tables["Funnel"]
    assert funnel[0] == ["Step", "Removed", "Left"]
    steps = [[step["step"], str(step["removed"]), str(step["rows"])] for step in card["funnel"]["steps"]]
    assert funnel[1:] == [*steps, ["→ train", "–", "600"], ["→ validation", "–", "25"], ["→ test", "–", "12"]]
    (lengths,) = (lines for caption, lines in tables.items() if caption.startswith("Tokens of a row"))
    for line in lengths[1:]:
        facts: Any = card["summary"]["tokens"]["splits"][line[0]]
        named = dict(zip(lengths[0][1:], line[1:], strict=True))
        assert named == {name: f"{facts[name]:,.0f}" for name in named}
        assert {"rows", "total", "mean", "min", "p5", "median", "p95", "max"} <= named.keys()
    assert [line[0] for line in lengths[1:]] == ["train", "validation", "test"]
    assert tables["Benchmark texts found in the rows that were read"][1:] == [
        ["sums", "200", "7", "14", "2.1 %", "removed"],
        ["mmlu", "1,285", "1", "2", "0.3 %", "kept"],
    ]
    examples = tables["The most complete overlaps"]
    assert examples[1:3] == [
        ["sums", "0", "0", "100.0 %", "janet has 0 ducks"],
        ["sums", "1", "2", "90.0 %", "janet has 1 ducks"],
    ]
    assert len(examples) == 1 + 5 + 1
    (contents,) = (lines for caption, lines in tables.items() if caption == "Contents")
    assert contents[1] == ["Languages (detected in 637 of the kept rows)", "en 95.8 %, zh 3.1 %, de 0.6 %, fr 0.5 %"]


def test_a_split_without_counted_rows() -> None:
    card = _card()
    card["summary"]["tokens"]["splits"]["test"] = {"rows": 1200, "counted": 0}
    (lengths,) = (t for caption, t in _show(render_card(card, {})).tables.items() if caption.startswith("Tokens of"))
    assert lengths[3] == ["test", "1,200", "0", *["–"] * 7]


def test_benchmarks_that_were_not_found_or_not_compared() -> None:
    page = render_card(_card(benchmarks=[make_overlap("sums")]), {})
    assert _show(page).tables["Benchmark texts found in the rows that were read"][1:] == [
        ["sums", "200", "0", "0", "0.0 %", "–"]
    ]
    assert "The most complete overlaps" not in page
    assert "No rows were compared with benchmarks." in render_card(_card(benchmarks=[]), {})


def test_contents() -> None:
    languages = {f"l{i}": 10 for i in range(LANGUAGES + 2)}
    groups = {f"group {i}": 1000 - i for i in range(50)}
    card = _card(languages=languages, groups=groups, parts={"a": 5, "b": 1200}, labels={"true": 3, "false": 1})
    lines = _show(render_card(card, {})).tables["Contents"]
    found = {line[0]: line[1] for line in lines[1:]}
    assert found["Languages (detected in 100 of the kept rows)"].endswith("l7 10.0 %, others 20.0 %")
    assert found["Rows of each part"] == "a: 5, b: 1,200"
    assert found["Rows of each group"].startswith("group 0: 1,000, group 1: 999, ")
    assert found["Rows of each label"] == "true: 3, false: 1"
    assert _show(render_card(_card(languages={}), {})).tables["Contents"][1:] == [
        ["Languages (detected in 0 of the kept rows)", "–"]
    ]


def test_the_source_table() -> None:
    card = _card()
    card["source"]["facts"] |= {"files": {"data/a_b.jsonl": "cd" * 32}, "licence": "CC-BY-4.0"}
    facts = {line[0]: line[1] for line in _show(render_card(card, {})).tables["Source"][1:]}
    assert facts == {
        "Source": "hub a/b",
        "Revision": "f" * 40,
        "Licence": "CC-BY-4.0",
        "SHA-256 of the rows": "ab" * 32,
        "SHA-256 of data/a_b.jsonl": "cd" * 32,
        "Columns": "messages (list<struct>), answer (string)",
        "Fetched": "2026-01-02T03:00:05+00:00",
    }
    del card["source"]["facts"]["licence"]
    assert "not stated by the source" in render_card(card, {})


def test_problems_and_figures_appear_only_if_there_are_any() -> None:
    assert "malformed" not in render_card(_card(), {}) and "![" not in render_card(_card(), {})
    problems = [{"source_index": 3, "reason": "rows.jsonl:4: invalid UTF-8 at byte 13"}]
    page = _show(render_card(_card(problems=problems), {"funnel": "../f/funnel.svg", "lengths": "../f/lengths.svg"}))
    assert page.tables["The first malformed rows"][1:] == [["3", "rows.jsonl:4: invalid UTF-8 at byte 13"]]
    assert page.links == ["../f/funnel.svg", "../f/lengths.svg"]


def test_examples_of_pairs_show_both_answers() -> None:
    pair = {
        "source_index": 9,
        "prompt": _turns("2 + 2?"),
        "chosen": _turns("", "4")[1:],
        "rejected": _turns("", "5")[1:],
    }
    asked = {"source_index": 10, "prompt": _turns("2 + 2?"), "answer": None}
    tables = _show(render_card(_card([pair, asked], "preference"), {})).tables
    assert tables["Example 1, row 9 of the source"] == [
        ["Turn", "Text"],
        ["user", "2 + 2?"],
        ["assistant", "4"],
        ["assistant (rejected)", "5"],
    ]
    assert tables["Example 2, row 10 of the source"][1:] == [["user", "2 + 2?"]]


# --- hostile text -------------------------------------------------------------------------------


@cache
def _harmless() -> _Page:
    """The page of a card whose only example is harmless."""
    return _show(render_card(_card([{"source_index": 0, "messages": _turns("x", "y"), "answer": None}]), {}))


@pytest.mark.parametrize("text", EVIL)
def test_hostile_text_stays_in_its_cell(text: str) -> None:
    clean = _harmless()
    card = _card(
        [{"source_index": 0, "messages": _turns(text, text), "answer": None}],
        problems=[{"source_index": 1, "reason": text}],
        groups={text: 4},
        languages={text: 4},
        benchmarks=[make_overlap("sums", hits=1)],
    )
    card["summary"]["benchmarks"][0]["examples"][0]["span"] = text
    card["source"]["facts"] |= {"origin": text.strip(), "licence": text, "files": {text: "ab" * 32}}
    card["columns"] = {text: "string"}
    page = _show(render_card(card, {}))
    assert page.tables["Example 1, row 0 of the source"][1:] == [["user", _seen(text)], ["assistant", _seen(text)]]
    assert page.tables["The first malformed rows"][1:] == [["1", _seen(text)]]
    assert page.tables["The most complete overlaps"][1][-1] == _seen(text)
    assert page.tables["Source"][1] == ["Source", _seen(text)]
    assert page.tables.keys() - {"The first malformed rows", "The most complete overlaps"} == clean.tables.keys()
    assert page.tags == clean.tags and page.links == []


def test_long_turns_are_cut() -> None:
    page = _show(render_card(_card([{"source_index": 0, "messages": _turns("x" * 5000), "answer": None}]), {}))
    assert page.tables["Example 1, row 0 of the source"][1][1] == "x" * LONGEST + " …"


# --- the script ---------------------------------------------------------------------------------


def _make(
    folder: Path, tiny_model: Path, row_type: RowType, rows: list[Json], questions: list[Json]
) -> dict[str, Path]:
    """Run rows through all steps of the data room, as the rules do."""
    write_json_lines(folder / "rows.jsonl", rows)
    write_json_lines(folder / "questions.jsonl", questions)
    files = {name: folder / "mine" / f"{name}.parquet" for name in ("train", "validation", "test", "rejected")}
    files |= {name: folder / "mine" / f"{name}.json" for name in ("funnel", "summary", "manifest", "source")}
    files |= {"contamination": folder / "mine" / "contamination.parquet"}
    section = {"source": {"kind": "file", "path": str(folder / "rows.jsonl")}, "max_malformed": 0.5, "test": 2}
    same = {"name": "mine", "row_type": row_type}
    shard = {"output": folder / "mine" / "0.parquet", "signatures": folder / "mine" / "0.signatures"}
    read = {"rows": folder / "mine" / "source.parquet", "benchmarks": "quiz", "questions": folder / "questions.jsonl"}
    whole = {"config": {"source": section["source"]}, "output": read["rows"], "manifest": files["source"]}
    call_main("data.download_dataset", folder, **same, **whole)
    call_main("data.inspect_rows", folder, **same, **read, **shard, config={}, shard=0, shards=1, model=tiny_model)
    given = {"inspected": shard["output"], "signatures": shard["signatures"], "config": section, "seed": 1}
    made = {name: path for name, path in files.items() if name != "source"}
    call_main("data.filter_dataset", folder, **same, **read, **given, **made)
    return files


def test_card_of_real_rows(tmp_path: Path, tiny_model: Path) -> None:
    asked = "How many ducks does Janet have after she sold two of them on the market in the morning?"
    rows: list[Json] = [{"messages": _turns(f"What is {i} + {i}?", f"It is {2 * i}.")} for i in range(20)]
    rows += [{"messages": _turns(asked, "None.")}, {"messages": []}, rows[3], {"messages": _turns("x", EVIL[-4])}]
    question = {"question": asked, "texts": [asked]}
    files = _make(tmp_path, tiny_model, "messages", rows, [question, {"question": "No?", "texts": ["No?"]}])
    given = {name: files[name] for name in ("source", "train", "funnel", "summary")}
    made = {"card": tmp_path / "results" / "mine.md", "facts": tmp_path / "results" / "mine.json"}
    figures = [tmp_path / "figures" / "funnel.svg", tmp_path / "figures" / "lengths.svg"]
    call_main("data.describe_dataset", tmp_path, **given, figures=figures, **made)

    facts = read_json(made["facts"])
    assert facts["funnel"] == read_json(files["funnel"]) and facts["summary"] == read_json(files["summary"])
    assert facts["source"] == read_json(files["source"])
    assert facts["examples"] == pq.read_table(files["train"]).to_pylist()[:EXAMPLES]
    page = _show(made["card"].read_text(encoding="utf-8"))
    funnel = {step: (removed, left) for step, removed, left in page.tables["Funnel"][1:]}
    assert funnel["read"] == ("0", "24") and funnel["schema"] == ("1", "23")
    assert funnel["benchmark_overlap"] == ("1", "22") and funnel["duplicates"] == ("1", "21")
    assert (funnel["→ train"][1], funnel["→ test"][1]) == ("19", "2")
    assert page.tables["The first malformed rows"][1:] == [["21", "messages has no turns"]]
    (overlap,) = page.tables["Benchmark texts found in the rows that were read"][1:]
    assert overlap == ["quiz", "2", "1", "1", "4.3 %", "removed"], "one of the 23 well-formed rows"
    (hit,) = page.tables["The most complete overlaps"][1:]
    assert hit[:4] == ["quiz", "0", "20", "100.0 %"] and hit[4].startswith("how many ducks does janet have")
    assert page.links == ["../figures/funnel.svg", "../figures/lengths.svg"]

    # The same tables give the same card, and the script runs in its own process.
    first = {name: path.read_bytes() for name, path in made.items()}
    run = run_script("data.describe_dataset", tmp_path, **given, figures=figures, **made)
    assert run.returncode == 0, run.stderr
    assert {name: path.read_bytes() for name, path in made.items()} == first


def test_facts_can_contain_any_row(tmp_path: Path) -> None:
    """The facts are JSON for other tools: scores are numbers, and texts are unchanged."""
    turns = _turns("\u2028 \x00 中文 😀", "4")
    row = {"source_index": 0, "prompt": turns[:1], "chosen": turns[1:], "rejected": turns[1:], "score_chosen": 1e300}
    table = pa.Table.from_pylist([row | {"score_rejected": None}], schema=SCHEMAS["preference"])
    pq.write_table(table, tmp_path / "train.parquet")
    card = _card(row_type="preference")
    for name in ("source", "funnel", "summary"):
        write_json(tmp_path / f"{name}.json", card[name])
    given = {name: tmp_path / f"{name}.json" for name in ("source", "funnel", "summary")}
    made = {"card": tmp_path / "card.md", "facts": tmp_path / "facts.json"}
    call_main("data.describe_dataset", tmp_path, **given, train=tmp_path / "train.parquet", **made)
    text = made["facts"].read_text(encoding="utf-8")
    assert json.loads(text)["examples"] == table.to_pylist()
    assert html.unescape("&#0;") not in made["card"].read_text(encoding="utf-8"), "control characters are not shown"
