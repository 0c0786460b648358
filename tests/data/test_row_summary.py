"""The summary describes the kept rows, and relates overlaps to the rows that were compared."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.common.files import write_json_lines
from scripts.data.filter_dataset import CONTAMINATION
from scripts.data.funnel import Inspected
from scripts.data.inspect_rows import INSPECTED
from scripts.data.row_summary import EXAMPLES, PROBLEMS, describe_lengths, describe_overlap, summarise_rows


def _inspected(folder: Path, rows: list[dict[str, Any]]) -> Inspected:
    numbered = [{"source_index": number} | row for number, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(numbered, schema=INSPECTED), folder / "rows.parquet")
    return Inspected([folder / "rows.parquet"])


def _contamination(folder: Path, hits: list[tuple[str, int, int, float]], removed: bool = True) -> Path:
    """Write a table of overlaps, each given as benchmark, item, row and share."""
    lines = [
        {"benchmark": benchmark, "item": item, "source_index": row, "share": share, "span": "x", "removed": removed}
        for benchmark, item, row, share in hits
    ]
    pq.write_table(pa.Table.from_pylist(lines, schema=CONTAMINATION), folder / "contamination.parquet")
    return folder / "contamination.parquet"


def _questions(folder: Path, benchmark: str, items: int) -> Path:
    path = folder / benchmark / "questions.jsonl"
    path.parent.mkdir()
    write_json_lines(path, [{"question": "-", "texts": []}] * items)
    return path


def _indices(*rows: int) -> Any:
    return np.array(rows, np.int64)


def test_only_kept_rows_are_described(tmp_path: Path) -> None:
    """Of ten rows, one is malformed, one empty, two overlap, one is not drawn, and five are kept."""
    gone = [{"step": step, "reason": f"by {step}"} for step in ("schema", "empty")]
    overlap = {"step": "benchmark_overlap", "language": "fr", "balance": "b", "part": "y", "label": True}
    kept = [
        {"language": "en", "balance": "b", "part": "x", "label": True},
        {"language": "de", "balance": "a", "part": "x", "label": False},
        {"language": "en", "balance": "a", "part": "", "label": False},
        {"balance": "c", "part": "y", "label": True},
        {"language": "de", "balance": "c", "part": "y", "label": True},
    ]
    not_drawn = {"language": "it", "balance": "a", "part": "z", "label": False}
    inspected = _inspected(tmp_path, [*gone, overlap, overlap, *({"tokens": 9} | row for row in kept), not_drawn])
    splits = {"train": _indices(4, 6, 8), "validation": _indices(5), "test": _indices(7)}
    found = _contamination(tmp_path, [("quiz", 1, 2, 1.0), ("quiz", 1, 3, 0.8), ("quiz", 4, 3, 0.9)])
    quiz = {"quiz": _questions(tmp_path, "quiz", 5)}
    summary = summarise_rows("mine", inspected, splits, found, quiz)
    assert (summary["dataset"], summary["read"]) == ("mine", 10)
    assert list(summary["languages"].items()) == [("de", 2), ("en", 2)]
    assert list(summary["groups"].items()) == [("a", 2), ("c", 2), ("b", 1)]
    assert summary["parts"] == {"x": 2, "y": 2}
    assert summary["labels"] == {"true": 3, "false": 2}
    assert summary["problems"] == [{"source_index": 0, "reason": "by schema"}]
    (benchmark,) = summary["benchmarks"]
    # Eight rows reached the overlap filter. Two of them contain two of the five items.
    assert (benchmark["items"], benchmark["items_hit"], benchmark["rows_hit"]) == (5, 2, 2)
    assert benchmark["share"] == 2 / 8 and benchmark["removed"] is True


def test_the_first_problems_are_listed(tmp_path: Path) -> None:
    rows = [{"step": "schema", "reason": f"problem {number}"} for number in range(PROBLEMS + 1)]
    splits = {"train": _indices()}
    summary = summarise_rows("mine", _inspected(tmp_path, rows), splits, tmp_path, {})
    assert [problem["source_index"] for problem in summary["problems"]] == list(range(PROBLEMS))


def test_overlaps_of_a_benchmark_are_sorted_by_share(tmp_path: Path) -> None:
    hits = [("quiz", 2, 9, 0.5), ("quiz", 1, 8, 0.9), ("quiz", 1, 7, 0.9), ("quiz", 0, 9, 0.7), ("quiz", 3, 5, 1.0)]
    hits += [("other", 0, 1, 1.0), ("quiz", 0, 6, 0.6), ("quiz", 0, 5, 0.6)]
    path = _contamination(tmp_path, hits, removed=False)
    described = describe_overlap("quiz", _questions(tmp_path, "quiz", 10), path, rows=20)
    assert (described["items"], described["items_hit"], described["rows_hit"]) == (10, 4, 5)
    assert described["share"] == 5 / 20 and described["removed"] is False
    shown = [(hit["share"], hit["item"], hit["source_index"]) for hit in described["examples"]]
    assert len(shown) == EXAMPLES
    assert shown == [(1.0, 3, 5), (0.9, 1, 7), (0.9, 1, 8), (0.7, 0, 9), (0.6, 0, 5)]
    assert "benchmark" not in described["examples"][0]
    nothing = describe_overlap("none", _questions(tmp_path, "none", 3), path, rows=0)
    assert (nothing["items_hit"], nothing["rows_hit"], nothing["share"]) == (0, 0, 0)


TOKENS = [10, 20, 30, 40, 20, 1000]


def test_lengths_of_each_split(tmp_path: Path) -> None:
    inspected = _inspected(tmp_path, [{"tokens": tokens} for tokens in TOKENS])
    described = describe_lengths(inspected, {"train": _indices(0, 1, 2, 3), "validation": _indices(4, 5)})
    # The 99th percentile of six lengths is 0.95 of the way from 40 to 1,000. The last bar includes longer rows.
    edges = described["edges"]
    assert (edges[0], edges[1], edges[-1], len(edges)) == (10, 49, 953, 25)
    train, validation = described["splits"]["train"], described["splits"]["validation"]
    assert train == {
        **{"rows": 4, "counted": 4, "total": 100, "mean": 25.0, "min": 10, "max": 40},
        **{"p5": 11, "median": 25, "p95": 38, "counts": [4, *[0] * 23]},
    }
    assert (validation["total"], validation["max"]) == (1020, 1000)
    assert validation["counts"] == [1, *[0] * 22, 1]


def test_lengths_of_a_sample_represent_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second row is sampled. Others were counted because they were near a filter's bound."""
    monkeypatch.setattr("scripts.data.row_summary.TOKEN_SAMPLE", 3)
    inspected = _inspected(tmp_path, [{"tokens": tokens} for tokens in TOKENS])
    train = describe_lengths(inspected, {"train": _indices(0, 1, 2, 3)})["splits"]["train"]
    assert (train["rows"], train["counted"], train["mean"], train["total"]) == (4, 2, 20.0, 80)
    nothing = describe_lengths(inspected, {"train": _indices(1, 3)})
    assert nothing == {"edges": [0, 1], "splits": {"train": {"rows": 2, "counted": 0}}}
