"""Decide which rows a data set keeps, split them, and account for every one.

`inspect_rows` has judged each row by itself; here the steps that concern several rows follow, in the documented order.
What goes is kept in the rejected file with its step and reason, and the funnel counts it, so that
read = training + validation + test + rejected, always.
"""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pyarrow as pa
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
from scripts.data.funnel import Funnel, Indices, Inspected, first_of_each, shuffle
from scripts.data.inspect_rows import BATCH, PERMUTATIONS
from scripts.data.near_duplicates import find_near_duplicates
from scripts.data.schemas import SCHEMAS
from scripts.data.summarise_rows import summarise_rows
from scripts.data.token_counter import TokenCounter

SPLITS = ("train", "validation", "test")

SHOWN = 3
"""Problems that are named when too many rows are malformed."""

ROWS_WRITTEN = 10_000
"""Rows of one row group of what is written."""


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

    inspected = Inspected(options.inspected)
    funnel = Funnel(inspected, read_signatures(options.signatures, inspected.rows))
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
    write_json(options.summary, summarise_rows(options.name, inspected, splits, options.contamination, benchmarks))
    left = ", ".join(f"{size} {split}" for split, size in sizes.items() if size or split == "train")
    say(f"filter_dataset {options.name}: {inspected.rows} read, {left}")
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
    if not funnel.rows.rows:
        raise UserError(f"{where}.source: the data set has no row")
    bad = sum(1 for _ in funnel.rows.malformed())
    if bad > most * funnel.rows.rows:
        first = [f"row {row}: {problem}" for row, problem in islice(funnel.rows.malformed(), SHOWN)]
        raise UserError(
            f"{where}: {bad} of {funnel.rows.rows} rows cannot be read, more than {where}.max_malformed "
            f"({most:g}) allows; mend them or raise it. The first: {'; '.join(first)}"
        )


def apply_filters(funnel: Funnel, form: Form, filters: Filters, seed: int) -> None:
    """The filters in the documented order: those of single rows, as inspected, then those of several rows."""
    funnel.remove_inspected(["schema", *filter_names(form, filters)])
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


def remove_later(funnel: Funnel, step: str, first: Indices) -> None:
    """Remove each of the rows left that another one stands for; `first` says which, as places among the rows left."""
    later = np.flatnonzero(first != np.arange(len(first)))
    gone, kept = funnel.alive[later], funnel.alive[first[later]]
    name = "the same text as" if step == "duplicates" else "nearly the text of"
    funnel.remove(step, gone, lambda row: f"{name} row {kept[np.searchsorted(gone, row)]}")


def balance_labels(funnel: Funnel, ratio: float, seed: int) -> None:
    """Draw out rows of the more frequent KTO label until there are at most `ratio` for one of the other."""
    labels = funnel.column("label").to_numpy().astype(bool)
    more = bool(labels.sum() * 2 > len(labels))
    of_more, others = np.flatnonzero(labels == more), int((labels != more).sum())
    surplus = max(0, len(of_more) - math.floor(ratio * others + 1e-9))
    drawn = of_more[shuffle(len(of_more), f"labels {seed}")[:surplus]]
    reason = f"too many {'desirable' if more else 'undesirable'} rows: {len(of_more)} to {others}"
    funnel.remove("max_label_ratio", funnel.alive[drawn], lambda row: reason)


def draw_mixture(funnel: Funnel, config: Dataset, seed: int) -> None:
    """What each part of a mixture may contribute, drawn at random."""
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
            say(f"filter_dataset: part {name} has {len(places[name])} rows left, fewer than the {share} asked for")
        kept[places[name][shuffle(len(places[name]), f"mixture {name} {seed}")[:share]]] = True
    gone, part_of = funnel.alive[~kept], codes[~kept]
    funnel.remove("mixture", gone, lambda row: f"not drawn from part {names[part_of[np.searchsorted(gone, row)]]}")


def draw_sample(funnel: Funnel, sample: Sample, seed: int) -> None:
    """The rows that the sample takes, in their old order; all when there are not more than it asks for."""
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
    """Which `size` of these places the method takes."""
    match sample.method:
        case "first":
            return np.arange(size)
        case "margin":
            margins = funnel.column("margin").to_numpy()[places].astype(float)
            return np.argsort(-np.nan_to_num(margins, nan=-math.inf), kind="stable")[:size]
        case "random":
            return shuffle(len(places), seed)[:size]


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
    """Raises UserError when nothing is left to train on, or nothing could be held out."""
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
                f"{where}.{split}: every prompt has more than {wanted} rows, so none can be held out whole; raise it"
            )


def describe_funnel(name: str, form: Form, funnel: Funnel, sizes: dict[str, int]) -> dict[str, Any]:
    """The funnel as JSON: each step with the rows that it removed and left."""
    removed = sum(step["removed"] for step in funnel.steps)
    if funnel.rows.rows - removed != sum(sizes.values()):
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
    split_of = np.full(funnel.rows.rows, -1, np.int8)
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
    with pq.ParquetFile(source, pre_buffer=False) as file:
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
