"""Decide which rows a data set keeps, split them, and account for every one.

`inspect_rows` has judged each row by itself; here the steps that concern several rows follow, in the documented order.
What goes is kept in the rejected file with its step and reason, and the funnel counts it, so that
read = training + validation + test + rejected, always.
"""

import json
import math
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter

from scripts.common.console import make_parser, run_script, say
from scripts.common.data_config import Dataset, Filters, Form, MixtureDataset, Sample
from scripts.common.errors import UserError
from scripts.common.files import hash_file, write_json, written_whole
from scripts.common.manifest import write_manifest
from scripts.data.benchmark_overlap import OverlapIndex
from scripts.data.filters import Tools, row_filters
from scripts.data.inspect_rows import BATCH, PERMUTATIONS
from scripts.data.near_duplicates import find_near_duplicates
from scripts.data.schemas import SCHEMAS
from scripts.data.summarise_rows import summarise_rows
from scripts.data.token_counter import TokenCounter

Indices = NDArray[np.int64]

SPLITS = ("train", "validation", "test")

SHOWN = 3
"""Problems that are named when too many rows are malformed."""

ROWS_WRITTEN = 10_000
"""Rows of one row group of what is written."""


@dataclass
class Funnel:
    """The rows on their way: which are left, and which step removed the others.

    Args:
        table: the inspected rows of all shards, in the order of the source.
        signatures: MinHash signatures of the same rows; without columns when no filter needs them.
    """

    table: pa.Table
    signatures: NDArray[np.uint32]
    steps: list[dict[str, Any]] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.alive: Indices = np.arange(self.table.num_rows)
        self.removed_by = np.full(self.table.num_rows, -1, np.int32)
        self.steps.append({"step": "read", "removed": 0, "rows": self.table.num_rows})

    def remove(self, step: str, gone: Indices, reasons: Sequence[str | None]) -> None:
        """One line of the funnel: the rows that go, and why each does."""
        self.removed_by[gone] = len(self.steps)
        self.reasons |= {row: reason for row, reason in zip(gone.tolist(), reasons, strict=True) if reason}
        self.alive = self.alive[self.removed_by[self.alive] < 0]
        self.steps.append({"step": step, "removed": len(gone), "rows": len(self.alive)})

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of the rows that are left."""
        return self.table[name].take(pa.array(self.alive))

    def keys(self, name: str) -> Indices:
        """For each row that is left, the number of its key among the different keys, by the order of the keys."""
        chunk = self.column(name).combine_chunks()
        width = chunk.type.byte_width
        data = np.frombuffer(chunk.buffers()[1], np.dtype(f"V{width}"))[chunk.offset : chunk.offset + len(chunk)]
        halves = data.view(">u8").reshape(-1, 2)
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        new = np.ones(len(order), bool)
        new[1:] = (halves[order][1:] != halves[order][:-1]).any(axis=1)
        numbers = np.empty(len(order), np.int64)
        numbers[order] = np.cumsum(new) - 1
        return numbers


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the data set in the configuration")
    parser.add_argument("--form", choices=list(SCHEMAS), required=True, help="kind of rows that its stage needs")
    parser.add_argument("--config", required=True, help="the data set's section, as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the run")
    parser.add_argument("--rows", type=Path, required=True, help="rows as brought in, Parquet")
    parser.add_argument("--inspected", type=Path, nargs="+", required=True, help="tables of the shards, in order")
    parser.add_argument("--signatures", type=Path, nargs="+", required=True, help="signatures of the shards, in order")
    parser.add_argument("--questions", type=Path, nargs="*", default=[], help="questions of the benchmarks, JSON lines")
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=Path, required=True, help=f"{split} rows to write, Parquet")
    parser.add_argument("--rejected", type=Path, required=True, help="rows that were removed, Parquet")
    parser.add_argument("--contamination", type=Path, required=True, help="what overlaps a benchmark, Parquet")
    parser.add_argument("--funnel", type=Path, required=True, help="funnel, JSON")
    parser.add_argument("--summary", type=Path, required=True, help="counts and histograms for the data card, JSON")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()
    config = TypeAdapter(Dataset).validate_json(options.config)
    where = f"datasets.{options.name}"

    table = pa.concat_tables([pq.read_table(path) for path in options.inspected])
    funnel = Funnel(table, read_signatures(options.signatures, table.num_rows))
    check_malformed(funnel, config.max_malformed, where)
    apply_filters(funnel, options.form, config.filters, options.seed)
    draw_mixture(funnel, config, options.seed)
    if config.sample:
        draw_sample(funnel, config.sample, options.seed)
    splits = split_rows(funnel, {"validation": config.validation, "test": config.test}, options.seed)
    check_splits(funnel, splits, config, where)

    sizes = write_rows(options.rows, funnel, splits, {split: getattr(options, split) for split in SPLITS}, options.form)
    write_rejected(options.rejected, options.rows, funnel)
    write_contamination(options.contamination, funnel)
    description = describe_funnel(options.name, options.form, funnel, sizes)
    write_json(options.funnel, description)
    benchmarks = {path.parent.name: path for path in options.questions}
    write_json(options.summary, summarise_rows(options.name, table, splits, options.contamination, benchmarks))
    left = ", ".join(f"{size} {split}" for split, size in sizes.items() if size or split == "train")
    say(f"filter_dataset {options.name}: {table.num_rows} read, {left}")
    write_manifest(
        options.manifest,
        artefact="rows",
        name=options.name,
        config=config.part() | {"seed": options.seed},
        inputs={"rows": options.rows}
        | {f"inspected {path.stem}": path for path in options.inspected}
        | {f"questions of {name}": path for name, path in benchmarks.items()},
        facts={f"{split}_rows": sizes[split] for split in SPLITS}
        | {f"{split}_sha256": hash_file(getattr(options, split)) for split in SPLITS},
    )


def read_signatures(paths: list[Path], rows: int) -> NDArray[np.uint32]:
    """The signatures of all shards, memory-mapped; (rows, 0) when there are none."""
    parts = [path for path in paths if path.stat().st_size]
    if not parts:
        return np.empty((rows, 0), np.uint32)
    with TemporaryFile(dir=paths[0].parent) as whole:
        for path in parts:
            with path.open("rb") as part:
                shutil.copyfileobj(part, whole)
        whole.flush()
        return np.memmap(whole, np.uint32, "r").reshape(-1, PERMUTATIONS)


# --- steps --------------------------------------------------------------------------------------


def check_malformed(funnel: Funnel, most: float, where: str) -> None:
    """Raises UserError when there is no row, or a larger share than `most` cannot be read."""
    if not funnel.table.num_rows:
        raise UserError(f"{where}.source: the data set has no row")
    bad = funnel.table.filter(pc.equal(funnel.table["step"], "schema"))
    if bad.num_rows > most * funnel.table.num_rows:
        first = [
            f"row {line['source_index']}: {line['reason']}"
            for line in bad.select(["source_index", "reason"]).slice(0, SHOWN).to_pylist()
        ]
        raise UserError(
            f"{where}: {bad.num_rows} of {funnel.table.num_rows} rows cannot be read, more than {where}.max_malformed "
            f"({most:g}) allows; mend them or raise it. The first: {'; '.join(first)}"
        )


def apply_filters(funnel: Funnel, form: Form, filters: Filters, seed: int) -> None:
    """The filters in the documented order: those of single rows, as inspected, then those of several rows."""
    steps = funnel.table["step"].combine_chunks()
    for step in ("schema", *filter_names(form, filters)):
        gone = np.flatnonzero(pc.fill_null(pc.equal(steps, step), False).to_numpy(zero_copy_only=False))
        funnel.remove(step, gone, funnel.table["reason"].take(pa.array(gone)).to_pylist())
    if filters.duplicates:
        remove_later(funnel, "duplicates", first_of_each(funnel.keys("text_key")))
    if filters.near_duplicates is not None:
        firsts = find_near_duplicates(funnel.signatures, funnel.alive, filters.near_duplicates)
        remove_later(funnel, "near_duplicates", np.searchsorted(funnel.alive, firsts))
    if form == "kto" and filters.max_label_ratio is not None:
        balance_labels(funnel, filters.max_label_ratio, seed)


def filter_names(form: Form, filters: Filters) -> Iterator[str]:
    """The filters of single rows that are on, in their order."""
    nothing = Tools(TokenCounter(Path()), OverlapIndex({}))
    return (name for name, _ in row_filters(form, filters, nothing))


def first_of_each(numbers: Indices) -> Indices:
    """For each place, the first place with the same number."""
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], np.int64)


def remove_later(funnel: Funnel, step: str, first: Indices) -> None:
    """Remove each of the rows left that another one stands for; `first` says which, as places among the rows left."""
    later = np.flatnonzero(first != np.arange(len(first)))
    alive = funnel.alive
    name = "the same text as" if step == "duplicates" else "nearly the text of"
    funnel.remove(step, alive[later], [f"{name} row {alive[place]}" for place in first[later]])


def balance_labels(funnel: Funnel, ratio: float, seed: int) -> None:
    """Draw out rows of the more frequent KTO label until there are at most `ratio` for one of the other."""
    labels = funnel.column("label").combine_chunks().to_numpy(zero_copy_only=False).astype(bool)
    more = bool(labels.sum() * 2 > len(labels))
    of_more, of_other = np.flatnonzero(labels == more), np.flatnonzero(labels != more)
    surplus = max(0, len(of_more) - math.floor(ratio * len(of_other) + 1e-9))
    drawn = sorted(random.Random(f"labels {seed}").sample(of_more.tolist(), surplus))
    word = "desirable" if more else "undesirable"
    reason = f"too many {word} rows: {len(of_more)} to {len(of_other)}"
    funnel.remove("max_label_ratio", funnel.alive[np.array(drawn, np.int64)], [reason] * len(drawn))


def draw_mixture(funnel: Funnel, config: Dataset, seed: int) -> None:
    """What each part of a mixture may contribute, drawn at random."""
    if not isinstance(config.source, MixtureDataset):
        return
    parts = config.source.parts
    names = np.array(funnel.column("part").to_pylist(), object)
    places = {name: np.flatnonzero(names == name) for name in parts}
    if all(part.weight is None for part in parts.values()):
        shares = {name: part.rows if part.rows is not None else len(places[name]) for name, part in parts.items()}
    else:
        weights = {name: part.weight or 0.0 for name, part in parts.items()}
        scale = min(len(places[name]) / weight for name, weight in weights.items())
        shares = {name: math.floor(scale * weight + 1e-9) for name, weight in weights.items()}
    kept = np.zeros(len(names), bool)
    for name, share in shares.items():
        if share > len(places[name]):
            say(f"filter_dataset: part {name} has {len(places[name])} rows left, fewer than the {share} asked for")
        drawn = random.Random(f"mixture {name} {seed}").sample(places[name].tolist(), min(share, len(places[name])))
        kept[np.array(drawn, np.int64)] = True
    gone = np.flatnonzero(~kept)
    funnel.remove("mixture", funnel.alive[gone], [f"not drawn from part {names[place]}" for place in gone])


def draw_sample(funnel: Funnel, sample: Sample, seed: int) -> None:
    """The rows that the sample takes, in their old order; all when there are not more than it asks for."""
    values = np.array([value or "" for value in funnel.column("balance").to_pylist()], object)
    groups = {value: np.flatnonzero(values == value) for value in sorted(set(values))} if sample.balance else {}
    everything = {"": np.arange(len(values))}
    shares = fill_shares({name: len(places) for name, places in (groups or everything).items()}, sample.rows)
    kept = np.zeros(len(values), bool)
    for name, places in (groups or everything).items():
        kept[places[choose(funnel, places, shares[name], sample, f"sample {name} {seed}")]] = True
    funnel.remove("sample", funnel.alive[~kept], ["not drawn"] * int((~kept).sum()))


def choose(funnel: Funnel, places: Indices, size: int, sample: Sample, seed: str) -> Indices:
    """Which `size` of these places the method takes."""
    match sample.method:
        case "first":
            return np.arange(size)
        case "margin":
            margins = funnel.column("margin").to_numpy(zero_copy_only=False)[places].astype(float)
            return np.argsort(-np.nan_to_num(margins, nan=-math.inf), kind="stable")[:size]
        case "random":
            return np.array(random.Random(seed).sample(range(len(places)), size), np.int64)


def fill_shares(sizes: dict[str, int], total: int) -> dict[str, int]:
    """Equal shares of `total` as far as the groups go: what a small group cannot give, the others share.

    >>> fill_shares({"a": 2, "b": 10, "c": 10}, 12)
    {'a': 2, 'b': 5, 'c': 5}
    """
    shares: dict[str, int] = {}
    left = min(total, sum(sizes.values()))
    for number, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        share = min(sizes[name], -(-left // (len(sizes) - number)) if left else 0)
        shares[name] = share
        left -= share
    return {name: shares[name] for name in sizes}


def split_rows(funnel: Funnel, held_out: dict[str, int], seed: int) -> dict[str, Indices]:
    """The rows of each split; rows with the same normalised prompt stand in the same one.

    At most as many rows as asked for are held out: a prompt whose rows would go beyond stays with the training rows.
    """
    prompts = funnel.keys("prompt_key")
    sizes = np.bincount(prompts) if len(prompts) else np.empty(0, np.int64)
    order = list(range(len(sizes)))
    random.Random(f"split {seed}").shuffle(order)
    split_of = np.zeros(len(sizes), np.int8)
    for number, wanted in enumerate(held_out.values(), start=1):
        left = wanted
        for prompt in order:
            if not left:
                break
            if not split_of[prompt] and sizes[prompt] <= left:
                split_of[prompt] = number
                left -= int(sizes[prompt])
    rows = split_of[prompts]
    return {name: funnel.alive[rows == number] for number, name in enumerate(("train", *held_out))}


def check_splits(funnel: Funnel, splits: dict[str, Indices], config: Dataset, where: str) -> None:
    """Raises UserError when nothing is left to train on, or nothing could be held out."""
    if not len(splits["train"]):
        worst = max(funnel.steps, key=lambda step: int(step["removed"]))
        held_out = len(splits["validation"]) + len(splits["test"])
        raise UserError(
            f"{where}: no row is left to train on after filtering ({funnel.table.num_rows} read, "
            f"{worst['removed']} removed by {worst['step']}, {held_out} held out); loosen {where}.filters"
        )
    for split, wanted in (("validation", config.validation), ("test", config.test)):
        if wanted and not len(splits[split]):
            raise UserError(
                f"{where}.{split}: every prompt has more than {wanted} rows, so none can be held out whole; raise it"
            )


def describe_funnel(name: str, form: Form, funnel: Funnel, sizes: dict[str, int]) -> dict[str, Any]:
    """The funnel as JSON: each step with the rows that it removed and left."""
    removed = sum(step["removed"] for step in funnel.steps)
    if funnel.table.num_rows - removed != sum(sizes.values()):
        raise AssertionError(f"the funnel of {name} does not add up: {funnel.steps}, {sizes}")
    return {"dataset": name, "form": form, "steps": funnel.steps, "splits": sizes}


# --- writing ------------------------------------------------------------------------------------


class RowWriter:
    """Writes tables into one Parquet file in row groups of even size, whatever the sizes of the tables."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.writer = pq.ParquetWriter(path, schema, compression="zstd")
        self.waiting, self.rows = schema.empty_table(), 0

    def write(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        self.waiting = pa.concat_tables([self.waiting, table])
        whole = self.waiting.num_rows // ROWS_WRITTEN * ROWS_WRITTEN
        if whole:
            self.writer.write_table(self.waiting.slice(0, whole), row_group_size=ROWS_WRITTEN)
            self.waiting = self.waiting.slice(whole)

    def close(self) -> None:
        if self.waiting.num_rows:
            self.writer.write_table(self.waiting)
        self.writer.close()


def write_rows(
    source: Path, funnel: Funnel, splits: dict[str, Indices], paths: dict[str, Path], form: Form
) -> dict[str, int]:
    """Copy each split's rows out of the source, a batch at a time; gives the number of rows of each."""
    split_of = np.full(funnel.table.num_rows, -1, np.int8)
    for number, split in enumerate(paths):
        split_of[splits[split]] = number
    schema = SCHEMAS[form]
    with ExitStack() as stack:
        writers = [RowWriter(stack.enter_context(written_whole(path)), schema) for path in paths.values()]
        for batch, start in read_batches(source, schema.names):
            mine = split_of[start : start + batch.num_rows]
            for number, writer in enumerate(writers):
                if (mine == number).any():
                    writer.write(pa.Table.from_batches([batch.filter(pa.array(mine == number))], schema))
        for writer in writers:
            writer.close()
    return {split: writer.rows for split, writer in zip(paths, writers, strict=True)}


def read_batches(source: Path, columns: list[str]) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The rows of a source a batch at a time, and the number of the first of them."""
    start = 0
    with pq.ParquetFile(source) as file:
        for batch in file.iter_batches(BATCH, columns=columns):
            yield batch, start
            start += batch.num_rows


REJECTED = pa.schema(
    [("source_index", pa.int64()), ("step", pa.string()), ("reason", pa.string()), ("row", pa.string())]
)


def write_rejected(path: Path, source: Path, funnel: Funnel) -> None:
    """Every removed row with its number in the source, the step that removed it, why, and what it said, as JSON."""
    names = [step["step"] for step in funnel.steps]
    columns = pq.read_schema(source).names
    with written_whole(path) as temporary:
        writer = RowWriter(temporary, REJECTED)
        for batch, start in read_batches(source, columns):
            removed_by = funnel.removed_by[start : start + batch.num_rows]
            gone = np.flatnonzero(removed_by >= 0)
            rows = batch.take(pa.array(gone)).to_pylist()
            lines = [
                {
                    "source_index": row["source_index"],
                    "step": names[step],
                    "reason": funnel.reasons.get(row["source_index"]),
                    "row": row["raw"] if row["problem"] is not None else to_json(row),
                }
                for row, step in zip(rows, removed_by[gone].tolist(), strict=True)
            ]
            writer.write(pa.Table.from_pylist(lines, schema=REJECTED))
        writer.close()


def to_json(row: dict[str, Any]) -> str:
    """The row as JSON, without what it does not have."""
    return json.dumps({name: value for name, value in row.items() if value is not None}, ensure_ascii=False)


CONTAMINATION = pa.schema(
    [
        *(("benchmark", pa.string()), ("item", pa.int64()), ("source_index", pa.int64())),
        *(("share", pa.float64()), ("span", pa.string()), ("removed", pa.bool_())),
    ]
)


def write_contamination(path: Path, funnel: Funnel) -> None:
    """One line for each (row, benchmark item) that overlap: the share of the item's words, and the longest span."""
    hit = funnel.table.filter(pc.is_valid(funnel.table["hits"])).select(["source_index", "step", "hits"])
    lines = [
        found | {"source_index": row["source_index"], "removed": row["step"] is not None}
        for row in hit.to_pylist()
        for found in row["hits"]
    ]
    with written_whole(path) as temporary:
        pq.write_table(pa.Table.from_pylist(lines, schema=CONTAMINATION), temporary)


if __name__ == "__main__":
    run_script(main)
