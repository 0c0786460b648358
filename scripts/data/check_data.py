"""Show what data sets are, what is wrong with them, and three rows as the model will see them.

The trained span, which the loss is taken over, stands between ⟦ and ⟧.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json
from scripts.common.manifest import find_model
from scripts.data.schemas import SCHEMAS, Row, Turns, sides

EXAMPLES = 3
LONGEST = 1_500
"""Characters of one conversation that are shown."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="manifest of the base model, whose template is used")
    parser.add_argument("--rows", type=Path, nargs="*", default=[], help="data sets as brought in, Parquet")
    parser.add_argument("--forms", nargs="*", default=[], choices=list(SCHEMAS), help="kind of rows of each")
    options = parser.parse_args()
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(find_model(options.model))
    if not options.rows:
        say("check_data: no data set to check; those that a model samples are made during the run")
    for path, form in zip(options.rows, options.forms, strict=True):
        facts = read_json(path.with_suffix(".json"))["facts"]
        for line in describe(path, form, facts, tokenizer):
            say(line)


def describe(path: Path, form: str, facts: dict[str, Any], tokenizer: Any) -> Iterator[str]:
    """The lines to say about one data set."""
    name = path.parent.name
    yield f"== {name}: {facts['rows']:,} {form} rows from {facts['origin']}"
    yield f"   revision {facts.get('revision') or 'none'}, licence {facts.get('licence') or 'not stated'}"
    problems = pq.read_table(path, columns=["source_index", "problem"])
    bad = problems.filter(pc.is_valid(problems["problem"]))
    yield f"   {bad.num_rows:,} rows cannot be read" + (":" if bad.num_rows else "")
    kinds: dict[str, int] = Counter()
    for line in bad.to_pylist():
        kinds[line["problem"]] += 1
        if len(kinds) <= EXAMPLES and kinds[line["problem"]] == 1:
            yield f"   row {line['source_index']}: {line['problem']}"
    for row in read_whole(path, EXAMPLES):
        for number, turns in enumerate(sides(row)):
            side = ("chosen", "rejected")[number] if form == "preference" else "as the model sees it"
            yield f"-- {name}, row {row['source_index']}, {side}:"
            yield mark_trained(tokenizer, turns, last_only=form in ("preference", "kto"))


def read_whole(path: Path, most: int) -> list[Row]:
    """The first rows that could be read."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        rows = (row for batch in file.iter_batches(100) for row in batch.to_pylist() if row["problem"] is None)
        return [{name: value for name, value in row.items() if value is not None} for row in islice(rows, most)]


def mark_trained(tokenizer: Any, turns: Turns, last_only: bool = False) -> str:
    """The templated conversation, with ⟦ ⟧ around the tokens that the assistant's turns are learnt by.

    With `last_only` those are the last turn's, as where answers to one prompt are compared.
    """
    encoded = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    tokens = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    spans = [(bool(mask), [token for token, _ in span]) for mask, span in groupby(tokens, key=itemgetter(1))]
    learnt = [place for place, (trained, _) in enumerate(spans) if trained]
    marked = learnt[-1:] if last_only else learnt
    pieces = [visible(tokenizer.decode(span)) for _, span in spans]
    text = "".join(f"⟦{piece}⟧" if place in marked else piece for place, piece in enumerate(pieces)).rstrip("\n")
    # The end has the answer.
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"


def visible(text: str) -> str:
    """Control characters, with which a text could act on the terminal, as Python writes them."""
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


if __name__ == "__main__":
    run_script(main)
