"""Decide which rows of a data set to keep, split them, and account for every row.

`inspect_rows` has judged each row on its own. The steps that compare rows follow here, in the documented order. Each
removed row is written to the rejected file with the step and the reason, and the funnel counts it, so that always
read = training + validation + test + rejected.
"""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter

from scripts.common.config import Dataset, Filters, MixtureDataset, RowType, Sample
from scripts.common.console import make_parser, run_script, say
from scripts.common.errors import UserError
from scripts.common.files import hash_file, write_json, written_whole
from scripts.common.manifest import describe
from scripts.common.paths import SPLITS
from scripts.common.records import Funnel as FunnelRecord
from scripts.data.benchmark_overlap import OverlapIndex
from scripts.data.filters import Tools, row_filters
from scripts.data.funnel import Funnel, Indices, Inspected, first_of_each, shuffle
from scripts.data.inspect_rows import BATCH, PERMUTATIONS
from scripts.data.near_duplicates import find_near_duplicates
from scripts.data.row_summary import summarise_rows
from scripts.data.schemas import SCHEMAS, Row
from scripts.data.token_counter import TokenCounter

SHOWN = 3
"""Problems that are listed if too many rows are malformed."""

ROWS_WRITTEN = 10_000
"""Rows in each row group of the files written here."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the data set in the configuration")
    parser.add_argument("--row-type", choices=list(SCHEMAS), required=True, help="row type of its stage")
    parser.add_argument("--config", required=True, help="the data set's section, as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the run")
    parser.add_argument("--rows", type=Path, required=True, help="downloaded or sampled rows, Parquet")
    parser.add_argument("--inspected", type=Path, nargs="+", required=True, help="tables of the shards, in order")
    parser.add_argument("--signatures", type=Path, nargs="+", required=True, help="signatures of the shards, in order")
    parser.add_argument("--benchmarks", nargs="*", default=[], help="benchmarks that rows were compared with")
    parser.add_argument("--questions", type=Path, nargs="*", default=[], help="questions of each benchmark, JSON lines")
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=Path, required=True, help=f"{split} rows to write, Parquet")
    parser.add_argument("--rejected", type=Path, required=True, help="removed rows to write, Parquet")
    parser.add_argument("--contamination", type=Path, required=True, help="overlaps with benchmarks to write, Parquet")
    parser.add_argument("--funnel", type=Path, required=True, help="funnel to write, JSON")
    parser.add_argument("--summary", type=Path, required=True, help="summary for the data card to write, JSON")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()
    config = TypeAdapter(Dataset).validate_json(options.config)
    where = f"datasets.{options.name}"

    inspected = Inspected(options.inspected)
    funnel = Funnel(inspected, read_signatures(options.signatures, inspected.rows))
    check_malformed(funnel, config.max_malformed, where)
    apply_filters(funnel, options.row_type, config.filters, options.seed)
    draw_mixture(funnel, config, options.seed)
    if config.sample:
        draw_sample(funnel, config.sample, options.seed)
    splits = split_rows(funnel, {"validation": config.validation, "test": config.test}, options.seed)
    check_splits(funnel, splits, config, where)

    sizes = write_rows(
        options.rows, funnel, splits, {split: getattr(options, split) for split in SPLITS}, options.row_type
    )
    write_rejected(options.rejected, options.rows, funnel)
    write_contamination(options.contamination, funnel)
    description = describe_funnel(options.name, options.row_type, funnel, sizes)
    write_json(options.funnel, description)
    benchmarks = dict(zip(options.benchmarks, options.questions, strict=True))
    write_json(options.summary, summarise_rows(options.name, inspected, splits, options.contamination, benchmarks))
    left = ", ".join(f"{size} {split}" for split, size in sizes.items() if size or split == "train")
    say(f"filter_dataset {options.name}: {inspected.rows} read, {left}")
    manifest = describe(
        artefact="rows",
        name=options.name,
        config=config.as_dict() | {"seed": options.seed},
        inputs={"rows": options.rows}
        | {f"inspected {path.stem}": path for path in options.inspected}
        | {f"questions of {name}": path for name, path in benchmarks.items()},
        facts={f"{split}_rows": sizes[split] for split in SPLITS}
        | {f"{split}_sha256": hash_file(getattr(options, split)) for split in SPLITS},
    )
    write_json(options.manifest, manifest)


def read_signatures(paths: list[Path], rows: int) -> NDArray[np.uint32]:
    """The signatures of all shards, memory-mapped; shape (rows, 0) if there are none."""
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
    """Raises UserError if there is no row, or if more than the share `most` of the rows is malformed."""
    if not funnel.rows.rows:
        raise UserError(f"{where}.source: the data set has no rows")
    bad = sum(1 for _ in funnel.rows.malformed())
    if bad > most * funnel.rows.rows:
        first = [f"row {row}: {problem}" for row, problem in islice(funnel.rows.malformed(), SHOWN)]
        raise UserError(
            f"{where}: {bad} of {funnel.rows.rows} rows cannot be read, more than {where}.max_malformed "
            f"({most:g}) allows; fix them or raise it. The first: {'; '.join(first)}"
        )


def apply_filters(funnel: Funnel, row_type: RowType, filters: Filters, seed: int) -> None:
    """Apply the filters in the documented order: first the inspected results for single rows, then across rows."""
    funnel.remove_inspected(["schema", *filter_names(row_type, filters)])
    if filters.duplicates:
        remove_later(funnel, "duplicates", first_of_each(funnel.keys("text_key")))
    if filters.near_duplicates is not None:
        firsts = find_near_duplicates(funnel.signatures, funnel.alive, filters.near_duplicates)
        remove_later(funnel, "near_duplicates", np.searchsorted(funnel.alive, firsts))
    if row_type == "kto" and filters.max_label_ratio is not None:
        balance_labels(funnel, filters.max_label_ratio, seed)


def filter_names(row_type: RowType, filters: Filters) -> Iterator[str]:
    """Names of the enabled filters of single rows, in order."""
    nothing = Tools(TokenCounter(Path()), OverlapIndex({}))
    return (name for name, _ in row_filters(row_type, filters, nothing))


def remove_later(funnel: Funnel, step: str, first: Indices) -> None:
    """Remove each remaining row that has an earlier duplicate. `first` has the place of the first one, or its own."""
    later = np.flatnonzero(first != np.arange(len(first)))
    gone, kept = funnel.alive[later], funnel.alive[first[later]]
    name = "the same text as" if step == "duplicates" else "nearly the same text as"
    funnel.remove(step, gone, lambda row: f"{name} row {kept[np.searchsorted(gone, row)]}")


def balance_labels(funnel: Funnel, ratio: float, seed: int) -> None:
    """Remove random rows of the more frequent KTO label, until there are at most `ratio` for each row of the other."""
    labels = funnel.column("label").to_numpy().astype(bool)
    more = bool(labels.sum() * 2 > len(labels))
    of_more, others = np.flatnonzero(labels == more), int((labels != more).sum())
    surplus = max(0, len(of_more) - math.floor(ratio * others + 1e-9))
    drawn = of_more[shuffle(len(of_more), f"labels {seed}")[:surplus]]
    reason = f"too many {'desirable' if more else 'undesirable'} rows: {len(of_more)} to {others}"
    funnel.remove("max_label_ratio", funnel.alive[drawn], lambda row: reason)


def draw_mixture(funnel: Funnel, config: Dataset, seed: int) -> None:
    """Keep the share of each part of a mixture, drawn at random."""
    if not isinstance(config.source, MixtureDataset):
        return
    parts = config.source.parts
    codes, names = funnel.codes("part")
    places = {name: np.flatnonzero(codes == names.index(name)) if name in names else codes[:0] for name in parts}
    if all(part.weight is None for part in parts.values()):
        shares = {name: part.rows if part.rows is not None else len(places[name]) for name, part in parts.items()}
    else:
        weights = {name: part.weight or 0.0 for name, part in parts.items()}
        scale = min(len(places[name]) / weight for name, weight in weights.items())
        shares = {name: math.floor(scale * weight + 1e-9) for name, weight in weights.items()}
    kept = np.zeros(len(codes), bool)
    for name, share in shares.items():
        if share > len(places[name]):
            say(f"filter_dataset: part {name} has {len(places[name])} rows left, fewer than the {share} requested")
        kept[places[name][shuffle(len(places[name]), f"mixture {name} {seed}")[:share]]] = True
    gone, part_of = funnel.alive[~kept], codes[~kept]
    funnel.remove("mixture", gone, lambda row: f"not drawn from part {names[part_of[np.searchsorted(gone, row)]]}")


def draw_sample(funnel: Funnel, sample: Sample, seed: int) -> None:
    """Keep a sample of the rows in their order, or all of them if the sample is not smaller."""
    groups = {"": np.arange(len(funnel.alive))}
    if sample.balance:
        codes, values = funnel.codes("balance")
        order = np.argsort(codes, kind="stable")
        members = np.split(order, np.searchsorted(codes[order], np.arange(len(values))))[1:]
        groups = dict(sorted(zip(values, members, strict=True)))
    shares = fill_shares({name: len(places) for name, places in groups.items()}, sample.rows)
    kept = np.zeros(len(funnel.alive), bool)
    for name, places in groups.items():
        kept[places[choose(funnel, places, shares[name], sample, f"sample {name} {seed}")]] = True
    funnel.remove("sample", funnel.alive[~kept], lambda row: "not drawn")


def choose(funnel: Funnel, places: Indices, size: int, sample: Sample, seed: str) -> Indices:
    """The `size` of these places that the sampling method selects."""
    match sample.method:
        case "first":
            return np.arange(size)
        case "margin":
            margins = funnel.column("margin").to_numpy()[places].astype(float)
            return np.argsort(-np.nan_to_num(margins, nan=-math.inf), kind="stable")[:size]
        case "random":
            return shuffle(len(places), seed)[:size]


def fill_shares(sizes: dict[str, int], total: int) -> dict[str, int]:
    """Equal shares of `total`. What a small group cannot supply, the others share.

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
    """The rows of each split. Rows with the same normalised prompt are in the same split.

    At most the requested rows are held out. A prompt with more rows than still fit stays in the training split.
    """
    prompts = funnel.keys("prompt_key")
    sizes = np.bincount(prompts) if len(prompts) else np.empty(0, np.int64)
    order = shuffle(len(sizes), f"split {seed}")
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
    """Raises UserError if no training row is left, or if a requested split is empty."""
    if not len(splits["train"]):
        worst = max(funnel.steps, key=lambda step: int(step["removed"]))
        held_out = len(splits["validation"]) + len(splits["test"])
        raise UserError(
            f"{where}: no row is left to train on after filtering ({funnel.rows.rows} read, "
            f"{worst['removed']} removed by {worst['step']}, {held_out} held out); loosen {where}.filters"
        )
    for split, wanted in (("validation", config.validation), ("test", config.test)):
        if wanted and not len(splits[split]):
            raise UserError(
                f"{where}.{split}: every prompt has more than {wanted} rows, and they must stay together; raise it"
            )


