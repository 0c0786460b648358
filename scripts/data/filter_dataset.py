"""Bring rows into one schema, filter them, and account for every one.

Each filter takes the rows that are left and says which of them stay. What goes is kept in the rejected file with the
filter's name, and the funnel counts it, so that read = trained on + held out + rejected, always.
"""

import json
import random
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from scripts.common.config import Dataset, Filters, nearest
from scripts.common.console import make_parser, run_script, say
from scripts.common.errors import UserError
from scripts.common.files import hash_file, read_json_lines, write_json, written_whole
from scripts.common.manifest import find_model, write_manifest
from scripts.data.schemas import NEEDED, SCHEMAS, Form, Row, prompt_text, sides, to_form

CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>")

CountTokens = Callable[[Row], int]


@dataclass(frozen=True)
class Step:
    """One line of the funnel: the rows that stay, and those that went."""

    name: str
    kept: list[Row]
    removed: list[Row]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the data set in the configuration")
    parser.add_argument("--form", choices=list(SCHEMAS), required=True, help="kind of rows that its stage needs")
    parser.add_argument("--config", required=True, help="the data set's section, as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the run")
    parser.add_argument("--rows", type=Path, required=True, help="Parquet file as downloaded")
    parser.add_argument("--model", type=Path, required=True, help="manifest of the base model, whose tokenizer counts")
    parser.add_argument("--questions", type=Path, nargs="*", default=[], help="questions of the benchmarks, JSON lines")
    parser.add_argument(
        "--others", type=Path, nargs="*", default=[], help="training rows of the data sets in `not_in`, Parquet"
    )
    parser.add_argument("--train", type=Path, required=True, help="rows to train on, Parquet")
    parser.add_argument("--validation", type=Path, required=True, help="rows held out, Parquet")
    parser.add_argument("--rejected", type=Path, required=True, help="rows that were removed, Parquet")
    parser.add_argument("--funnel", type=Path, required=True, help="funnel, JSON")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()
    config = TypeAdapter(Dataset).validate_json(options.config)
    form: Form = options.form

    raw = read_rows(options.rows, form, options.name)
    asked = [question for path in options.questions for question in read_json_lines(path)]
    questions = {normalise(text) for question in asked for text in (question["question"], *question["texts"])}
    taken = {normalise(prompt_text(row)) for path in options.others for row in pq.read_table(path).to_pylist()}
    steps = list(apply_filters(raw, form, config.filters, token_counter(options.model), questions, taken))
    steps.append(draw_sample(steps[-1].kept, config.sample, options.seed))
    train, validation = split_rows(steps[-1].kept, config.validation, options.seed)
    if not train:
        worst = max(steps, key=lambda step: len(step.removed))
        raise UserError(
            f"datasets.{options.name}: no row is left to train on after filtering ({len(raw)} read, "
            f"{len(worst.removed)} removed by {worst.name}, {len(validation)} held out); "
            f"loosen datasets.{options.name}.filters"
        )

    if config.validation and not validation:
        raise UserError(
            f"datasets.{options.name}.validation: every prompt has more than {config.validation} rows, so none can "
            "be held out whole; raise it"
        )

    write_rows(options.train, train, SCHEMAS[form])
    write_rows(options.validation, validation, SCHEMAS[form])
    write_rejected(options.rejected, steps, raw)
    funnel = describe_funnel(options.name, form, len(raw), steps, len(train), len(validation))
    write_json(options.funnel, funnel)
    say(f"filter_dataset {options.name}: {len(raw)} read, {len(train)} to train on, {len(validation)} held out")
    write_manifest(
        options.manifest,
        artefact="rows",
        name=options.name,
        config=config.part(),
        inputs={"rows": options.rows, "model": options.model}
        | {f"questions of {path.parent.name}": path for path in options.questions}
        | {f"training rows of {path.parent.name}": path for path in options.others},
        facts={
            "train_rows": len(train),
            "validation_rows": len(validation),
            "train_sha256": hash_file(options.train),
            "validation_sha256": hash_file(options.validation),
        },
    )


def read_rows(path: Path, form: Form, name: str) -> list[Row]:
    """All rows of a Parquet file; raises UserError when a column that the form needs is missing."""
    table = pq.read_table(path)
    for column in NEEDED[form]:
        if column not in table.column_names:
            hint = nearest(column, table.column_names)
            raise UserError(
                f"datasets.{name}: {form} rows need a column '{column}', which the data set does not have{hint}"
            )
    return list(table.to_pylist())


def apply_filters(
    raw: list[Row], form: Form, filters: Filters, count_tokens: CountTokens, questions: set[str], taken: set[str]
) -> Iterator[Step]:
    """The steps of the funnel, in order. Filters that are off, or that do not concern this form, have no step."""
    converted = [(row, to_form(row, index, form)) for index, row in enumerate(raw)]
    step = Step(
        "schema",
        [row for _, row in converted if row is not None],
        [{"source_index": index} for index, (_, row) in enumerate(converted) if row is None],
    )
    yield step
    for name, stays in _predicates(form, filters, count_tokens, questions, taken):
        kept: list[Row] = []
        removed: list[Row] = []
        for row in step.kept:
            (kept if stays(row) else removed).append(row)
        step = Step(name, kept, removed)
        yield step


