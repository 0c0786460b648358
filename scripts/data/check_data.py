"""Show the origin of each data set, its malformed rows, and three rows as the model will see them.

⟦ and ⟧ enclose the tokens that contribute to the loss.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json
from scripts.common.manifest import find_model
from scripts.common.records import SourceManifest
from scripts.data.schemas import SCHEMAS, Row, sides
from scripts.data.trained_spans import mark_trained

EXAMPLES = 3


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="manifest of the base model, for its chat template")
    parser.add_argument("--rows", type=Path, nargs="*", default=[], help="downloaded rows of each data set, Parquet")
    parser.add_argument("--manifests", type=Path, nargs="*", default=[], help="manifest of each data set")
    parser.add_argument("--row-types", nargs="*", default=[], choices=list(SCHEMAS), help="row type of each data set")
    options = parser.parse_args()
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(find_model(options.model))
    if not options.rows:
        say("check_data: no data set to check; sampled data sets are only made during the run")
    for path, manifest, row_type in zip(options.rows, options.manifests, options.row_types, strict=True):
        for line in describe(path, row_type, read_json(manifest), tokenizer):
            say(line)


def describe(path: Path, row_type: str, manifest: SourceManifest, tokenizer: Any) -> Iterator[str]:
    """The lines to print about one data set."""
    name, facts = manifest["name"], manifest["facts"]
    yield f"== {name}: {facts['rows']:,} {row_type} rows from {facts['origin']}"
    yield f"   revision {facts.get('revision') or 'none'}, licence {facts.get('licence') or 'not stated'}"
    problems = pq.read_table(path, columns=["source_index", "problem"])
    bad = problems.filter(pc.is_valid(problems["problem"]))
    yield f"   {bad.num_rows:,} rows cannot be read" + (":" if bad.num_rows else "")
    kinds: dict[str, int] = Counter()
    for line in bad.to_pylist():
        kinds[line["problem"]] += 1
        if len(kinds) <= EXAMPLES and kinds[line["problem"]] == 1:
            yield f"   row {line['source_index']}: {line['problem']}"
    for row in read_first_rows(path, EXAMPLES):
        for number, turns in enumerate(sides(row)):
            side = ("chosen", "rejected")[number] if row_type == "preference" else "as the model sees it"
            yield f"-- {name}, row {row['source_index']}, {side}:"
            yield mark_trained(tokenizer, turns, last_only=row_type in ("preference", "kto"))


def read_first_rows(path: Path, most: int) -> list[Row]:
    """The first well-formed rows."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        rows = (row for batch in file.iter_batches(100) for row in batch.to_pylist() if row["problem"] is None)
        return [{name: value for name, value in row.items() if value is not None} for row in islice(rows, most)]


if __name__ == "__main__":
    run_script(main)