def describe_funnel(name: str, row_type: RowType, funnel: Funnel, sizes: dict[str, int]) -> FunnelRecord:
    """The record of the funnel: the rows that each step removed and kept."""
    removed = sum(step["removed"] for step in funnel.steps)
    if funnel.rows.rows - removed != sum(sizes.values()):
        raise AssertionError(f"the funnel of {name} does not add up: {funnel.steps}, {sizes}")
    return {"dataset": name, "row_type": row_type, "steps": funnel.steps, "splits": sizes}


# --- writing ------------------------------------------------------------------------------------


class RowWriter:
    """Writes tables to one Parquet file in row groups of equal size, independent of the sizes of the tables."""

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
    source: Path, funnel: Funnel, splits: dict[str, Indices], paths: dict[str, Path], row_type: RowType
) -> dict[str, int]:
    """Copy the rows of each split from the source, one batch at a time. Returns the number of rows of each split."""
    split_of = np.full(funnel.rows.rows, -1, np.int8)
    for number, split in enumerate(paths):
        split_of[splits[split]] = number
    schema = SCHEMAS[row_type]
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
    """Batches of a source's rows, each with the number of its first row."""
    start = 0
    with pq.ParquetFile(source, pre_buffer=False) as file:
        for batch in file.iter_batches(BATCH, columns=columns):
            yield batch, start
            start += batch.num_rows


