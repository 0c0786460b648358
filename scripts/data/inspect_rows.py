"""Inspect every row of a shard once: find the filter that removes it, and compute what later steps compare.

Rows pass through the filters in batches, so memory does not grow with the data set. `filter_dataset` decides about
duplicates, samples and splits from the tables of all shards, so the result does not depend on the number of shards.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray
from pydantic import TypeAdapter
from rensa import RMinHash

from scripts.common.config import Filters, RowType
from scripts.common.console import Progress, make_parser, run_script, say
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
"""Rows held in memory at once."""

SHINGLE = 5
"""Words in the sequences whose sets are compared to find near duplicates."""

PERMUTATIONS = 128
"""Length of a MinHash signature."""

LANGUAGE_SAMPLE = 2_000
"""Rows whose language is detected even if no filter needs it, spread evenly over the data set."""

TOKEN_SAMPLE = 20_000
"""Rows whose tokens are always counted, spread evenly over the data set. The data card shows their lengths."""

NO_WORD = np.uint64(xxhash.xxh3_64_intdigest(b""))
"""Hash of the single empty word of a text without words."""

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
"""One line per row: the `step` that removes it and the `reason`, or the values that later steps use."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the data set in the configuration")
    parser.add_argument("--row-type", choices=list(SCHEMAS), required=True, help="row type")
    parser.add_argument("--config", required=True, help="section `filters` of the data set, as JSON")
    parser.add_argument("--shard", type=int, required=True, help="number of this shard, from 0")
    parser.add_argument("--shards", type=int, required=True, help="number of shards")
    parser.add_argument("--rows", type=Path, required=True, help="downloaded or sampled rows, Parquet")
    parser.add_argument("--model", type=Path, required=True, help="manifest of the base model, for its tokenizer")
    parser.add_argument("--benchmarks", nargs="*", default=[], help="benchmarks to compare rows with")
    parser.add_argument("--questions", type=Path, nargs="*", default=[], help="questions of each benchmark, JSON lines")
    parser.add_argument(
        "--others", type=Path, nargs="*", default=[], help="training rows of the data sets in `not_in`, Parquet"
    )
    parser.add_argument("--output", type=Path, required=True, help="table to write, Parquet")
    parser.add_argument(
        "--signatures", type=Path, required=True, help="signatures to write, 128 numbers of 32 bits per row"
    )
    options = parser.parse_args()
    filters = TypeAdapter(Filters).validate_json(options.config)
    index = OverlapIndex.read(dict(zip(options.benchmarks, options.questions, strict=True)))
    tools = Tools(TokenCounter(options.model), index, read_prompts(options.others))

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
                rows, signed = inspect_batch(batch.to_pylist(), options.row_type, filters, tools, total)
                writer.write_table(pa.Table.from_pylist(rows, schema=INSPECTED))
                signatures.write(signed.tobytes())
                done += len(rows)
                progress.update(done)
    say(f"inspect_rows {options.name} {options.shard}: {done} rows")


def shard_of(groups: int, shard: int, shards: int) -> list[int]:
    """The row groups of a shard: consecutive ones, of nearly equal number for each shard."""
    return list(range(shard * groups // shards, (shard + 1) * groups // shards))


def read_prompts(paths: list[Path]) -> frozenset[bytes]:
    """Digests of the prompts in the training rows of other data sets."""
    keys: set[bytes] = set()
    for path in paths:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH):
                candidates = [Candidate(row) for row in batch.to_pylist()]
                normalise_turns(candidates)
                keys.update(map(prompt_key, candidates))
    return frozenset(keys)


def inspect_batch(
    rows: list[Row], row_type: RowType, filters: Filters, tools: Tools, total: int
) -> tuple[list[Row], NDArray[np.uint32]]:
    """Inspect a batch.

    Args:
        rows: rows in the source schema.
        row_type: their type.
        filters: the section `filters` of the data set.
        tools: what the filters need.
        total: number of rows in the complete data set.

    Returns:
        The lines of the table, and signatures of shape (rows, 128), or (rows, 0) if no filter needs them.
    """
    lines = {row["source_index"]: {name: row.get(name) for name in ("source_index", "part", "balance")} for row in rows}
    alive: list[Candidate] = []
    for row in rows:
        if row["problem"] is None:
            alive.append(Candidate({name: row[name] for name in SCHEMAS[row_type].names}))
        else:
            lines[row["source_index"]] |= {"step": "schema", "reason": row["problem"]}
    for step, judge in row_filters(row_type, filters, tools):
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
    """Whether a row belongs to an even sample of at least `sample` rows, or of all rows if there are fewer."""
    return row % spacing(sample, total) == 0


def spacing(sample: int, total: int) -> int:
    """Distance between the rows of an even sample."""
    return max(1, total // sample)


def known_of(candidate: Candidate) -> Row:
    """The values that the filters have computed."""
    return {
        "tokens": candidate.tokens,
        "language": candidate.language,
        "hits": [vars(hit) for hit in candidate.hits] or None,
    }


def sign(candidates: list[Candidate]) -> NDArray[np.uint32]:
    """MinHash signatures of the sets of 5-word sequences of rows. A shorter row is one sequence."""
    read_words(candidates)
    shingles = [shingle(candidate) for candidate in candidates]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in shingles])]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(shingles), offsets, PERMUTATIONS, 0)
    return np.array(matrix.to_rows(), np.uint32)


def shingle(candidate: Candidate) -> NDArray[np.uint64]:
    """Hashes of the 5-word sequences of one row. Rows without words, such as emoji, only match identical rows."""
    hashes = np.concatenate(candidate.hashes)
    if (hashes == NO_WORD).all():
        return np.frombuffer(text_key(candidate), np.uint64)
    size = min(SHINGLE, len(hashes))
    return roll(hashes, [size])[size]


if __name__ == "__main__":
    run_script(main)
