"""One schema a kind of rows, whatever the columns that a data set came with.

Messages rows: `messages` (list of role and content) and `answer` (text that can be verified, or null).
Preference rows: `prompt`, `chosen`, `rejected` (lists of role and content), `score_chosen`, `score_rejected` (or null).
KTO rows: `prompt`, `completion` (lists of role and content), `label` (true: desirable).
Prompt rows: `prompt` (list of role and content) and `answer` (or null).
All: `source_index`, the number of the row in its data set.
"""

import math
from collections.abc import Callable, Collection
from typing import Any

import pyarrow as pa

from scripts.common.data_config import FORMATS, Form, Format
from scripts.common.errors import UserError, nearest

Row = dict[str, Any]
Turns = list[dict[str, str]]

TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

_FIELDS: dict[Form, list[tuple[str, pa.DataType]]] = {
    "messages": [("messages", TURNS), ("answer", pa.string())],
    "preference": [
        *(("prompt", TURNS), ("chosen", TURNS), ("rejected", TURNS)),
        *(("score_chosen", pa.float64()), ("score_rejected", pa.float64())),
    ],
    "kto": [("prompt", TURNS), ("completion", TURNS), ("label", pa.bool_())],
    "prompt": [("prompt", TURNS), ("answer", pa.string())],
}

SCHEMAS: dict[Form, pa.Schema] = {
    form: pa.schema([("source_index", pa.int64()), *fields]) for form, fields in _FIELDS.items()
}
"""Rows as stages train on them."""

SOURCE_SCHEMAS: dict[Form, pa.Schema] = {
    form: pa.schema(
        [*schema, ("part", pa.string()), ("balance", pa.string()), ("problem", pa.string()), ("raw", pa.string())]
    )
    for form, schema in SCHEMAS.items()
}
"""Rows as brought in: `part` of a mixture, value of the column to `balance`, and for a row that cannot be read its
`problem` and its beginning as it came (`raw`), with all else null."""

_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
    "system": "system",
}


NAMES, NAME = 20, 40
"""Columns that a message names, and characters of each."""


class Malformed(Exception):
    """A row whose values are not what its columns promise. The text says why."""


# --- formats ------------------------------------------------------------------------------------


def from_messages(row: Row) -> Row:
    """A `messages` column of role and content."""
    return {"messages": _read_turns(row, "messages"), "answer": _read_answer(row)}


def from_sharegpt(row: Row) -> Row:
    """ShareGPT: `conversations` of from and value, and perhaps a `system` column."""
    turns = _read_turns(row, "conversations")
    system = _read_text(row, "system", needed=False)
    return {"messages": _with_system(system, turns), "answer": None}


def from_alpaca(row: Row) -> Row:
    """Alpaca: `instruction`, `input` (may be empty), `output`, and perhaps `system` and `history` (pairs of text)."""
    turns: Turns = []
    history = row.get("history") or []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise Malformed("history is no list of pairs of text")
        turns += [_turn(role, _whole(text, "history")) for role, text in zip(("user", "assistant"), pair, strict=True)]
    question = [_read_text(row, "instruction"), _read_text(row, "input", needed=False)]
    turns += [_turn("user", "\n".join(filter(None, question))), _turn("assistant", _read_text(row, "output") or "")]
    return {"messages": _with_system(_read_text(row, "system", needed=False), turns), "answer": None}


def from_prompt_completion(row: Row) -> Row:
    """`prompt` and `completion`, as text or as turns."""
    turns = [*_read_turns(row, "prompt", "user"), *_read_turns(row, "completion", "assistant")]
    return {"messages": turns, "answer": _read_answer(row)}


def from_problem_answer(row: Row) -> Row:
    """`problem` (or `question`), `answer`, and perhaps a worked `solution`, which is then what is learnt.

    GSM8K keeps both in `answer`: the working, and the answer alone behind `####`.
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
    """`chosen` and `rejected`, as answers alone beside a `prompt`, or as whole conversations that share theirs."""
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
    """A whole conversation in `messages`, and `label` for its last turn."""
    turns = _read_turns(row, "messages")
    return {"prompt": turns[:-1], "completion": turns[-1:], "label": _read_label(row)}


def from_prompt(row: Row) -> Row:
    """`prompt` alone, as text or as turns, and perhaps an `answer` to verify against."""
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
"""Each format's reader, and the columns that tell it."""


def find_format(columns: Collection[str], form: Form, wanted: Format, where: str) -> Format:
    """The format of rows with these columns.

    Raises:
        UserError: no format that `form` can be made from has these columns; `where` is the key to name.
    """
    candidates = FORMATS[form] if wanted == "auto" else (wanted,)
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
        f"{where}: {form} rows need a column {needs}, and the data set has {shown or 'none'}{more}"
        f"{hint} give `rename`, or another data set"
    )


