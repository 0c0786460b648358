"""Look at every row of a shard once: which filter removes it, and all that the decisions between rows need.

Batches go through the filters one after another, so memory does not grow with the rows. What concerns several rows at
once (duplicates, samples, splits) is decided by `filter_dataset`, from the tables of all shards: the result is the same
however many there are.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray
from pydantic import TypeAdapter
from rensa import RMinHash

from scripts.common.console import Progress, make_parser, run_script, say
from scripts.common.data_config import Filters, Form
from scripts.common.files import written_whole
from scripts.data.benchmark_overlap import OverlapIndex
from scripts.data.filters import (
    Candidate,
    Tools,
    count_tokens,
    find_languages,
    normalise_turns,
    prompt_key,
    read_words,
    row_filters,
    score_margin,
    text_key,
)
from scripts.data.schemas import SCHEMAS, Row
from scripts.data.texts import roll
from scripts.data.token_counter import TokenCounter

BATCH = 1_000
"""Rows that are in memory at once."""

SHINGLE = 5
"""Words of the sequences whose sets near duplicates share."""

PERMUTATIONS = 128
"""Length of a MinHash signature."""

LANGUAGE_SAMPLE = 2_000
"""Rows whose language is found when no filter asks for it, spread evenly over the data set."""

TOKEN_SAMPLE = 20_000
"""Rows whose tokens are counted in any case, spread evenly over the data set: the data card tells lengths by them."""

NO_WORD = np.uint64(xxhash.xxh3_64_intdigest(b""))
"""Stands for the one empty word of a text without words."""

KEY = pa.binary(16)

INSPECTED = pa.schema(
    [
        ("source_index", pa.int64()),
        ("step", pa.string()),
        ("reason", pa.string()),
        ("part", pa.string()),
        ("balance", pa.string()),
        ("text_key", KEY),
        ("prompt_key", KEY),
        ("tokens", pa.int32()),
        ("language", pa.string()),
        ("margin", pa.float64()),
        ("label", pa.bool_()),
        (
            "hits",
            pa.list_(
                pa.struct(
                    [("benchmark", pa.string()), ("item", pa.int64()), ("share", pa.float64()), ("span", pa.string())]
                )
            ),
        ),
    ]
)
"""One line a row: the `step` that removes it and the `reason`, or what the later steps decide by."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the data set in the configuration")
    parser.add_argument("--form", choices=list(SCHEMAS), required=True, help="kind of rows")
    parser.add_argument("--config", required=True, help="section `filters` of the data set, as JSON")
    parser.add_argument("--shard", type=int, required=True, help="number of this shard, from 0")
    parser.add_argument("--shards", type=int, required=True, help="number of shards")
    parser.add_argument("--rows", type=Path, required=True, help="rows as brought in, Parquet")
    parser.add_argument("--model", type=Path, required=True, help="manifest of the base model, whose tokenizer counts")
    parser.add_argument("--questions", type=Path, nargs="*", default=[], help="questions of the benchmarks, JSON lines")
    parser.add_argument(
        "--others", type=Path, nargs="*", default=[], help="training rows of the data sets in `not_in`, Parquet"
    )
    parser.add_argument("--output", type=Path, required=True, help="table to write, Parquet")
    parser.add_argument(
        "--signatures", type=Path, required=True, help="signatures to write, 128 numbers of 32 bits a row"
    )
    options = parser.parse_args()
    filters = TypeAdapter(Filters).validate_json(options.config)
    tools = Tools(TokenCounter(options.model), OverlapIndex.read(options.questions), read_prompts(options.others))

    with pq.ParquetFile(options.rows, pre_buffer=False) as source:
        total = source.metadata.num_rows
        groups = shard_of(source.num_row_groups, options.shard, options.shards)
        size = sum(source.metadata.row_group(group).num_rows for group in groups)
        progress = Progress(f"inspect_rows {options.name} {options.shard}", size, "rows")
        with (
            written_whole(options.output) as table_path,
            written_whole(options.signatures) as signature_path,
            pq.ParquetWriter(table_path, INSPECTED, compression="zstd") as writer,
            signature_path.open("wb") as signatures,
        ):
            done = 0
            for batch in source.iter_batches(BATCH, row_groups=groups):
                rows, signed = inspect_batch(batch.to_pylist(), options.form, filters, tools, total)
                writer.write_table(pa.Table.from_pylist(rows, schema=INSPECTED))
                signatures.write(signed.tobytes())
                done += len(rows)
                progress.update(done)
    say(f"inspect_rows {options.name} {options.shard}: {done} rows")


