"""What a data set is like, in numbers: lengths, languages, groups, and what of the benchmarks stands in it."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scripts.common.files import read_json_lines
from scripts.data.funnel import Indices, Inspected
from scripts.data.inspect_rows import TOKEN_SAMPLE, spacing

BINS = 24
"""Bars of a histogram of lengths; the last one takes all rows beyond the 99th percentile."""

EXAMPLES = 5
"""Overlaps shown of each benchmark, worst first."""

PROBLEMS = 5
"""Kinds of malformed rows that are named."""


def summarise_rows(
    name: str,
    inspected: Inspected,
    splits: dict[str, Indices],
    contamination: Path,
    questions: dict[str, Path],
) -> dict[str, Any]:
    """The summary as JSON types.

    Args:
        name: the data set.
        inspected: its inspected rows.
        splits: the rows of each split, as numbers of rows.
        contamination: the table of overlaps.
        questions: `questions.jsonl` of each benchmark that was looked for.
    """
    kept = np.zeros(inspected.rows, bool)
    for rows in splits.values():
        kept[rows] = True
    everything = np.ones(inspected.rows, bool)
    # The overlap is the last filter of single rows: those that an earlier one removed were not compared.
    steps = count_values(inspected, "step", everything)
    compared = inspected.rows - sum(rows for step, rows in steps.items() if step != "benchmark_overlap")
    return {
        "dataset": name,
        "read": inspected.rows,
        "tokens": describe_lengths(inspected, splits),
        "languages": count_values(inspected, "language", kept),
        "groups": count_values(inspected, "balance", kept),
        "parts": {part: rows for part, rows in count_values(inspected, "part", kept).items() if part},
        "labels": {str(label).lower(): rows for label, rows in count_values(inspected, "label", kept).items()},
        "problems": [
            {"source_index": row, "reason": problem} for row, problem in islice(inspected.malformed(), PROBLEMS)
        ],
        "benchmarks": [describe_overlap(b, path, contamination, compared) for b, path in questions.items()],
    }


def describe_lengths(inspected: Inspected, splits: dict[str, Indices]) -> dict[str, Any]:
    """Tokens of templated rows: percentiles and a histogram of each split, over the same bins, by the rows counted."""
    lengths = {split: counted_lengths(inspected, rows) for split, rows in splits.items()}
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


def counted_lengths(inspected: Inspected, rows: Indices) -> Indices:
    """Tokens of the rows that are in the sample. Others that were counted were near a bound, and would bend it."""
    sampled = np.zeros(inspected.rows, bool)
    sampled[rows[rows % spacing(TOKEN_SAMPLE, inspected.rows) == 0]] = True
    return np.asarray(inspected.read("tokens", sampled).to_numpy(), np.int64)


def count_values(inspected: Inspected, name: str, kept: NDArray[np.bool_]) -> dict[Any, int]:
    """How often each value stands in a column of the kept rows, the most frequent first; nulls are not counted."""
    counts: Counter[Any] = Counter()
    for start, batch in inspected.batches(name):
        column = batch.column(0).filter(pa.array(kept[start : start + batch.num_rows])).drop_null()
        counts.update({line["values"]: line["counts"] for line in column.value_counts().to_pylist()})
    return dict(sorted(counts.items(), key=lambda item: (-item[1], str(item[0]))))


def describe_overlap(benchmark: str, questions: Path, contamination: Path, rows: int) -> dict[str, Any]:
    """How much of a benchmark stands in the rows that were compared with it, with the longest overlaps."""
    mine = pc.field("benchmark") == benchmark
    hits = pq.read_table(contamination, columns=["item", "source_index", "share", "removed"], filters=mine)
    items = len(read_json_lines(questions))
    rows_hit = len(pc.unique(hits["source_index"]))
    order = [("share", "descending"), ("item", "ascending"), ("source_index", "ascending")]
    worst = hits.sort_by(order).slice(0, EXAMPLES)
    shown = pq.read_table(contamination, filters=mine & pc.field("source_index").isin(worst["source_index"]))
    return {
        "benchmark": benchmark,
        "items": items,
        "items_hit": len(pc.unique(hits["item"])),
        "rows_hit": rows_hit,
        "share": rows_hit / max(1, rows),
        "removed": bool(pc.any(hits["removed"], min_count=0).as_py()),
        "examples": shown.sort_by(order).slice(0, EXAMPLES).drop_columns(["benchmark"]).to_pylist(),
    }
