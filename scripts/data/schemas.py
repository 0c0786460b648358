"""One schema for each row type, and readers that convert the formats of data sets to it.

Messages rows: `messages` (list of role and content) and `answer` (text that can be verified, or null).
Preference rows: `prompt`, `chosen`, `rejected` (lists of role and content), `score_chosen`, `score_rejected` (or null).
KTO rows: `prompt`, `completion` (lists of role and content), `label` (true: desirable).
Prompt rows: `prompt` (list of role and content) and `answer` (or null).
All rows: `source_index`, the number of the row in its data set.
"""

import math
from collections.abc import Callable, Collection
from typing import Any

import pyarrow as pa

from scripts.common.config import FORMATS, Format, RowType
from scripts.common.errors import UserError, nearest
from scripts.common.records import Turns

Row = dict[str, Any]
"""A row: values by column name."""

TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

_FIELDS: dict[RowType, list[tuple[str, pa.DataType]]] = {
    "messages": [("messages", TURNS), ("answer", pa.string())],
    "preference": [
        *(("prompt", TURNS), ("chosen", TURNS), ("rejected", TURNS)),
        *(("score_chosen", pa.float64()), ("score_rejected", pa.float64())),
    ],
    "kto": [("prompt", TURNS), ("completion", TURNS), ("label", pa.bool_())],
    "prompt": [("prompt", TURNS), ("answer", pa.string())],
}

SCHEMAS: dict[RowType, pa.Schema] = {
    row_type: pa.schema([("source_index", pa.int64()), *fields]) for row_type, fields in _FIELDS.items()
}
"""Rows as stages train on them."""

SOURCE_SCHEMAS: dict[RowType, pa.Schema] = {
    row_type: pa.schema(
        [*schema, ("part", pa.string()), ("balance", pa.string()), ("problem", pa.string()), ("raw", pa.string())]
    )
    for row_type, schema in SCHEMAS.items()
}
"""Downloaded or sampled rows, with the `part` of a mixture and the value of the column to `balance`. A malformed row
has its `problem` and the beginning of the input (`raw`), and all else is null."""

_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
    "system": "system",
}


NAMES, NAME = 20, 40
"""Columns that an error message lists, and characters shown of each."""


class Malformed(Exception):
    """The values of a row do not fit its columns. The text says why."""


# --- formats ------------------------------------------------------------------------------------


def from_messages(row: Row) -> Row:
    """A `messages` column: list of role and content."""
    return {"messages": _read_turns(row, "messages"), "answer": _read_answer(row)}


def from_sharegpt(row: Row) -> Row:
    """ShareGPT: `conversations` (list of from and value), and optionally `system`."""
    turns = _read_turns(row, "conversations")
    system = _read_text(row, "system", needed=False)
    return {"messages": _with_system(system, turns), "answer": None}


