"""The rows of a data set as they pass through the filters: which ones remain, and which step removed the others.

Only a few bytes per row are held in memory. All else stays in the tables of the shards and is read column by column.
"""

from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scripts.common.records import FunnelStep

Indices = NDArray[np.int64]

BATCH = 10_000
"""Rows of a table held in memory at once."""

PART = 1_000_000
"""Rows whose keys are sorted at once."""

KEY_BYTES = 16


class Inspected:
    """The tables of `inspect_rows`: one line per row, shard after shard, in the order of the source."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.rows = sum(pq.read_metadata(path).num_rows for path in paths)

    def batches(self, *columns: str) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches of some columns, each with the number of its first row."""
        start = 0
        for path in self.paths:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(BATCH, columns=list(columns)):
                    yield start, batch
                    start += batch.num_rows

    def read(self, name: str, kept: NDArray[np.bool_]) -> pa.ChunkedArray:
        """One column of the kept rows. `kept` is a mask over all rows."""
        parts = [
            batch.column(0).filter(pa.array(kept[start : start + batch.num_rows]))
            for start, batch in self.batches(name)
        ]
        return pa.chunked_array(parts, pq.read_schema(self.paths[0]).field(name).type)

    def read_codes(self, name: str, kept: NDArray[np.bool_]) -> tuple[NDArray[np.int32], list[str]]:
        """A column with few distinct texts, encoded: the code of each kept row, and the texts. Null counts as ''."""
        numbers: dict[str, int] = {}
        codes = np.empty(int(kept.sum()), np.int32)
        done = 0
        for start, batch in self.batches(name):
            column = batch.column(0).filter(pa.array(kept[start : start + batch.num_rows]))
            encoded = pc.fill_null(column, "").dictionary_encode()
            known = np.array([numbers.setdefault(text, len(numbers)) for text in encoded.dictionary.to_pylist()])
            if len(column):
                codes[done : done + len(column)] = known[encoded.indices.to_numpy()]
            done += len(column)
        return codes, list(numbers)

    def malformed(self) -> Iterator[tuple[int, str]]:
        """Number and problem of each malformed row."""
        for _, batch in self.batches("source_index", "step", "reason"):
            bad = batch.filter(pc.equal(batch["step"], "schema"))
            yield from zip(bad["source_index"].to_pylist(), bad["reason"].to_pylist(), strict=True)


class Funnel:
    """The remaining rows, and the steps that removed the others.

    Args:
        rows: the inspected rows of all shards.
        signatures: MinHash signatures of these rows, without columns if no filter needs them.
    """

    def __init__(self, rows: Inspected, signatures: NDArray[np.uint32]) -> None:
        self.rows = rows
        self.signatures = signatures
        self.removed_by = np.full(rows.rows, -1, np.int8)
        self.alive: Indices = np.arange(rows.rows)
        self.steps: list[FunnelStep] = [{"step": "read", "removed": 0, "rows": rows.rows}]
        self.explanations: dict[int, Callable[[int], str]] = {}

    def remove(self, step: str, gone: Indices, explain: Callable[[int], str] | None = None) -> None:
        """Add a step that removes these rows. `explain` gives the reason for each row if its table has none."""
        if explain:
            self.explanations[len(self.steps)] = explain
        self.removed_by[gone] = len(self.steps)
        self.alive = np.flatnonzero(self.removed_by < 0)
        self.steps.append({"step": step, "removed": len(gone), "rows": len(self.alive)})

    def remove_inspected(self, names: list[str]) -> None:
        """Add these steps of `inspect_rows`, each with the rows that it removed there."""
        steps = np.full(self.rows.rows, -1, np.int8)
        for start, batch in self.rows.batches("step"):
            found = pc.fill_null(pc.index_in(batch.column(0), pa.array(names, pa.string())), -1)
            steps[start : start + batch.num_rows] = found.to_numpy(zero_copy_only=False)
        for number, name in enumerate(names):
            self.remove(name, np.flatnonzero(steps == number))

    def reasons(self) -> Iterator[tuple[int, str | None]]:
        """Each removed row with its reason, in the order of the rows."""
        for start, batch in self.rows.batches("reason"):
            removed_by = self.removed_by[start : start + batch.num_rows]
            gone = np.flatnonzero(removed_by >= 0)
            found = batch.column(0).take(pa.array(gone)).to_pylist()
            for row, step, reason in zip((start + gone).tolist(), removed_by[gone].tolist(), found, strict=True):
                yield row, self.explanations[step](row) if step in self.explanations else reason

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of the remaining rows."""
        return self.rows.read(name, self.removed_by < 0)

    def codes(self, name: str) -> tuple[NDArray[np.int32], list[str]]:
        """A column of the remaining rows with few distinct texts: the codes, and the text of each code."""
        return self.rows.read_codes(name, self.removed_by < 0)

    def keys(self, name: str) -> Indices:
        """For each remaining row, the rank of its key among the distinct keys."""
        data = np.empty((len(self.alive), KEY_BYTES), np.uint8)
        done = 0
        for chunk in self.column(name).chunks:
            raw = np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, KEY_BYTES)
            data[done : done + len(chunk)] = raw[chunk.offset : chunk.offset + len(chunk)]
            done += len(chunk)
        numbers = np.empty(len(data), np.int64)
        different, parts = 0, min(256, -(-len(data) // PART))
        for part in range(parts):
            # Keys are hashes, so their first byte divides them evenly, and in order.
            low, high = part * 256 // parts, (part + 1) * 256 // parts
            places = np.flatnonzero((data[:, 0] >= low) & (data[:, 0] < high))
            numbers[places], found = number_keys(data[places], different)
            different += found
        return numbers


def number_keys(keys: NDArray[np.uint8], first: int) -> tuple[Indices, int]:
    """Rank keys (rows, 16 bytes), starting at `first`, with equal ranks for equal keys. Returns also their number."""
    halves = keys.view(">u8")
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    new = np.ones(len(order), bool)
    new[1:] = (halves[order][1:] != halves[order][:-1]).any(axis=1)
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(new) - 1 + first
    return numbers, int(new.sum())


def first_of_each(numbers: Indices) -> Indices:
    """For each place, the first place with the same number. Numbers start at 0 without gaps."""
    first = np.empty(int(numbers.max(initial=-1)) + 1, np.int64)
    # Of several assignments to one index, numpy keeps the last.
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    return first[numbers]


def shuffle(size: int, seed: str) -> Indices:
    """The numbers below `size` in a random order determined by the seed."""
    numbers = array("q", range(size))
    Random(seed).shuffle(numbers)
    return np.frombuffer(numbers, np.int64) if size else np.empty(0, np.int64)