def _predicates(
    form: Form, filters: Filters, count_tokens: CountTokens, questions: set[str], taken: set[str]
) -> Iterator[tuple[str, Callable[[Row], bool]]]:
    """Name and test of each filter that is on; a row stays where the test holds."""
    if filters.empty:
        yield "empty", has_content
    if filters.control_tokens:
        yield "control_tokens", has_no_control_tokens
    if form == "preference" and filters.equal_answers:
        yield "equal_answers", lambda row: answer_text(row["chosen"]) != answer_text(row["rejected"])
    if form == "preference" and (margin := filters.min_margin) is not None:
        yield "min_margin", lambda row: has_margin(row, margin)
    if (fewest := filters.min_tokens) is not None:
        yield "min_tokens", lambda row: count_tokens(row) >= fewest
    if (most := filters.max_tokens) is not None:
        yield "max_tokens", lambda row: count_tokens(row) <= most
    if filters.duplicates:
        seen: set[str] = set()
        yield "duplicates", lambda row: is_first(row, seen)
    if filters.benchmark_overlap:
        yield "benchmark_overlap", lambda row: normalise(prompt_text(row)) not in questions
    if filters.not_in:
        yield "not_in", lambda row: normalise(prompt_text(row)) not in taken


def has_content(row: Row) -> bool:
    """Every turn says something, the user asks, and the assistant has the last word."""
    return all(
        turns
        and all(turn["content"].strip() for turn in turns)
        and turns[-1]["role"] == "assistant"
        and any(turn["role"] == "user" for turn in turns)
        for turns in sides(row)
    )


def has_no_control_tokens(row: Row) -> bool:
    """No turn holds a token of the chat template as text, which the tokenizer would take for the token itself."""
    return not any(token in turn["content"] for turns in sides(row) for turn in turns for token in CONTROL_TOKENS)


def answer_text(turns: list[dict[str, str]]) -> str:
    """The answer without the white space around it."""
    return turns[-1]["content"].strip()


def has_margin(row: Row, margin: float) -> bool:
    """The chosen answer was scored better by at least `margin`; pairs without scores do not count as better."""
    if row["score_chosen"] is None or row["score_rejected"] is None:
        return False
    return bool(row["score_chosen"] - row["score_rejected"] >= margin)


def is_first(row: Row, seen: set[str]) -> bool:
    """No row before it had the same text."""
    text = "\x1f".join(normalise(turn["content"]) for turns in sides(row) for turn in turns)
    if text in seen:
        return False
    seen.add(text)
    return True


def normalise(text: str) -> str:
    """Text as compared for equality: one Unicode form, no case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def token_counter(model: Path) -> CountTokens:
    """Counts the tokens of a templated row, the longer side of a pair; loads the tokenizer on first use only."""
    tokenizer: Any = None

    def count(row: Row) -> int:
        nonlocal tokenizer
        if tokenizer is None:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(find_model(model))
        return max(
            len(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"])
            for turns in sides(row)
        )

    return count


def draw_sample(rows: list[Row], size: int | None, seed: int) -> Step:
    """`size` rows drawn at random, in their old order; all of them when `size` is None or not smaller."""
    if size is None or size >= len(rows):
        return Step("sample", rows, [])
    drawn = set(random.Random(f"sample {seed}").sample(range(len(rows)), size))
    return Step(
        "sample",
        [row for i, row in enumerate(rows) if i in drawn],
        [row for i, row in enumerate(rows) if i not in drawn],
    )


def split_rows(rows: list[Row], held_out: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Training and validation rows; rows with the same normalised prompt stand on the same side.

    At most `held_out` rows are held out: a prompt whose rows would go beyond is left in the training rows.
    """
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(normalise(prompt_text(row)), []).append(i)
    order = sorted(groups)
    random.Random(f"split {seed}").shuffle(order)
    chosen: set[int] = set()
    for prompt in order:
        if len(chosen) + len(groups[prompt]) <= held_out:
            chosen.update(groups[prompt])
    return (
        [row for i, row in enumerate(rows) if i not in chosen],
        [row for i, row in enumerate(rows) if i in chosen],
    )


def describe_funnel(name: str, form: Form, read: int, steps: list[Step], train: int, validation: int) -> dict[str, Any]:
    """The funnel as JSON: each step with the rows that it removed and left."""
    lines: list[dict[str, Any]] = [{"step": "read", "removed": 0, "rows": read}]
    lines += [{"step": step.name, "removed": len(step.removed), "rows": len(step.kept)} for step in steps]
    if read - sum(line["removed"] for line in lines) != train + validation:
        raise AssertionError(f"the funnel of {name} does not add up: {lines}, {train} + {validation}")
    return {"dataset": name, "form": form, "steps": lines, "splits": {"train": train, "validation": validation}}


def write_rows(path: Path, rows: list[Row], schema: pa.Schema) -> None:
    """Write rows as Parquet."""
    with written_whole(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)


def write_rejected(path: Path, steps: list[Step], raw: list[Row]) -> None:
    """Every removed row as it was read, as JSON, with its number in the source and the step that removed it."""
    rows = [{"source_index": row["source_index"], "step": step.name} for step in steps for row in step.removed]
    rows.sort(key=lambda row: row["source_index"])
    for row in rows:
        row["row"] = json.dumps(raw[row["source_index"]], ensure_ascii=False, default=str)
    write_rows(path, rows, pa.schema([("source_index", pa.int64()), ("step", pa.string()), ("row", pa.string())]))


if __name__ == "__main__":
    run_script(main)
