"""Read a data set from all its sources, and convert its columns to our schema in one Parquet file.

Malformed rows stay in the file with their problem. The filters count them, and keep them with the rejected rows.
"""

import importlib.metadata
import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from scripts.common.config import Dataset, FileDataset, Format, HubDataset, MixturePart, PackageDataset, RowType
from scripts.common.console import Progress, make_parser, run_script, say
from scripts.common.errors import UserError, nearest
from scripts.common.files import hash_file, write_json, written_whole
from scripts.common.manifest import describe
from scripts.common.reasoning_tasks import make_questions
from scripts.common.records import SourceFacts
from scripts.data.data_files import SHOWN, Record, find_files, read_batches, read_file
from scripts.data.schemas import SOURCE_SCHEMAS, Malformed, Row, find_format, read_group, to_row_type

BATCH = 1_000
"""Rows held in memory at once."""

LOOKED_AT = 100
"""First rows whose columns determine the format."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the data set in the configuration")
    parser.add_argument("--row-type", choices=list(SOURCE_SCHEMAS), required=True, help="row type to convert to")
    parser.add_argument("--config", required=True, help="its `source`, `format` and `rename`, as JSON")
    parser.add_argument("--balance", default="", help="column whose values a sample is balanced over")
    parser.add_argument("--output", type=Path, required=True, help="Parquet file to write")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()
    config = TypeAdapter(Dataset).validate_json(options.config)

    parts: dict[str, SourceFacts] = {}
    index = 0
    with written_whole(options.output) as temporary:
        schema = SOURCE_SCHEMAS[options.row_type]
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for name, part in config.parts.items():
                where = f"datasets.{options.name}" + (f".source.parts.{name}" if name else "")
                records, parts[name] = open_source(part, where)
                rows = convert(records, part, options.row_type, options.balance, where)
                progress = Progress(f"download_dataset {options.name} {name}".strip(), 0, "rows")
                first, malformed = index, 0
                while batch := list(islice(rows, BATCH)):
                    for row in batch:
                        row |= {"source_index": index, "part": name}
                        malformed += row["problem"] is not None
                        index += 1
                    writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                    progress.update(index - first)
                parts[name]["rows"], parts[name]["malformed"] = index - first, malformed
    facts = describe_parts(parts)
    facts["sha256"] = hash_file(options.output)
    bad = f", {facts['malformed']} of them malformed" if facts["malformed"] else ""
    say(f"download_dataset {options.name}: {index} rows from {facts['origin']}{bad}")
    manifest = describe(
        artefact="dataset",
        name=options.name,
        config=json.loads(options.config),
        inputs={},
        facts=facts,
    )
    write_json(options.manifest, manifest)


def describe_parts(parts: dict[str, SourceFacts]) -> SourceFacts:
    """The facts of all sources together. If there are several, `parts` has the facts of each."""
    if list(parts) == [""]:
        return parts[""]
    origin = "mixture of " + ", ".join(f"{name} ({part['origin']})" for name, part in parts.items())
    licences = sorted({str(part["licence"]) for part in parts.values() if part.get("licence")})
    return {
        "origin": origin,
        "licence": ", ".join(licences) or None,
        "parts": parts,
        "rows": sum(part["rows"] for part in parts.values()),
        "malformed": sum(part["malformed"] for part in parts.values()),
    }


# --- sources ------------------------------------------------------------------------------------


def open_source(part: MixturePart, where: str) -> tuple[Iterator[Record], SourceFacts]:
    """The unconverted rows of a source, and its facts. The facts do not count the rows yet."""
    match part.source:
        case HubDataset() as source:
            return open_hub(source, where)
        case FileDataset() as source:
            paths = find_files(source.path, f"{where}.source")
            facts: SourceFacts = {
                "origin": f"file {source.path}",
                "files": {str(path): hash_file(path) for path in paths},
                "licence": source.licence,
                "rows": 0,
                "malformed": 0,
            }
            return (record for path in paths for record in read_file(path, f"{where}.source")), facts
        case PackageDataset() as source:
            facts = {
                "origin": f"package {source.package}, task {source.task}",
                "revision": importlib.metadata.version(source.package),
                "licence": read_licence(source.package),
                "rows": 0,
                "malformed": 0,
            }
            return (Record(dict(row)) for row in make_questions(source)), facts


def read_licence(package: str) -> str | None:
    """The licence that an installed package declares."""
    licence = importlib.metadata.metadata(package).json.get("license_expression")
    return str(licence) if licence else None


def open_hub(source: HubDataset, where: str) -> tuple[Iterator[Record], SourceFacts]:
    """One split at one revision. The repository may also be a local folder in the hub's layout."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    local = Path(source.repository).is_dir()
    revision: str | None = source.revision
    try:
        if not local:
            revision = HfApi().dataset_info(source.repository, revision=source.revision).sha
    except (OSError, HFValidationError, HfHubHTTPError, HTTPError):
        say(f"download_dataset: cannot reach the hub for {source.repository}; using the cache")
    try:
        rows = load_dataset(source.repository, source.config, split=source.split, revision=None if local else revision)
    except (OSError, ValueError, HfHubHTTPError, HTTPError, DatasetGenerationError) as error:
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise UserError(
            f"{where}.source: {source.repository}, split {source.split}, at {source.revision}: {reason}; "
            "run this step on a machine with internet access, or set HF_HOME to a cache that has it"
        ) from error
    batches = rows.data.table.to_batches(max_chunksize=BATCH)
    return read_batches(batches, source.repository), {
        "origin": f"{'folder' if local else 'hub'} {source.repository}",
        "revision": None if local else revision,
        "licence": rows.info.license or None,
        "rows": 0,
        "malformed": 0,
    }


