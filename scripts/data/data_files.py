"""Read data files of all supported types row by row, in constant memory (except for `.json` lists).

Input that is not a valid row becomes a record with a problem. It is counted and kept, and reading continues. A file
that cannot be read at all raises a UserError.
"""

import csv
import glob
import io
import json
import lzma
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.common.errors import UserError
from scripts.data.schemas import Row

LONGEST_LINE = 16_000_000
"""Bytes of the longest line that is read as a row. No conversation is longer, but a broken file can be one line."""

SHOWN = 2_000
"""Characters of malformed input that are kept."""

_TOO_LONG = f"the line is longer than {LONGEST_LINE:,} bytes"

BATCH = 1_000
"""Rows of a Parquet file held in memory at once."""

_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}
_BROKEN = (OSError, EOFError, lzma.LZMAError, csv.Error, pa.ArrowException)


@dataclass(frozen=True)
class Record:
    """One row as read from a file, or the `problem` with it and the beginning of the input (`raw`)."""

    row: Row | None
    problem: str = ""
    raw: str = ""


def find_files(pattern: str, where: str) -> list[Path]:
    """The files that a path or a glob matches, sorted by name. Raises UserError if there is none."""
    paths = [Path(path) for path in sorted(glob.glob(pattern, recursive=True))]
    if not paths:
        raise UserError(f"{where}.path: no file matches {pattern}")
    for path in paths:
        if path.is_dir():
            raise UserError(f"{where}.path: {path} is a folder; name its files, such as {path}/*.jsonl")
    return paths


def read_file(path: Path, where: str) -> Iterator[Record]:
    """The rows of one file. Raises UserError if its type is unknown or it cannot be read at all."""
    name = path.with_suffix("") if path.suffix in _COMPRESSIONS else path
    try:
        match name.suffix.lower():
            case ".parquet":
                yield from _read_parquet(path)
            case ".jsonl" | ".ndjson":
                with _open(path) as file:
                    yield from _read_lines(file, path)
            case ".json":
                yield from _read_json(path)
            case ".csv" | ".tsv" as suffix:
                with _open(path) as file:
                    yield from _read_csv(file, path, "\t" if suffix == ".tsv" else ",")
            case other:
                raise UserError(
                    f"{where}.path: {path}: files of type '{other}' are not supported; use JSON lines (.jsonl), .json, "
                    ".csv, .tsv or .parquet; text files may be compressed as .gz, .bz2, .xz or .zst"
                )
    except _BROKEN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{where}.path: {path}: the file cannot be read: {reason}; replace the file") from error


def _open(path: Path) -> IO[bytes]:
    compression = _COMPRESSIONS.get(path.suffix)
    if compression == "xz":
        return lzma.open(path)
    # Arrow's decompressing stream has no readline.
    return io.BufferedReader(pa.input_stream(str(path), compression=compression), 1 << 20)


def _read_lines(file: IO[bytes], path: Path) -> Iterator[Record]:
    """JSON lines: one object per line. Empty lines are skipped."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{path.name}:{number}"
        if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            yield Record(None, f"{where}: {_TOO_LONG}", _show(line))
            _skip_line(file)
        elif line.strip():
            yield _read_object(line, where)


def _skip_line(file: IO[bytes]) -> None:
    """Read to the end of the line and discard it."""
    while (rest := file.readline(1 << 20)) and not rest.endswith(b"\n"):
        pass


def _read_object(line: bytes, where: str) -> Record:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Record(None, f"{where}: invalid UTF-8 at byte {error.start + 1}", _show(line))
    except (ValueError, RecursionError) as error:
        reason = "nesting too deep or number too long"
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg} at character {error.pos + 1}"
        return Record(None, f"{where}: invalid JSON ({reason})", _show(line))
    if not isinstance(row, dict):
        return Record(None, f"{where}: not a JSON object", _show(line))
    return Record(row)


def _read_json(path: Path) -> Iterator[Record]:
    """One JSON list of objects. Many files with this ending hold JSON lines, and are read as such."""
    with _open(path) as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    with _open(path) as file:
        if not start.startswith(b"["):
            yield from _read_lines(file, path)
            return
        try:
            rows = json.loads(file.read())
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            raise pa.ArrowInvalid(
                f"invalid JSON ({reason}); as JSON lines, only the malformed rows would be lost"
            ) from error
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield Record(row)
        else:
            yield Record(None, f"{path.name}: element {number} is not a JSON object", _show(repr(row).encode()))


def _read_csv(file: IO[bytes], path: Path, delimiter: str) -> Iterator[Record]:
    """A table with a header. Each row must have as many fields as the header."""
    csv.field_size_limit(LONGEST_LINE)
    lines = _Lines(file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        lines.taken.clear()
        where = f"{path.name}:{lines.number + 1}"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if header is None:
                raise
            yield Record(None, f"{where}: invalid row ({error})", _show(lines.taken[0]))
            lines.give_back()
            continue
        if header is None:
            header = [name.strip() for name in fields]
        elif len(fields) == len(header):
            yield Record({name: text if text else None for name, text in zip(header, fields, strict=True)})
        elif fields:
            problem = f"{where}: {len(fields)} fields where the header has {len(header)}"
            yield Record(None, problem, _show(b"".join(lines.taken)))


class _Lines:
    """The lines of a table as text. Invalid UTF-8 becomes lone surrogates, which the schema then rejects.

    An unclosed quote pulls the rest of the file into its row. The lines after the first are then given back, so that
    one broken row loses only itself.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.number = file, 0
        self.taken: list[bytes] = []
        """The lines of the row that is being read."""
        self.waiting: deque[bytes] = deque()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        fresh = not self.waiting
        line = self.file.readline(LONGEST_LINE + 1) if fresh else self.waiting.popleft()
        if not line:
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            if fresh:
                _skip_line(self.file)
            raise csv.Error(_TOO_LONG)
        return line.removeprefix(b"\xef\xbb\xbf" if self.number == 1 else b"").decode("utf-8", "surrogateescape")

    def give_back(self) -> None:
        """Return all lines of this row except the first, to be read again."""
        self.number -= len(self.taken) - 1
        self.waiting.extendleft(reversed(self.taken[1:]))


def _read_parquet(path: Path) -> Iterator[Record]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        yield from read_batches(file.iter_batches(BATCH), path.name)


def read_batches(batches: Iterable[pa.RecordBatch], name: str) -> Iterator[Record]:
    """The rows of Arrow batches. `name` is the source that problems of rows refer to."""
    number = 0
    for batch in batches:
        try:
            rows: list[Row | str] = list(batch.to_pylist())
        except (ValueError, OverflowError):
            rows = [_read_row(batch, index) for index in range(batch.num_rows)]
        for row in rows:
            number += 1
            yield Record(None, f"{name}: row {number}: {row}") if isinstance(row, str) else Record(row)


def _read_row(batch: pa.RecordBatch, index: int) -> Row | str:
    """The row, or why Python cannot represent it: invalid UTF-8, or a date after the year 9999."""
    try:
        return dict(batch.slice(index, 1).to_pylist()[0])
    except UnicodeDecodeError:
        return "invalid UTF-8"
    except (ValueError, OverflowError) as error:
        return str(error).splitlines()[0]


def _show(line: bytes) -> str:
    return line[: SHOWN * 4].decode("utf-8", "replace")[:SHOWN]