def from_alpaca(row: Row) -> Row:
    """Alpaca: `instruction`, `input` (may be empty), `output`; optionally `system` and `history` (pairs of text)."""
    turns: Turns = []
    history = row.get("history") or []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise Malformed("history is not a list of pairs of text")
        turns += [
            _turn(role, _check_text(text, "history")) for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
    question = [_read_text(row, "instruction"), _read_text(row, "input", needed=False)]
    turns += [_turn("user", "\n".join(filter(None, question))), _turn("assistant", _read_text(row, "output") or "")]
    return {"messages": _with_system(_read_text(row, "system", needed=False), turns), "answer": None}


def from_prompt_completion(row: Row) -> Row:
    """`prompt` and `completion`, as text or as turns."""
    turns = [*_read_turns(row, "prompt", "user"), *_read_turns(row, "completion", "assistant")]
    return {"messages": turns, "answer": _read_answer(row)}


def from_problem_answer(row: Row) -> Row:
    """`problem` (or `question`), `answer`, and optionally a worked `solution`, which is then the trained answer.

    GSM8K has both in `answer`: the solution, and the final answer after `####`.
    """
    question = _read_text(row, _either(row, "problem", "question"))
    answer = _read_answer(row)
    if answer is None:
        raise Malformed("answer is missing")
    solution = _read_text(row, "solution", needed=False)
    working, mark, final = answer.rpartition("####")
    if mark and solution is None and working.strip() and final.strip():
        solution, answer = answer, final.strip()
    return {"messages": [_turn("user", question or ""), _turn("assistant", solution or answer)], "answer": answer}


def from_preference(row: Row) -> Row:
    """`chosen` and `rejected`, as answers to a `prompt`, or as complete conversations that share their prompt."""
    chosen, rejected = _read_turns(row, "chosen", "assistant"), _read_turns(row, "rejected", "assistant")
    prompt = chosen[:-1] if len(chosen) > 1 else _read_turns(row, _either(row, "prompt", "question"), "user")
    if len(rejected) > 1 and rejected[:-1] != prompt:
        raise Malformed("chosen and rejected answer different prompts")
    return {
        "prompt": prompt,
        "chosen": chosen[-1:],
        "rejected": rejected[-1:],
        "score_chosen": _read_number(row, "score_chosen"),
        "score_rejected": _read_number(row, "score_rejected"),
    }


def from_kto(row: Row) -> Row:
    """`prompt` and `completion`, as text or as turns, and `label`."""
    return {
        "prompt": _read_turns(row, "prompt", "user"),
        "completion": _read_turns(row, "completion", "assistant"),
        "label": _read_label(row),
    }


def from_kto_messages(row: Row) -> Row:
    """A complete conversation in `messages`, and a `label` for its last turn."""
    turns = _read_turns(row, "messages")
    return {"prompt": turns[:-1], "completion": turns[-1:], "label": _read_label(row)}


def from_prompt(row: Row) -> Row:
    """`prompt`, as text or as turns, and optionally an `answer` to verify against."""
    return {"prompt": _read_turns(row, "prompt", "user"), "answer": _read_answer(row)}


_READERS: dict[Format, tuple[Callable[[Row], Row], tuple[str, ...]]] = {
    "messages": (from_messages, ("messages",)),
    "sharegpt": (from_sharegpt, ("conversations",)),
    "alpaca": (from_alpaca, ("instruction", "output")),
    "prompt_completion": (from_prompt_completion, ("prompt", "completion")),
    "problem_answer": (from_problem_answer, ("problem|question", "answer")),
    "preference": (from_preference, ("chosen", "rejected")),
    "kto": (from_kto, ("prompt", "completion", "label")),
    "kto_messages": (from_kto_messages, ("messages", "label")),
    "prompt": (from_prompt, ("prompt",)),
}
"""The reader of each format, and the columns that identify it."""


def find_format(columns: Collection[str], row_type: RowType, wanted: Format, where: str) -> Format:
    """The format of rows with these columns.

    Raises:
        UserError: no format of this row type has these columns. `where` is the configuration key to name.
    """
    candidates = FORMATS[row_type] if wanted == "auto" else (wanted,)
    lacking = {candidate: _find_lacking(candidate, columns) for candidate in candidates}
    for candidate in candidates:
        if not lacking[candidate]:
            return candidate
    needs = "; or ".join(" and ".join(f"'{column}'" for column in _READERS[name][1]) for name in candidates)
    shown = ", ".join(repr(column[:NAME]) for column in sorted(columns)[:NAMES])
    more = f" and {len(columns) - NAMES:,} more" if len(columns) > NAMES else ""
    nearly = sorted(candidates, key=lambda name: len(lacking[name]) / len(_READERS[name][1]))
    readable = sorted(filter(str.isprintable, columns))
    hints = (nearest(name, readable) for candidate in nearly for name in lacking[candidate])
    hint = next((hint for hint in hints if "did you mean" in hint), ";")
    raise UserError(
        f"{where}: {row_type} rows need a column {needs}, and the data set has {shown or 'none'}{more}"
        f"{hint} set `rename`, or use another data set"
    )


def _find_lacking(candidate: Format, columns: Collection[str]) -> list[str]:
    """The missing columns of a format; of alternatives, the first."""
    choices = [column.split("|") for column in _READERS[candidate][1]]
    return [names[0] for names in choices if not any(name in columns for name in names)]


def to_row_type(row: Row, row_type: RowType, found: Format) -> Row:
    """The row in the schema of `row_type`, without its `source_index`.

    Raises:
        Malformed: its values do not fit its columns.
    """
    read = _READERS[found][0](row)
    if row_type != "prompt" or "prompt" in read:
        return read
    turns = read["messages"]
    prompt = turns[:-1] if turns[-1]["role"] == "assistant" else turns
    if not prompt:
        raise Malformed("there is an answer without a prompt")
    return {"prompt": prompt, "answer": read["answer"]}


def read_group(row: Row, column: str) -> str | None:
    """The value of the column that a sample is balanced over, as text.

    Raises:
        Malformed: it is not a single value.
    """
    value = row.get(column)
    if isinstance(value, list | dict):
        raise Malformed(f"{column} is {_name_type(value)}, not a value to balance over")
    return None if value is None else _check_text(str(value), column)


# --- values -------------------------------------------------------------------------------------


def _read_turns(row: Row, column: str, role: str | None = None) -> Turns:
    """The turns of a column, at least one. If `role` is given, plain text becomes one turn with this role."""
    value = row.get(column)
    if isinstance(value, str) and role is not None:
        return [_turn(role, _check_text(value, column))]
    if not isinstance(value, list):
        raise Malformed(f"{column} is {_name_type(value)}, not a list of turns{' or text' if role else ''}")
    if not value:
        raise Malformed(f"{column} has no turns")
    turns = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, dict):
            raise Malformed(f"{column}: turn {number} is {_name_type(turn)}, not a role and its content")
        named = turn.get("role", turn.get("from"))
        known = _ROLES.get(named) if isinstance(named, str) else None
        if known is None:
            raise Malformed(
                f"{column}: turn {number} has the role {str(named)[:40]!r}; user, assistant and system are known"
            )
        turns.append(_turn(known, _join_text(turn.get("content", turn.get("value")), f"{column}: turn {number}")))
    return turns


