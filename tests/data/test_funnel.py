"""Columns and keys are read in the order of the rows, for any division into files, batches and parts."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.data.funnel import Funnel, Inspected
from scripts.data.inspect_rows import INSPECTED


def _write(folder: Path, *tables: list[dict[str, Any]]) -> Funnel:
    """A funnel of the rows of several shards. Rows have only the relevant columns."""
    paths = []
    number = 0
    for shard, rows in enumerate(tables):
        paths.append(folder / f"{shard}.parquet")
        numbered = [{"source_index": number + place} | row for place, row in enumerate(rows)]
        pq.write_table(pa.Table.from_pylist(numbered, schema=INSPECTED), paths[-1])
        number += len(rows)
    return Funnel(Inspected(paths), np.empty((number, 0), np.uint32))


def _keyed(*beginnings: int) -> list[dict[str, Any]]:
    """Rows whose keys start with these bytes and have equal endings."""
    return [{"text_key": bytes([beginning]) + b"k" * 15} for beginning in beginnings]


@pytest.mark.parametrize("part", [1_000_000, 3, 1])
def test_keys_are_ranked_across_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """Seven keys in parts of three: the first bytes 0 to 84, 85 to 169 and 170 to 255 are sorted separately."""
    monkeypatch.setattr("scripts.data.funnel.PART", part)
    funnel = _write(tmp_path, _keyed(255, 0, 85, 84), _keyed(170, 0, 255))
    assert funnel.keys("text_key").tolist() == [4, 0, 2, 1, 3, 0, 4]


def test_keys_that_differ_in_their_last_byte_differ(tmp_path: Path) -> None:
    funnel = _write(tmp_path, [{"text_key": b"k" * 15 + end} for end in (b"b", b"a", b"b")])
    assert funnel.keys("text_key").tolist() == [1, 0, 1]


def test_only_remaining_rows_have_keys(tmp_path: Path) -> None:
    funnel = _write(tmp_path, _keyed(9, 3, 5), _keyed(3, 9))
    funnel.remove("mine", np.array([1]))
    assert funnel.keys("text_key").tolist() == [2, 1, 0, 2]


def test_columns_are_read_across_files_and_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.data.funnel.BATCH", 2)
    parts = [*"aabcb", None, *"ca"]
    rows = [{"part": part, "tokens": place} for place, part in enumerate(parts)]
    funnel = _write(tmp_path, rows[:5], rows[5:])
    funnel.remove("mine", np.array([0, 3]))
    assert funnel.column("tokens").to_pylist() == [1, 2, 4, 5, 6, 7]
    codes, names = funnel.codes("part")
    assert [names[code] for code in codes] == ["a", "b", "b", "", "c", "a"]


def test_reasons_come_from_the_step_that_removed_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has the reason for some rows, and a later step explains the others."""
    monkeypatch.setattr("scripts.data.funnel.BATCH", 2)
    bad, short = {"step": "schema", "reason": "no turn"}, {"step": "empty", "reason": "an empty turn"}
    funnel = _write(tmp_path, [{}, short, {}], [bad, {}, bad])
    funnel.remove_inspected(["schema", "empty"])
    funnel.remove("sample", np.array([4]), lambda row: f"row {row} was not drawn")
    assert funnel.steps == [
        {"step": "read", "removed": 0, "rows": 6},
        {"step": "schema", "removed": 2, "rows": 4},
        {"step": "empty", "removed": 1, "rows": 3},
        {"step": "sample", "removed": 1, "rows": 2},
    ]
    assert list(funnel.reasons()) == [
        *((1, "an empty turn"), (3, "no turn"), (4, "row 4 was not drawn"), (5, "no turn"))
    ]
    assert list(funnel.rows.malformed()) == [(3, "no turn"), (5, "no turn")]