def _find_lacking(candidate: Format, columns: Collection[str]) -> list[str]:
    """The columns of a format that are not there; of several that would do, the first."""
    choices = [column.split("|") for column in _READERS[candidate][1]]
    return [names[0] for names in choices if not any(name in columns for name in names)]


def to_form(row: Row, form: Form, found: Format) -> Row:
    """The row in the schema of `form`, without its `source_index`.

    Raises:
        Malformed: its values are not what its columns promise.
    """
    read = _READERS[found][0](row)
    if form != "prompt" or "prompt" in read:
        return read
    turns = read["messages"]
    prompt = turns[:-1] if turns[-1]["role"] == "assistant" else turns
    if not prompt:
        raise Malformed("there is an answer, and nothing that it answers")
    return {"prompt": prompt, "answer": read["answer"]}


def read_group(row: Row, column: str) -> str | None:
    """The value of the column that samples are balanced over, as text.

    Raises:
        Malformed: it is no single value.
    """
    value = row.get(column)
    if isinstance(value, list | dict):
        raise Malformed(f"{column} is {_name_type(value)}, not a value to balance over")
    return None if value is None else _whole(str(value), column)


# --- values -------------------------------------------------------------------------------------


def _read_turns(row: Row, column: str, role: str | None = None) -> Turns:
    """Turns as a list of role and content, at least one. Plain text becomes one turn of `role`."""
    value = row.get(column)
    if isinstance(value, str) and role is not None:
        return [_turn(role, _whole(value, column))]
    if not isinstance(value, list):
        raise Malformed(f"{column} is {_name_type(value)}, not a list of turns{' or text' if role else ''}")
    if not value:
        raise Malformed(f"{column} has no turn")
    turns = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, dict):
            raise Malformed(f"{column}: turn {number} is {_name_type(turn)}, not a role and its content")
        said = turn.get("role", turn.get("from"))
        known = _ROLES.get(said) if isinstance(said, str) else None
        if known is None:
            raise Malformed(
                f"{column}: turn {number} has the role {str(said)[:40]!r}; user, assistant and system are known"
            )
        turns.append(_turn(known, _join_text(turn.get("content", turn.get("value")), f"{column}: turn {number}")))
    return turns


def _join_text(value: Any, where: str) -> str:
    """The text of a turn: text itself, or a list of parts that are all text."""
    if isinstance(value, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value):
        value = "".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise Malformed(f"{where}: the content is {_name_type(value)}, not text")
    return _whole(value, where)


def _either(row: Row, *columns: str) -> str:
    """The first of these columns that has a value; the first one when none has."""
    return next((column for column in columns if row.get(column) is not None), columns[0])


def _read_text(row: Row, column: str, needed: bool = True) -> str | None:
    value = row.get(column)
    if value is None and not needed:
        return None
    if not isinstance(value, str):
        raise Malformed(f"{column} is {_name_type(value)}, not text")
    return _whole(value, column)


def _read_answer(row: Row) -> str | None:
    """What can be verified: text or a number; other values, such as a list of options, cannot."""
    value = row.get("answer")
    if isinstance(value, str):
        return _whole(value, "answer")
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
        number = float(value)  # a table has numbers as text
    except ValueError:
        raise Malformed(f"{column} is text, not a number") from None
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Malformed(f"{column} is not a finite number")
    return number


def _read_label(row: Row) -> bool:
    value = row.get("label")
    if isinstance(value, str):  # as tables have it
        value = {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower(), value)
    if value in (0, 1) and isinstance(value, bool | int):
        return bool(value)
    raise Malformed(f"label is {_name_type(value)}, not true or false")


def _whole(text: str, where: str) -> str:
    """The text, when it can be written: JSON can name half a character (a lone surrogate), which no file can hold."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Malformed(f"{where}: half a character (a lone surrogate) in the text") from None
    return text


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _with_system(system: str | None, turns: Turns) -> Turns:
    return [_turn("system", system), *turns] if system else turns


def _name_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "missing" if value is None else names.get(type(value), type(value).__name__)


# --- what all kinds have ------------------------------------------------------------------------


def sides(row: Row) -> list[Turns]:
    """The conversations of a row: one, or the chosen and the rejected one."""
    if "messages" in row:
        return [row["messages"]]
    if "chosen" in row:
        return [row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]]
    return [row["prompt"] + row.get("completion", [])]


def answers(row: Row) -> list[str]:
    """The answers of a row, the preferred one first; none when it is a prompt."""
    if "messages" in row:
        return [row["messages"][-1]["content"]]
    return [row[side][-1]["content"] for side in ("chosen", "rejected", "completion") if side in row]