# --- rows ---------------------------------------------------------------------------------------


def convert(records: Iterator[Record], part: MixturePart, row_type: RowType, balance: str, where: str) -> Iterator[Row]:
    """Rows in the source schema, without `source_index` and `part`: exactly one for each record.

    Raises:
        UserError: the columns of the first rows match no format, or a column to rename or to balance over is missing.
    """
    for record in records:
        if record.row is not None:
            break
        yield _reject(record.problem, record.raw)
    else:
        return
    first = [record, *islice(records, LOOKED_AT - 1)]
    given = sorted({name for record in first if record.row is not None for name in record.row if name.isprintable()})
    for old in part.rename:
        if old not in given:
            raise UserError(f"{where}.rename: the data set has no column '{old}'{nearest(old, given)}")
    columns = {column for record in first if record.row is not None for column in rename(record.row, part.rename)}
    found = find_format(columns, row_type, part.format, where)
    if balance and balance not in columns:
        raise UserError(f"{where}: the data set has no column '{balance}' to balance over{nearest(balance, given)}")
    for record in chain(first, records):
        yield _convert(record, part, row_type, found, balance)


def _convert(record: Record, part: MixturePart, row_type: RowType, found: Format, balance: str) -> Row:
    if record.row is None:
        return _reject(record.problem, record.raw)
    row = rename(record.row, part.rename)
    try:
        group = read_group(row, balance) if balance else None
        return to_row_type(row, row_type, found) | {"balance": group, "problem": None}
    except Malformed as problem:
        return _reject(str(problem), json.dumps(record.row, default=repr)[:SHOWN])


def _reject(problem: str, raw: str) -> Row:
    return {"problem": problem, "raw": raw}


def rename(row: Row, names: dict[str, str]) -> Row:
    """The row with its columns renamed. An existing column with one of the new names is dropped."""
    if not names:
        return row
    return {name: value for name, value in row.items() if name not in (*names, *names.values())} | {
        new: row[old] for old, new in names.items() if old in row
    }


if __name__ == "__main__":
    run_script(main)
