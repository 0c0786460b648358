"""Bring a data set, with the columns that it has, into one Parquet file."""

import glob
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from scripts.common.config import DatasetSource, FileDataset, HubDataset, PackageDataset, RejectionsDataset
from scripts.common.console import make_parser, run_script, say
from scripts.common.errors import UserError
from scripts.common.files import hash_file, written_whole
from scripts.common.manifest import write_manifest
from scripts.data.make_tasks import make_tasks

Facts = dict[str, Any]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the data set in the configuration")
    parser.add_argument("--config", required=True, help="its `source`, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="Parquet file to write")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()
    source: DatasetSource = TypeAdapter(DatasetSource).validate_json(options.config)

    table, facts = fetch(options.name, source)
    with written_whole(options.output) as temporary:
        pq.write_table(table, temporary)
    facts |= {"rows": table.num_rows, "sha256": hash_file(options.output)}
    say(f"download_dataset {options.name}: {table.num_rows} rows from {facts['origin']}")
    write_manifest(
        options.manifest, artefact="dataset", name=options.name, config=source.part(), inputs={}, facts=facts
    )


def fetch(name: str, source: HubDataset | FileDataset | PackageDataset | RejectionsDataset) -> tuple[pa.Table, Facts]:
    """The rows of a source, and what is worth recording of where they came from."""
    match source:
        case HubDataset():
            return fetch_from_hub(name, source)
        case FileDataset():
            return read_files(name, source)
        case PackageDataset():
            rows = [
                {
                    "messages": [
                        {"role": "user", "content": row["question"]},
                        {"role": "assistant", "content": row["solution"]},
                    ],
                    "answer": row["answer"],
                }
                for row in make_tasks(source)
            ]
            return pa.Table.from_pylist(rows), {"origin": f"package {source.package}, task {source.task}"}
        case RejectionsDataset():
            raise UserError(f"datasets.{name}: rejections are sampled from a model, not downloaded")


def fetch_from_hub(name: str, source: HubDataset) -> tuple[pa.Table, Facts]:
    """One split at one revision. A local folder in the hub's layout, given as the repository, serves as well."""
    from datasets import load_dataset
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    local = Path(source.repository).is_dir()
    revision: str | None = source.revision
    try:
        if not local:
            revision = HfApi().dataset_info(source.repository, revision=source.revision).sha
    except (OSError, HfHubHTTPError, HTTPError):
        say(f"download_dataset {name}: the hub cannot be asked; looking into the cache")
    try:
        rows = load_dataset(source.repository, source.config, split=source.split, revision=None if local else revision)
    except (OSError, ValueError, HfHubHTTPError, HTTPError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"datasets.{name}.source: {source.repository}, split {source.split}, at {source.revision}: {reason}; "
            "run this step on a machine with internet, or set HF_HOME to a filled cache"
        ) from error
    return rows.data.table.combine_chunks(), {
        "origin": f"{'folder' if local else 'hub'} {source.repository}",
        "revision": None if local else revision,
        "licence": rows.info.license or None,
    }


def read_files(name: str, source: FileDataset) -> tuple[pa.Table, Facts]:
    """JSON lines or Parquet files, in the order of their names."""
    paths = [Path(path) for path in sorted(glob.glob(source.path, recursive=True))]
    if not paths:
        raise UserError(f"datasets.{name}.source.path: no file matches {source.path}")
    try:
        tables = [pq.read_table(path) if path.suffix == ".parquet" else read_json_lines(path) for path in paths]
        table = pa.concat_tables(tables, promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
        raise UserError(f"datasets.{name}.source.path: {source.path}: {str(error).splitlines()[0]}") from error
    files = {str(path): hash_file(path) for path in paths}
    return table, {"origin": f"file {source.path}", "files": files}


def read_json_lines(path: Path) -> pa.Table:
    """A JSON lines file as a table; raises UserError with the number of the first bad line."""
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}:{number}: no valid JSON ({error}); mend or remove this line") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: a JSON object is needed, found {type(row).__name__}")
        rows.append(row)
    # pyarrow takes the columns of the first row for those of all.
    columns = dict.fromkeys(column for row in rows for column in row)
    return pa.Table.from_pylist([{column: row.get(column) for column in columns} for row in rows])


if __name__ == "__main__":
    run_script(main)
