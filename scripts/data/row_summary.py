"""Summarise a data set in numbers: lengths, languages, groups, labels, and overlap with the benchmarks."""

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
from scripts.common.records import BenchmarkOverlap, Lengths, Summary, TokenLengths
from scripts.data.funnel import Indices, Inspected
from scripts.data.inspect_rows import TOKEN_SAMPLE, spacing

BINS = 24
"""Bars in a histogram of lengths. The last bar has all rows above the 99th percentile."""

EXAMPLES = 5
"""Overlaps shown for each benchmark, largest share first."""

PROBLEMS = 5
"""Malformed rows that are listed."""


def summarise_rows(
    name: str,
    inspected: Inspected,
    splits: dict[str, Indices],
    contamination: Path,
    questions: dict[str, Path],
) -> Summary:
    """The summary of a data set.

    Args:
        name: of the data set.
        inspected: its inspected rows.
        splits: row numbers of each split.
        contamination: table of overlaps with the benchmarks.
        questions: question file of each benchmark that rows were compared with.
    """
    kept = np.zeros(inspected.rows, bool)
    for rows in splits.values():
        kept[rows] = True
    everything = np.ones(inspected.rows, bool)
    # Overlap is the last filter of single rows, so rows that an earlier one removed were not compared.
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


def describe_lengths(inspected: Inspected, splits: dict[str, Indices]) -> TokenLengths:
    """Percentiles and a histogram of the tokens of counted rows, for each split. All splits share the bins."""
    lengths = {split: counted_lengths(inspected, rows) for split, rows in splits.items()}
    everything = np.concatenate(list(lengths.values()))
    low, high = (int(everything.min()), int(np.percentile(everything, 99)) + 1) if len(everything) else (0, 1)
    edges = np.unique(np.linspace(low, high, BINS + 1).astype(np.int64))
    described: dict[str, Lengths] = {}
    for split, tokens in lengths.items():
        rows = len(splits[split])
        if not len(tokens):
            described[split] = {"rows": rows, "counted": 0}
        else:
            p5, median, p95 = (int(value) for value in np.percentile(tokens, [5, 50, 95]))
            described[split] = {
                "rows": rows,
                "counted": len(tokens),
                "total": round(float(tokens.mean()) * rows),
                "mean": round(float(tokens.mean()), 1),
                "min": int(tokens.min()),
                "p5": p5,
                "median": median,
                "p95": p95,
                "max": int(tokens.max()),
                "counts": np.histogram(np.minimum(tokens, edges[-1]), edges)[0].tolist(),
            }
    return {"edges": edges.tolist(), "splits": described}


def counted_lengths(inspected: Inspected, rows: Indices) -> Indices:
    """Tokens of the sampled rows. Filters counted others too, but only near a bound, which would bias the sample."""
    sampled = np.zeros(inspected.rows, bool)
    sampled[rows[rows % spacing(TOKEN_SAMPLE, inspected.rows) == 0]] = True
    return np.asarray(inspected.read("tokens", sampled).to_numpy(), np.int64)


def count_values(inspected: Inspected, name: str, kept: NDArray[np.bool_]) -> dict[Any, int]:
    """Counts of the values of a column over the kept rows, most frequent first. Nulls are ignored."""
    counts: Counter[Any] = Counter()
    for start, batch in inspected.batches(name):
        column = batch.column(0).filter(pa.array(kept[start : start + batch.num_rows])).drop_null()
        counts.update({line["values"]: line["counts"] for line in column.value_counts().to_pylist()})
    return dict(sorted(counts.items(), key=lambda item: (-item[1], str(item[0]))))


def describe_overlap(benchmark: str, questions: Path, contamination: Path, rows: int) -> BenchmarkOverlap:
    """The overlap of the compared rows with a benchmark, with the largest overlaps as examples."""
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