def shard_of(groups: int, shard: int, shards: int) -> list[int]:
    """The row groups of a shard: neighbours, as evenly spread as they go."""
    return list(range(shard * groups // shards, (shard + 1) * groups // shards))


def read_prompts(paths: list[Path]) -> frozenset[bytes]:
    """Digests of the prompts of other data sets' training rows."""
    keys: set[bytes] = set()
    for path in paths:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH):
                candidates = [Candidate(row) for row in batch.to_pylist()]
                normalise_turns(candidates)
                keys.update(map(prompt_key, candidates))
    return frozenset(keys)


def inspect_batch(
    rows: list[Row], form: Form, filters: Filters, tools: Tools, total: int
) -> tuple[list[dict[str, Any]], NDArray[np.uint32]]:
    """One line of the table a row, and their signatures: 128 numbers a row, or none when no filter needs them.

    Args:
        rows: rows in the source schema.
        form: their kind.
        filters: which filters are on.
        tools: what they need.
        total: rows of the whole data set.
    """
    lines = {row["source_index"]: {name: row.get(name) for name in ("source_index", "part", "balance")} for row in rows}
    alive: list[Candidate] = []
    for row in rows:
        if row["problem"] is None:
            alive.append(Candidate({name: row[name] for name in SCHEMAS[form].names}))
        else:
            lines[row["source_index"]] |= {"step": "schema", "reason": row["problem"]}
    for step, judge in row_filters(form, filters, tools):
        staying = []
        for candidate, reason in zip(alive, judge(alive), strict=True):
            if reason is None:
                staying.append(candidate)
            else:
                lines[candidate.row["source_index"]] |= {"step": step, "reason": reason} | known_of(candidate)
        alive = staying

    count_tokens([c for c in alive if is_sampled(c.row["source_index"], TOKEN_SAMPLE, total)], tools.counter)
    find_languages([c for c in alive if is_sampled(c.row["source_index"], LANGUAGE_SAMPLE, total)])
    normalise_turns(alive)
    for candidate in alive:
        row = candidate.row
        lines[row["source_index"]] |= known_of(candidate) | {
            "text_key": text_key(candidate),
            "prompt_key": prompt_key(candidate),
            "margin": score_margin(row),
            "label": row.get("label"),
        }
    signatures = np.zeros((len(rows), PERMUTATIONS if filters.near_duplicates is not None else 0), np.uint32)
    if filters.near_duplicates is not None and alive:
        places = {row["source_index"]: place for place, row in enumerate(rows)}
        signatures[[places[candidate.row["source_index"]] for candidate in alive]] = sign(alive)
    return list(lines.values()), signatures


def is_sampled(row: int, sample: int, total: int) -> bool:
    """Whether a row is one of at least `sample` ones that are spread evenly; all rows are when there are not more."""
    return row % spacing(sample, total) == 0


def spacing(sample: int, total: int) -> int:
    """Rows from one of an even sample to the next."""
    return max(1, total // sample)


def known_of(candidate: Candidate) -> dict[str, Any]:
    """What the filters found out on the way."""
    return {
        "tokens": candidate.tokens,
        "language": candidate.language,
        "hits": [vars(hit) for hit in candidate.hits] or None,
    }


def sign(candidates: list[Candidate]) -> NDArray[np.uint32]:
    """MinHash signatures of the sets of 5-word sequences of rows; a shorter row is one sequence."""
    read_words(candidates)
    shingles = [shingle(candidate) for candidate in candidates]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in shingles])]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(shingles), offsets, PERMUTATIONS, 0)
    return np.array(matrix.to_rows(), np.uint32)


def shingle(candidate: Candidate) -> NDArray[np.uint64]:
    """Hashes of the 5-word sequences of one row. A row without words, such as one of emoji, is like no other."""
    hashes = np.concatenate(candidate.hashes)
    if (hashes == NO_WORD).all():
        return np.frombuffer(text_key(candidate), np.uint64)
    size = min(SHINGLE, len(hashes))
    return roll(hashes, [size])[size]


if __name__ == "__main__":
    run_script(main)
