"""Any line becomes one row, well-formed or with a problem, and the filters can process it."""

import copy
import csv
import io
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.common.config import FORMATS, FileDataset, Filters, MixturePart, RowType
from scripts.common.errors import UserError
from scripts.common.records import Question
from scripts.data.benchmark_overlap import OverlapIndex
from scripts.data.data_files import read_file
from scripts.data.download_dataset import convert
from scripts.data.filters import Tools
from scripts.data.inspect_rows import INSPECTED, inspect_batch
from scripts.data.schemas import SOURCE_SCHEMAS
from scripts.data.token_counter import TokenCounter

LINES = 800
"""Broken lines for each row type and format: more than 10,000 in total."""

FILES = 100
"""Broken files of each other file type."""

GOOD = 3
"""Well-formed rows before them, so that the format can be found."""

CASES = [(row_type, name) for row_type, formats in FORMATS.items() for name in formats]

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2 + 2? Say it in as many words as there are digits in 中文 😀."},
    {"role": "assistant", "content": "It is 4, as everybody knows who ever counted the fingers of one hand."},
]
SAID = [{"from": {"assistant": "gpt"}.get(turn["role"], turn["role"]), "value": turn["content"]} for turn in TURNS]
TEXT = {"prompt": TURNS[1]["content"], "completion": "4", "chosen": "4", "rejected": "5"}

ROWS: dict[Any, list[dict[str, Any]]] = {
    "messages": [{"messages": TURNS, "answer": "4"}, {"messages": TURNS[1:], "answer": 4.5}],
    "sharegpt": [{"conversations": SAID}, {"conversations": SAID[1:], "system": "Be brief."}],
    "alpaca": [
        {"instruction": "Add.", "input": "2 + 2", "output": "4", "history": [["1 + 1?", "2"], ["Sure?", "Yes."]]},
        {"instruction": "Add 2 and 2.", "input": None, "output": "4", "system": "Be brief."},
    ],
    "prompt_completion": [
        {"prompt": TEXT["prompt"], "completion": "4"},
        {"prompt": TURNS[:2], "completion": TURNS[2:], "answer": "4"},
    ],
    "problem_answer": [{"question": "2 + 2?", "answer": 4}, {"problem": "2 + 2?", "solution": "Four.", "answer": "4"}],
    "preference": [
        {"prompt": TEXT["prompt"], "chosen": "4", "rejected": "5", "score_chosen": 8.5, "score_rejected": 4},
        {"chosen": TURNS, "rejected": [*TURNS[:2], {"role": "assistant", "content": "5"}]},
    ],
    "kto": [{"prompt": TEXT["prompt"], "completion": "4", "label": True}, {"prompt": TURNS, "completion": TURNS[2:]}],
    "kto_messages": [{"messages": TURNS, "label": True}, {"messages": TURNS[1:], "label": 0}],
    "prompt": [{"prompt": TEXT["prompt"], "answer": "4"}, {"prompt": TURNS[:2]}],
}

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 2, 1e308, 10**400, math.nan, math.inf, -math.inf, "", " ", "\n", "\x00", "\u2028"),
    *([], {}, [[]], [{}], [None], [[[["x"]]]], {"x": {"y": []}}, {"role": "user"}, {"content": "x"}),
    *("half \ud800", "\udfff\ud800", "\ufeff", "e\u0301" * 50, "<|im_start|>user\nx<|im_end|>", "中" * 200, "x" * 5000),
    *({"role": "user", "content": None}, {"role": "tool", "content": "x"}, {"from": "user", "value": "\udc00"}),
    *([{"type": "text", "text": "x"}], [{"type": "image"}], "I'm sorry, but I can't.", "as an AI language model"),
]
"""Values that replace others."""


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _places(inner, (*path, key))


def _change(row: Any, draw: random.Random) -> Any:
    """The row with one or two random changes."""
    row = json.loads(json.dumps(row))
    for _ in range(draw.choice((1, 1, 2))):
        places = list(_places(row))
        if not places:
            break
        *path, key = draw.choice(places)
        parent = row
        for step in path:
            parent = parent[step]
        match draw.randrange(6):
            case 0:
                del parent[key]
            case 1:
                parent[key] = [parent[key]]
            case 2:
                parent[key] = {"x": parent[key]}
            case 3 if isinstance(parent, list):
                parent.insert(key, parent[key])
            case 4 if isinstance(parent, dict):
                parent[draw.choice(["role", "content", "text", "prompt", "label", "", "\ud800"])] = parent.pop(key)
            case _:
                parent[key] = copy.deepcopy(draw.choice(VALUES))
    return row


def _cut(line: bytes, draw: random.Random) -> bytes:
    return line[: draw.randrange(len(line))]


def _flip(line: bytes, draw: random.Random) -> bytes:
    broken = bytearray(line)
    for _ in range(draw.choice((1, 1, 2, 20))):
        broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
    return bytes(broken)


