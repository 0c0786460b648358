"""The values computed for a row depend only on its place in the data set, not on its shard or batch."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.common.config import RowType
from scripts.data.inspect_rows import is_sampled, shard_of
from scripts.data.schemas import SOURCE_SCHEMAS
from tests.common.running import call_main

QUESTION, ANSWER = "Where do we go on such a nice day?", "To the park, with all our friends."


def _inspect(folder: Path, model: Path, shard: int, shards: int) -> list[dict[str, Any]]:
    """The lines of a shard of ten rows in row groups of five."""
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    rows = [{"source_index": i, "messages": turns, "part": "", "balance": "g"} for i in range(10)]
    source, made = folder / "source.parquet", folder / f"{shard} of {shards}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SOURCE_SCHEMAS["messages"]), source, row_group_size=5)
    numbers = {"name": "mine", "row_type": "messages", "config": {}, "shard": shard, "shards": shards}
    files = {"rows": source, "model": model, "output": made, "signatures": made.with_suffix(".signatures")}
    call_main("data.inspect_rows", folder, **numbers, **files)
    lines: list[dict[str, Any]] = pq.read_table(made).to_pylist()
    return lines


@pytest.mark.parametrize("shards", [1, 2])
def test_samples_are_spread_over_the_data_set(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """Of ten rows, the tokens of five are counted and the languages of two detected, in one shard or two."""
    monkeypatch.setattr("scripts.data.inspect_rows.TOKEN_SAMPLE", 5)
    monkeypatch.setattr("scripts.data.inspect_rows.LANGUAGE_SAMPLE", 2)
    lines = [line for shard in range(shards) for line in _inspect(tmp_path, tiny_model, shard, shards)]
    assert [line["source_index"] for line in lines] == list(range(10))
    # One token for each byte, and two marks for each turn.
    tokens = len(f"user\n{QUESTION}\n") + len(f"assistant\n{ANSWER}\n") + 4
    assert [line["tokens"] for line in lines] == [tokens, None] * 5
    assert [line["language"] for line in lines] == (["en", *[None] * 4] * 2)
    assert {line["balance"] for line in lines} == {"g"}


def test_the_margin_of_a_pair_and_the_label_of_a_rated_row_are_kept(tmp_path: Path, tiny_model: Path) -> None:
    answer = [{"role": "assistant", "content": ANSWER}]
    prompt = {"source_index": 0, "prompt": [{"role": "user", "content": QUESTION}]}
    pair = prompt | {"chosen": answer, "rejected": [answer[0] | {"content": "No."}]}
    pair |= {"score_chosen": 4.0, "score_rejected": 1.5}
    rated = prompt | {"completion": answer, "label": False}
    cases: list[tuple[RowType, dict[str, Any], str, Any]] = [
        *(("preference", pair, "margin", 2.5), ("kto", rated, "label", False))
    ]
    for row_type, row, column, value in cases:
        files = {name: tmp_path / f"{row_type}.{name}" for name in ("rows", "output", "signatures")}
        pq.write_table(pa.Table.from_pylist([row], schema=SOURCE_SCHEMAS[row_type]), files["rows"])
        numbers: dict[str, Any] = {"name": "mine", "row_type": row_type, "config": {}, "shard": 0, "shards": 1}
        call_main("data.inspect_rows", tmp_path, **numbers, **files, model=tiny_model)
        (line,) = pq.read_table(files["output"]).to_pylist()
        assert (line["step"], line[column]) == (None, value)


@given(st.integers(0, 50), st.integers(1, 60))
def test_shards_divide_the_row_groups_evenly(groups: int, shards: int) -> None:
    cut = [shard_of(groups, shard, shards) for shard in range(shards)]
    assert [group for shard in cut for group in shard] == list(range(groups))
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


@given(st.integers(1, 500), st.integers(1, 500))
def test_samples_are_spread_evenly(sample: int, total: int) -> None:
    sampled = [row for row in range(total) if is_sampled(row, sample, total)]
    assert min(sample, total) <= len(sampled) < 2 * sample or len(sampled) == total <= 2 * sample
    assert len({later - row for row, later in pairwise(sampled)}) <= 1
