"""Files of every type are read row by row. A broken row is counted, and a broken file gives a one-line error."""

import bz2
import csv
import gzip
import io
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.common.errors import UserError
from scripts.data.data_files import BATCH, LONGEST_LINE, SHOWN, Record, find_files, read_file

WHERE = "datasets.mine.source"
ROWS: list[dict[str, Any]] = [
    {"prompt": "2 + 2?", "answer": "4"},
    {"prompt": 'a "quoted", text\nof 2 lines; 中文 😀 \u2028', "answer": None},
]


def _zstd(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return bytes(out.getvalue())


def _table(delimiter: str) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows([ROWS[0].keys(), *(row.values() for row in ROWS)])
    return out.getvalue().encode()


LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
TEXTS = {
    ".jsonl": LINES,
    ".ndjson": LINES,
    ".json": json.dumps(ROWS, indent=2).encode(),
    ".lines.json": LINES,
    ".csv": _table(","),
    ".tsv": _table("\t"),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": _zstd,
}


def _write(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def _read(path: Path) -> list[Record]:
    return list(read_file(path, WHERE))


def _refused(path: Path) -> str:
    """The error for a file that cannot be read."""
    with pytest.raises(UserError) as caught:
        _read(path)
    text = str(caught.value)
    assert text.startswith(f"{WHERE}.path: {path}: ") and "\n" not in text
    return text.removeprefix(f"{WHERE}.path: {path}: ")


# --- every type ---------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("suffix", TEXTS)
def test_every_type_and_compression(tmp_path: Path, suffix: str, packed: str) -> None:
    path = _write(tmp_path, f"rows{suffix}{packed}", PACKED[packed](TEXTS[suffix]))
    assert _read(path) == [Record(row) for row in ROWS]


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_parquet(tmp_path: Path, compression: str) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": str(i)}], "id": i} for i in range(BATCH + 7)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=300, compression=compression)
    assert _read(tmp_path / "rows.parquet") == [Record(row) for row in rows]


def test_suffixes_in_upper_case(tmp_path: Path) -> None:
    assert _read(_write(tmp_path, "ROWS.JSONL", LINES)) == [Record(row) for row in ROWS]


def test_several_gzip_members_are_one_text(tmp_path: Path) -> None:
    path = _write(tmp_path, "rows.jsonl.gz", b"".join(gzip.compress(line) for line in LINES.splitlines(keepends=True)))
    assert len(_read(path)) == 2


@pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.txt.gz", "rows.gz", "rows.xlsx"])
def test_unknown_types(tmp_path: Path, name: str) -> None:
    said = _refused(_write(tmp_path, name, LINES))
    suffix = Path(name.removesuffix(".gz")).suffix
    assert said.startswith(
        f"files of type '{suffix}' are not supported; use JSON lines (.jsonl), .json, .csv, .tsv or .parquet"
    )


# --- which files --------------------------------------------------------------------------------


def test_globs_sort_files_by_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    paths = [_write(tmp_path, name, "") for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "d.csv")]
    assert find_files(str(tmp_path / "*.jsonl"), WHERE) == [paths[1], paths[0]]
    assert find_files(str(tmp_path / "**" / "*.jsonl"), WHERE) == [paths[1], paths[0], paths[2]]
    assert find_files(str(paths[3]), WHERE) == [paths[3]]


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        find_files(str(tmp_path / "*.jsonl"), WHERE)
    assert str(caught.value) == f"{WHERE}.path: no file matches {tmp_path}/*.jsonl"
    for pattern in (tmp_path, tmp_path.parent / f"{tmp_path.name}*"):
        with pytest.raises(UserError) as caught:
            find_files(str(pattern), WHERE)
        assert str(caught.value) == f"{WHERE}.path: {tmp_path} is a folder; name its files, such as {tmp_path}/*.jsonl"


# --- broken files -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz", ".zst"])
def test_truncated_and_wrong_compression(tmp_path: Path, packed: str, suffix: str) -> None:
    many = "".join(f'{{"a": "{i * i}"}}\n' for i in range(5000)).encode()
    whole = PACKED[packed](many)
    path = _write(tmp_path, f"rows{suffix}{packed}", whole[: len(whole) // 2])
    for data in (whole[: len(whole) // 2], whole[:-3], b"this is no compressed text at all", LINES):
        path.write_bytes(data)
        assert _refused(path).startswith("the file cannot be read: ")
        assert _refused(path).endswith("; replace the file")


@pytest.mark.parametrize("data", [b"", b"no Parquet", b"PAR1" + b"\x00" * 100 + b"PAR1"])
def test_corrupt_parquet(tmp_path: Path, data: bytes) -> None:
    assert _refused(_write(tmp_path, "rows.parquet", data)).startswith("the file cannot be read: ")


def test_parquet_with_a_corrupt_page(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": [str(i) * 50 for i in range(500)]}), tmp_path / "rows.parquet")
    data = bytearray((tmp_path / "rows.parquet").read_bytes())
    data[40:2000] = b"\xff" * 1960
    assert _refused(_write(tmp_path, "rows.parquet", bytes(data))).startswith("the file cannot be read: ")


@pytest.mark.parametrize(
    "text", ['[{"a": 1}, {"a": ', '[{"a": 1}\n{"a": 2}]', "[" * 100_000, '[{"a": 1' + "1" * 5000 + "}]"]
)
def test_a_broken_list_of_json(tmp_path: Path, text: str) -> None:
    said = _refused(_write(tmp_path, "rows.json", text))
    assert said.startswith("the file cannot be read: invalid JSON (")
    assert "as JSON lines, only the malformed rows would be lost" in said


@pytest.mark.parametrize("header", ['"prom"pt,answer\n', '"prompt,answer\n'])
def test_a_table_with_a_broken_header(tmp_path: Path, header: str) -> None:
    """Without a header the columns are unknown."""
    assert _refused(_write(tmp_path, "rows.csv", header + "1,2\n")).startswith("the file cannot be read: ")


# --- broken rows of JSON ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"prompt": [', "invalid JSON (Expecting value at character 14)"),
        (b'{"prompt": "x"} {"prompt": "y"}', "invalid JSON (Extra data at character 17)"),
        (b"{'prompt': 'x'}", "invalid JSON (Expecting property name"),
        (b"[1]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"prompt": "\xff"}', "invalid UTF-8 at byte 13"),
        (b'{"prompt": "\xed\xa0\x80"}', "invalid UTF-8 at byte 13"),
        (b'{"prompt": "\xe4\xb8', "invalid UTF-8 at byte 13"),
        (b"\x00\x00\x00", "invalid JSON (Expecting value"),
        (b'{"prompt": "\x00"}', "invalid JSON (Invalid control character"),
        (b'{"prompt": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "invalid JSON (nesting too deep or number too long)"),
        (b'{"prompt": ' + b"1" * 5_000 + b"}", "invalid JSON (nesting too deep or number too long)"),
    ],
    ids=lambda value: repr(value)[:30],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_bad_line_is_reported_with_its_position(tmp_path: Path, name: str, line: bytes, problem: str) -> None:
    good = LINES.splitlines(keepends=True)[0]
    before, bad, after = _read(_write(tmp_path, name, good + b"\n" + line + b"\n" + good))
    assert before == after == Record(ROWS[0])
    assert bad.row is None
    assert bad.problem.startswith(f"{name}:3: {problem}")
    assert bad.raw == (line + b"\n").decode("utf-8", "replace")[:SHOWN]


def test_list_elements_that_are_not_objects(tmp_path: Path) -> None:
    deep = "[" * 900 + "]" * 900
    path = _write(tmp_path, "rows.json", f'[{{"a": 1}}, "\\ud800", null, [1, 2], {deep}, {{"a": 2}}]')
    first, *bad, last = _read(path)
    assert (first, last) == (Record({"a": 1}), Record({"a": 2}))
    assert [record.problem for record in bad] == [f"rows.json: element {i} is not a JSON object" for i in (2, 3, 4, 5)]
    assert bad[2].raw == "[1, 2]"
    assert all(record.raw.encode() for record in bad)


def test_byte_order_marks(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows.tsv"):
        path = _write(tmp_path, name, mark + TEXTS[Path(name).suffix])
        assert _read(path) == [Record(row) for row in ROWS], name
    quoted = _write(tmp_path, "rows.csv", mark + b'"prompt","answer"\n"x","y"\n')
    assert _read(quoted) == [Record({"prompt": "x", "answer": "y"})]


def test_empty_lines_and_windows_line_ends(tmp_path: Path) -> None:
    line = json.dumps(ROWS[0])
    assert _read(_write(tmp_path, "a.jsonl", f"\r\n\n  \t\r\n{line}\r\n\r\n{line}")) == [Record(ROWS[0])] * 2
    table = _write(tmp_path, "a.csv", "prompt,answer\r\n\r\n2 + 2?,4\r\n\r\n")
    assert _read(table) == [Record(ROWS[0])]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.csv", "a.tsv", "a.jsonl.gz", "a.csv.zst"])
def test_empty_files_have_no_rows(tmp_path: Path, name: str) -> None:
    packed = PACKED[Path(name).suffix if Path(name).suffix in PACKED else ""]
    assert _read(_write(tmp_path, name, packed(b""))) == []


def test_a_header_alone_and_empty_parquet(tmp_path: Path) -> None:
    assert _read(_write(tmp_path, "a.csv", "prompt,answer\n")) == []
    assert _read(_write(tmp_path, "a.json", "[]")) == []
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert _read(tmp_path / "a.parquet") == []


# --- broken rows of tables ----------------------------------------------------------------------


def test_rows_with_another_number_of_fields(tmp_path: Path) -> None:
    text = 'prompt,answer\na,b\nc,d,e\n"f\ng",h,i\nj\nk,\n'
    first, long, lines, short, last = _read(_write(tmp_path, "rows.csv", text))
    assert (first, last) == (Record({"prompt": "a", "answer": "b"}), Record({"prompt": "k", "answer": None}))
    assert long == Record(None, "rows.csv:3: 3 fields where the header has 2", "c,d,e\n")
    assert lines == Record(None, "rows.csv:4: 3 fields where the header has 2", '"f\ng",h,i\n')
    assert short == Record(None, "rows.csv:6: 1 fields where the header has 2", "j\n")


def test_a_broken_quote_loses_only_its_own_row(tmp_path: Path) -> None:
    """An unclosed quote extends to the end of the file, but the following rows are not lost."""
    rows = [f"{i},x\n" for i in range(1000)]
    for bad in ('"open,y\n', '"closed" early,y\n', 'a,"open\n'):
        path = _write(tmp_path, "rows.csv", "".join(["prompt,answer\n", *rows[:500], bad, *rows[500:]]))
        records = _read(path)
        assert len(records) == 1001
        assert [record.row["prompt"] for record in records if record.row] == [str(i) for i in range(1000)]
        assert records[500].problem.startswith("rows.csv:502: invalid row (")
        assert records[500].raw == bad


def test_invalid_utf8_in_a_table_affects_only_its_row(tmp_path: Path) -> None:
    """The bytes become lone surrogates, which the schema rejects and names the column."""
    bad, good = _read(_write(tmp_path, "rows.csv", b"prompt,answer\n\xff\xfe,4\n\xe4\xb8\xad,5\n"))
    assert bad.row == {"prompt": "\udcff\udcfe", "answer": "4"}
    assert good.row == {"prompt": "中", "answer": "5"}


def test_invalid_utf8_in_parquet(tmp_path: Path) -> None:
    texts = [str(i).encode() for i in range(BATCH + 10)]
    texts[5] = texts[BATCH + 3] = b"\xff\xfe"
    offsets = pa.array(texts, pa.binary()).buffers()
    broken = pa.StringArray.from_buffers(len(texts), offsets[1], offsets[2])
    pq.write_table(pa.table({"prompt": broken, "id": list(range(len(texts)))}), tmp_path / "rows.parquet")
    records = _read(tmp_path / "rows.parquet")
    assert len(records) == len(texts)
    assert [i for i, record in enumerate(records) if record.row is None] == [5, BATCH + 3]
    assert records[5].problem == "rows.parquet: row 6: invalid UTF-8"
    assert [record.row["id"] for record in records if record.row][:7] == [0, 1, 2, 3, 4, 6, 7]


def test_parquet_values_that_python_cannot_represent(tmp_path: Path) -> None:
    times = pa.array([0, 2**55, 1], pa.timestamp("ms"))
    pq.write_table(pa.table({"prompt": ["a", "b", "c"], "at": times}), tmp_path / "rows.parquet")
    records = _read(tmp_path / "rows.parquet")
    assert [record.row is None for record in records] == [False, True, False]
    assert records[1].problem.startswith("rows.parquet: row 2: ")


# --- long lines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_a_line_of_50_megabytes_is_skipped(tmp_path: Path, name: str) -> None:
    """Some broken files are one long line. It is skipped in chunks, and the rows around it are kept."""
    table = name.endswith(".csv")
    good = b"x\n" if table else b'{"prompt": "x"}\n'
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(b"prompt\n" + good if table else good)
        file.write(b"" if table else b'{"prompt": "')
        for _ in range(50):
            file.write(b"long " * 200_000)
        file.write(b"\n" if table else b'"}\n')
        file.write(good)
    tracemalloc.start()
    before, bad, after = _read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert before == after == Record({"prompt": "x"})
    assert bad.row is None and f"the line is longer than {LONGEST_LINE:,} bytes" in bad.problem
    assert f"{name}:{3 if table else 2}: " in bad.problem
    assert len(bad.raw) == SHOWN
    assert peak < 2.5 * LONGEST_LINE, "the complete line was in memory"


def test_the_longest_line_is_a_row(tmp_path: Path) -> None:
    text = "x" * (LONGEST_LINE - len('{"prompt": ""}'))
    for end in ("", "\n"):
        (record,) = _read(_write(tmp_path, "rows.jsonl", f'{{"prompt": "{text}"}}{end}'))
        assert record.row == {"prompt": text}
        (record,) = _read(_write(tmp_path, "rows.jsonl", f'{{"prompt": "{text}xx"}}{end}'))
        assert record.row is None