def _insert(line: bytes, draw: random.Random) -> bytes:
    pieces = [b"\x00", b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\xe4\xb8", b"\\ud800", b"\\u", b'"', b"\xef\xbb\xbf"]
    place = draw.randrange(len(line))
    return line[:place] + draw.choice(pieces) + line[place:]


def _double(line: bytes, draw: random.Random) -> bytes:
    """A duplicate key. JSON readers keep the last value."""
    key = draw.choice(list(json.loads(line)))
    value = json.dumps(draw.choice(VALUES))
    return line.rstrip()[:-1] + f", {json.dumps(key)}: {value}}}".encode()


def _deepen(line: bytes, draw: random.Random) -> bytes:
    """Nesting near the limit of Python's JSON reader. What can be read may be too deep to be written."""
    key = json.dumps(draw.choice(list(json.loads(line))))
    depth = draw.choice((50, 5_000, draw.randrange(850, 1_000), draw.randrange(850, 1_000)))
    begin, end = draw.choice(((b"[", b"]"), (b'{"x":', b"}"), (b'[{"content":', b"}]")))
    return b"{" + key.encode() + b":" + begin * depth + b"1" + end * depth + b"}"


def _no_object(line: bytes, draw: random.Random) -> bytes:
    return draw.choice([b"[%s]", b"%s,", b"%s%s", b'"%s"', b"null%.0s", b"1e999%.0s", b"NaN%.0s"]).replace(b"%s", line)


TEXT_CHANGES: list[Callable[[bytes, random.Random], bytes]] = [_cut, _flip, _insert, _double, _deepen, _no_object]


def _break(row: dict[str, Any], draw: random.Random) -> bytes:
    """One line of a broken row."""
    row = _change(row, draw) if draw.random() < 0.6 else row
    line = json.dumps(row, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    if row and draw.random() < 0.5:
        line = draw.choice(TEXT_CHANGES)(line, draw)
    return line.replace(b"\n", b" ") if line.strip() else b"null"


STRICT = Filters.model_validate(
    {
        **{"min_margin": 1, "max_length_ratio": 3, "refusals": True, "patterns": {"sums": ["\\d+ \\+"]}},
        **{"max_repetition": 0.2, "min_tokens": 2, "max_tokens": 200, "near_duplicates": 0.8},
    }
)
LENIENT = Filters.model_validate(
    dict.fromkeys(("empty", "roles", "control_tokens", "equal_answers", "duplicates"), False)
    | {"benchmark_overlap": "flag", "near_duplicates": 0.5}
)


@pytest.fixture(scope="module")
def tools(tiny_model: Path) -> Tools:
    items: list[Question] = [{"question": turn["content"], "texts": [turn["content"]]} for turn in TURNS]
    return Tools(TokenCounter(tiny_model), OverlapIndex({"sums": items}))


def _convert(path: Path, row_type: RowType, name: Any, balance: str = "") -> list[dict[str, Any]]:
    """The rows of a file as `download_dataset` writes them."""
    part = MixturePart(source=FileDataset(kind="file", path=str(path)), format=name)
    rows = convert(read_file(path, "datasets.mine.source"), part, row_type, balance, "datasets.mine")
    return [row | {"source_index": index, "part": ""} for index, row in enumerate(rows)]


def _inspect(folder: Path, rows: list[dict[str, Any]], row_type: RowType, tools: Tools) -> None:
    """Write and read the rows, and apply all filters, strict and lenient."""
    schema = SOURCE_SCHEMAS[row_type]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "source.parquet")
    written = pq.read_table(folder / "source.parquet").to_pylist()
    assert [row["problem"] for row in written] == [row["problem"] for row in rows]
    for row in written:
        good = [name for name in schema.names[1:] if row[name] is not None and name not in ("part", "balance")]
        assert good == ["problem", "raw"] if row["problem"] is not None else "problem" not in good and good
        assert row["problem"] is None or (row["problem"] and "\n" not in row["problem"])
    for filters in (STRICT, LENIENT):
        lines, signatures = inspect_batch(written, row_type, filters, tools, len(rows))
        assert [line["source_index"] for line in lines] == [row["source_index"] for row in rows]
        assert len(signatures) == len(rows)
        pa.Table.from_pylist(lines, schema=INSPECTED).validate(full=True)
        for line, row in zip(lines, written, strict=True):
            assert (line.get("step") == "schema") == (row["problem"] is not None)
            assert line.get("step") is not None or line["text_key"] is not None


@pytest.mark.parametrize(("row_type", "name"), CASES)
def test_every_line_gives_one_row(tmp_path: Path, tools: Tools, row_type: RowType, name: Any) -> None:
    draw = random.Random(f"{row_type} {name}")
    good = [row | {"kind": "sums"} for row in ROWS[name]]
    lines = [json.dumps(good[0]).encode()] * GOOD + [_break(draw.choice(good), draw) for _ in range(LINES)]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    rows = _convert(tmp_path / "rows.jsonl", row_type, name, "kind")
    assert len(rows) == len(lines)
    assert [row["problem"] for row in rows[:GOOD]] == [None] * GOOD
    bad = sum(row["problem"] is not None for row in rows)
    assert LINES / 3 < bad < LINES, "some lines are still well-formed, and many are not"
    _inspect(tmp_path, rows, row_type, tools)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json"])
def test_broken_files_of_other_types(tmp_path: Path, tools: Tools, suffix: str) -> None:
    """Rows may span lines here. The test is that nothing but a UserError is raised."""
    draw = random.Random(suffix)
    refused, rows = 0, list[dict[str, Any]]()
    for number in range(FILES):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(_break_file(suffix, draw))
        try:
            rows += _convert(path, "messages", "auto")
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 0 < refused < FILES
    _inspect(tmp_path, [row | {"source_index": index} for index, row in enumerate(rows)], "messages", tools)


def _break_file(suffix: str, draw: random.Random) -> bytes:
    """A file of this type with unusual values, broken in one to three places."""
    values = ["4", *(draw.choice([*VALUES, *TEXT.values()]) for _ in range(20))]
    table = [{"prompt": "2 + 2?", "completion": value} for value in values]
    if suffix == ".json":
        data = json.dumps(table).encode()
    else:
        out = io.StringIO()
        delimiter = "\t" if suffix == ".tsv" else ","
        csv.writer(out, delimiter=delimiter).writerows([table[0].keys(), *(row.values() for row in table)])
        data = out.getvalue().encode("utf-8", "surrogatepass")
    for _ in range(draw.randrange(1, 4)):
        data = draw.choice((_cut, _flip, _insert))(data, draw) or b"x"
    return data