def _join_text(value: Any, where: str) -> str:
    """The text of a turn, given as text or as a list of text parts."""
    if isinstance(value, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value):
        value = "".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise Malformed(f"{where}: the content is {_name_type(value)}, not text")
    return _check_text(value, where)


def _either(row: Row, *columns: str) -> str:
    """The first of these columns that has a value, or the first one if none has."""
    return next((column for column in columns if row.get(column) is not None), columns[0])


def _read_text(row: Row, column: str, needed: bool = True) -> str | None:
    value = row.get(column)
    if value is None and not needed:
        return None
    if not isinstance(value, str):
        raise Malformed(f"{column} is {_name_type(value)}, not text")
    return _check_text(value, column)


def _read_answer(row: Row) -> str | None:
    """An answer that can be verified: text or a number. Other values, such as a list of options, give None."""
    value = row.get("answer")
    if isinstance(value, str):
        return _check_text(value, "answer")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        return str(int(value) if value.is_integer() else value) if math.isfinite(value) else None
    return str(value)


def _read_number(row: Row, column: str) -> float | None:
    value = row.get(column)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Malformed(f"{column} is {_name_type(value)}, not a number")
    try:
        number = float(value)  # in CSV files, numbers are text
    except ValueError:
        raise Malformed(f"{column} is text, not a number") from None
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Malformed(f"{column} is not a finite number")
    return number


def _read_label(row: Row) -> bool:
    value = row.get("label")
    if isinstance(value, str):  # as in CSV files
        value = {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower(), value)
    if value in (0, 1) and isinstance(value, bool | int):
        return bool(value)
    raise Malformed(f"label is {_name_type(value)}, not true or false")


def _check_text(text: str, where: str) -> str:
    """The text, if it can be encoded. JSON can contain a lone surrogate, which UTF-8 files cannot."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Malformed(f"{where}: a lone surrogate (half a character) in the text") from None
    return text


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _with_system(system: str | None, turns: Turns) -> Turns:
    return [_turn("system", system), *turns] if system else turns


def _name_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "missing" if value is None else names.get(type(value), type(value).__name__)


# --- all row types ------------------------------------------------------------------------------


def sides(row: Row) -> list[Turns]:
    """The conversations of a row: one, or the chosen and the rejected one of a pair."""
    if "messages" in row:
        return [row["messages"]]
    if "chosen" in row:
        return [row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]]
    return [row["prompt"] + row.get("completion", [])]


def answers(row: Row) -> list[str]:
    """The answers of a row, the chosen one first. A prompt row has none."""
    if "messages" in row:
        return [row["messages"][-1]["content"]]
    return [row[side][-1]["content"] for side in ("chosen", "rejected", "completion") if side in row]