REJECTED = pa.schema(
    [("source_index", pa.int64()), ("step", pa.string()), ("reason", pa.string()), ("row", pa.string())]
)


def write_rejected(path: Path, source: Path, funnel: Funnel) -> None:
    """Write every removed row: its number in the source, the step, the reason, and the row itself as JSON."""
    names = [step["step"] for step in funnel.steps]
    columns = pq.read_schema(source).names
    with written_whole(path) as temporary:
        writer = RowWriter(temporary, REJECTED)
        reasons = funnel.reasons()
        for batch, start in read_batches(source, columns):
            removed_by = funnel.removed_by[start : start + batch.num_rows]
            gone = np.flatnonzero(removed_by >= 0)
            rows = batch.take(pa.array(gone)).to_pylist()
            lines = [
                {
                    "source_index": row["source_index"],
                    "step": names[step],
                    "reason": next(reasons)[1],
                    "row": row["raw"] if row["problem"] is not None else to_json(row),
                }
                for row, step in zip(rows, removed_by[gone].tolist(), strict=True)
            ]
            writer.write(pa.Table.from_pylist(lines, schema=REJECTED))
        writer.close()


def to_json(row: Row) -> str:
    """The row as JSON, without null values."""
    return json.dumps({name: value for name, value in row.items() if value is not None}, ensure_ascii=False)


CONTAMINATION = pa.schema(
    [
        *(("benchmark", pa.string()), ("item", pa.int64()), ("source_index", pa.int64())),
        *(("share", pa.float64()), ("span", pa.string()), ("removed", pa.bool_())),
    ]
)


def write_contamination(path: Path, funnel: Funnel) -> None:
    """Write one line for each overlap of a row and a benchmark item: the share of its words, and the longest span."""
    with written_whole(path) as temporary:
        writer = RowWriter(temporary, CONTAMINATION)
        for _, batch in funnel.rows.batches("source_index", "step", "hits"):
            lines = [
                found | {"source_index": row["source_index"], "removed": row["step"] is not None}
                for row in batch.filter(batch["hits"].is_valid()).to_pylist()
                for found in row["hits"]
            ]
            writer.write(pa.Table.from_pylist(lines, schema=CONTAMINATION))
        writer.close()


if __name__ == "__main__":
    run_script(main)
