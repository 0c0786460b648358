"""What a data set is like, in numbers: lengths, languages, groups, and what of the benchmarks stands in it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scripts.common.files import read_json_lines
from scripts.data.inspect_rows import TOKEN_SAMPLE, is_sampled

BINS = 24
"""Bars of a histogram of lengths; the last one takes all rows beyond the 99th percentile."""

EXAMPLES = 5
"""Overlaps shown of each benchmark, worst first."""

PROBLEMS = 5
"""Kinds of malformed rows that are named."""


def summarise_rows(
    name: str,
    table: pa.Table,
    splits: dict[str, NDArray[np.int64]],
    contamination: Path,
    questions: dict[str, Path],
) -> dict[str, Any]:
    """The summary as JSON types.

    Args:
        name: the data set.
        table: its inspected rows.
        splits: the rows of each split, as indices into the table.
        contamination: the table of overlaps.
        questions: `questions.jsonl` of each benchmark that was looked for.
    """
    # The overlap is the last filter of single rows: those that an earlier one removed were not compared.
    steps = pc.fill_null(table["step"], "benchmark_overlap")
    compared = int(pc.sum(pc.equal(steps, "benchmark_overlap")).as_py() or 0)
    kept = table.take(pa.array(np.sort(np.concatenate(list(splits.values())))))
    return {
        "dataset": name,
        "read": table.num_rows,
        "tokens": describe_lengths(table, splits),
        "languages": count_values(kept["language"]),
        "groups": count_values(kept["balance"]),
        "parts": {part: rows for part, rows in count_values(kept["part"]).items() if part},
        "labels": {str(label).lower(): rows for label, rows in count_values(kept["label"]).items()},
        "problems": describe_problems(table),
        "benchmarks": [describe_overlap(b, path, contamination, compared) for b, path in questions.items()],
    }


def describe_lengths(table: pa.Table, splits: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    """Tokens of templated rows: percentiles and a histogram of each split, over the same bins, by the rows counted."""
    lengths = {split: counted_lengths(table, rows) for split, rows in splits.items()}
    everything = np.concatenate(list(lengths.values()))
    low, high = (int(everything.min()), int(np.percentile(everything, 99)) + 1) if len(everything) else (0, 1)
    edges = np.unique(np.linspace(low, high, BINS + 1).astype(np.int64))
    described: dict[str, Any] = {}
    for split, tokens in lengths.items():
        rows = len(splits[split])
        described[split] = {"rows": rows, "counted": len(tokens)}
        if len(tokens):
            p5, median, p95 = (int(value) for value in np.percentile(tokens, [5, 50, 95]))
            described[split] |= {
                "total": round(float(tokens.mean()) * rows),
                "mean": round(float(tokens.mean()), 1),
                "min": int(tokens.min()),
                **{"p5": p5, "median": median, "p95": p95},
                "max": int(tokens.max()),
                "counts": np.histogram(np.minimum(tokens, edges[-1]), edges)[0].tolist(),
            }
    return {"edges": edges.tolist(), "splits": described}


def counted_lengths(table: pa.Table, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tokens of the rows that are in the sample. Others that were counted were near a bound, and would bend it."""
    sampled = rows[[is_sampled(row, TOKEN_SAMPLE, table.num_rows) for row in rows.tolist()]] if len(rows) else rows
    return np.asarray(table["tokens"].take(pa.array(sampled, pa.int64())).to_numpy(), np.int64)


def count_values(column: pa.ChunkedArray) -> dict[Any, int]:
    """How often each value stands in a column, the most frequent first; nulls are not counted."""
    counts = Counter({line["values"]: line["counts"] for line in pc.value_counts(column.drop_null()).to_pylist()})
    return dict(sorted(counts.items(), key=lambda item: (-item[1], str(item[0]))))


def describe_problems(table: pa.Table) -> list[dict[str, Any]]:
    """The first malformed rows."""
    bad = table.filter(pc.equal(table["step"], "schema")).slice(0, PROBLEMS)
    return list(bad.select(["source_index", "reason"]).to_pylist())


def describe_overlap(benchmark: str, questions: Path, contamination: Path, rows: int) -> dict[str, Any]:
    """How much of a benchmark stands in the rows that were compared with it, with the longest overlaps."""
    hits = pq.read_table(contamination, filters=[("benchmark", "==", benchmark)])
    items = len(read_json_lines(questions))
    rows_hit = len(pc.unique(hits["source_index"]))
    order = [("share", "descending"), ("item", "ascending"), ("source_index", "ascending")]
    return {
        "benchmark": benchmark,
        "items": items,
        "items_hit": len(pc.unique(hits["item"])),
        "rows_hit": rows_hit,
        "share": rows_hit / max(1, rows),
        "removed": bool(pc.any(hits["removed"], min_count=0).as_py()),
        "examples": hits.sort_by(order).slice(0, EXAMPLES).drop_columns(["benchmark"]).to_pylist(),
    }
