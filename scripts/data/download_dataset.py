"""Bring a data set, from all its sources and in whatever columns it has, into one Parquet file with our schema.

Rows that cannot be read stay in the file, with their problem: the filters count them and keep them with the rejected.
"""

import importlib.metadata
import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from scripts.common.console import Progress, make_parser, run_script, say
from scripts.common.data_config import Dataset, FileDataset, Form, Format, HubDataset, PackageDataset, Part
from scripts.common.errors import UserError, nearest
from scripts.common.files import hash_file, written_whole
from scripts.common.manifest import write_manifest
from scripts.data.make_tasks import make_tasks
from scripts.data.read_files import SHOWN, Record, find_files, read_batches, read_file
from scripts.data.schemas import SOURCE_SCHEMAS, Malformed, Row, find_format, read_group, to_form

Facts = dict[str, Any]

BATCH = 1_000
"""Rows that are in memory at once."""

LOOKED_AT = 100
"""First rows whose columns tell the format."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the data set in the configuration")
    parser.add_argument("--form", choices=list(SOURCE_SCHEMAS), required=True, help="kind of rows to make")
    parser.add_argument("--config", required=True, help="its `source`, `format` and `rename`, as JSON")
    parser.add_argument("--balance", default="", help="column whose values samples are balanced over")
    parser.add_argument("--output", type=Path, required=True, help="Parquet file to write")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()
    config = TypeAdapter(Dataset).validate_json(options.config)

    parts: dict[str, Facts] = {}
    index = 0
    with written_whole(options.output) as temporary:
        schema = SOURCE_SCHEMAS[options.form]
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for name, part in config.parts.items():
                where = f"datasets.{options.name}" + (f".source.parts.{name}" if name else "")
                records, parts[name] = open_source(part, where)
                rows = convert(records, part, options.form, options.balance, where)
                progress = Progress(f"download_dataset {options.name} {name}".strip(), 0, "rows")
                first, malformed = index, 0
                while batch := list(islice(rows, BATCH)):
                    for row in batch:
                        row |= {"source_index": index, "part": name}
                        malformed += row["problem"] is not None
                        index += 1
                    writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                    progress.update(index - first)
                parts[name] |= {"rows": index - first, "malformed": malformed}
    facts = describe_parts(parts) | {"sha256": hash_file(options.output)}
    bad = f", {facts['malformed']} of them malformed" if facts["malformed"] else ""
    say(f"download_dataset {options.name}: {index} rows from {facts['origin']}{bad}")
    write_manifest(
        options.manifest,
        artefact="dataset",
        name=options.name,
        config=json.loads(options.config),
        inputs={},
        facts=facts,
    )


def describe_parts(parts: dict[str, Facts]) -> Facts:
    """What is worth recording of all sources together; with several, each one's own facts in `parts`."""
    whole = {key: sum(part[key] for part in parts.values()) for key in ("rows", "malformed")}
    if list(parts) == [""]:
        return parts[""] | whole
    origin = "mixture of " + ", ".join(f"{name} ({part['origin']})" for name, part in parts.items())
    licences = sorted({str(part["licence"]) for part in parts.values() if part.get("licence")})
    return {"origin": origin, "licence": ", ".join(licences) or None, "parts": parts} | whole


# --- sources ------------------------------------------------------------------------------------


def open_source(part: Part, where: str) -> tuple[Iterator[Record], Facts]:
    """The rows of a source as they come, and what is worth recording of where they come from."""
    match part.source:
        case HubDataset() as source:
            return open_hub(source, where)
        case FileDataset() as source:
            paths = find_files(source.path, f"{where}.source")
            facts: Facts = {
                "origin": f"file {source.path}",
                "files": {str(path): hash_file(path) for path in paths},
                "licence": source.licence,
            }
            return (record for path in paths for record in read_file(path, f"{where}.source")), facts
        case PackageDataset() as source:
            facts = {
                "origin": f"package {source.package}, task {source.task}",
                "revision": importlib.metadata.version(source.package),
                "licence": importlib.metadata.metadata(source.package).json.get("license_expression"),
            }
            return (Record(row) for row in make_tasks(source)), facts


def open_hub(source: HubDataset, where: str) -> tuple[Iterator[Record], Facts]:
    """One split at one revision. A local folder in the hub's layout, given as the repository, serves as well."""
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
        say(f"download_dataset: the hub cannot be asked about {source.repository}; looking into the cache")
    try:
        rows = load_dataset(source.repository, source.config, split=source.split, revision=None if local else revision)
    except (OSError, ValueError, HfHubHTTPError, HTTPError, DatasetGenerationError) as error:
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise UserError(
            f"{where}.source: {source.repository}, split {source.split}, at {source.revision}: {reason}; "
            "run this step on a machine with internet, or set HF_HOME to a filled cache"
        ) from error
    batches = rows.data.table.to_batches(max_chunksize=BATCH)
    return read_batches(batches, source.repository), {
        "origin": f"{'folder' if local else 'hub'} {source.repository}",
        "revision": None if local else revision,
        "licence": rows.info.license or None,
    }


# --- rows ---------------------------------------------------------------------------------------


def convert(records: Iterator[Record], part: Part, form: Form, balance: str, where: str) -> Iterator[Row]:
    """Rows in the source schema, without `source_index` and `part`: each record gives exactly one.

    Raises:
        UserError: the columns of the first rows fit no format, or lack one to rename or to balance over.
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
    found = find_format(columns, form, part.format, where)
    if balance and balance not in columns:
        raise UserError(f"{where}: there is no column '{balance}' to balance over{nearest(balance, given)}")
    for record in chain(first, records):
        yield _convert(record, part, form, found, balance)


def _convert(record: Record, part: Part, form: Form, found: Format, balance: str) -> Row:
    if record.row is None:
        return _reject(record.problem, record.raw)
    row = rename(record.row, part.rename)
    try:
        group = read_group(row, balance) if balance else None
        return to_form(row, form, found) | {"balance": group, "problem": None}
    except Malformed as problem:
        return _reject(str(problem), json.dumps(record.row, default=repr)[:SHOWN])


def _reject(problem: str, raw: str) -> Row:
    return {"problem": problem, "raw": raw}


def rename(row: Row, names: dict[str, str]) -> Row:
    """The row with its columns renamed; a column that stands in the way of a new name goes."""
    if not names:
        return row
    return {name: value for name, value in row.items() if name not in (*names, *names.values())} | {
        new: row[old] for old, new in names.items() if old in row
    }


if __name__ == "__main__":
    run_script(main)
