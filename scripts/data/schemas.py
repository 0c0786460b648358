"""One schema a kind of rows, whatever the columns that a data set came with.

Messages rows: `messages` (list of role and content) and `answer` (text that can be verified, or null).
Preference rows: `prompt`, `chosen`, `rejected` (lists of role and content), `score_chosen`, `score_rejected` (or null).
Both: `source_index`, the number of the row in the source.
"""

from typing import Any, Literal

import pyarrow as pa

Form = Literal["messages", "preference"]
Row = dict[str, Any]

TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

SCHEMAS: dict[Form, pa.Schema] = {
    "messages": pa.schema([("source_index", pa.int64()), ("messages", TURNS), ("answer", pa.string())]),
    "preference": pa.schema(
        [
            ("source_index", pa.int64()),
            ("prompt", TURNS),
            ("chosen", TURNS),
            ("rejected", TURNS),
            ("score_chosen", pa.float64()),
            ("score_rejected", pa.float64()),
        ]
    ),
}

NEEDED: dict[Form, tuple[str, ...]] = {"messages": ("messages",), "preference": ("chosen", "rejected")}


def to_form(row: Row, index: int, form: Form) -> Row | None:
    """The row in our schema, or None when its values are not what its columns promise."""
    return to_messages(row, index) if form == "messages" else to_preference(row, index)


def to_messages(row: Row, index: int) -> Row | None:
    """A row with a `messages` column."""
    messages = read_turns(row["messages"])
    if not messages:
        return None
    answer = row.get("answer")
    return {"source_index": index, "messages": messages, "answer": None if answer is None else str(answer)}


def to_preference(row: Row, index: int) -> Row | None:
    """A row with `chosen` and `rejected`, as answers alone or as whole conversations that share their prompt."""
    chosen, rejected = read_turns(row["chosen"], "assistant"), read_turns(row["rejected"], "assistant")
    if not chosen or not rejected:
        return None
    prompt = chosen[:-1] if len(chosen) > 1 else read_turns(row.get("prompt"), "user")
    other_prompt = rejected[:-1] if len(rejected) > 1 else prompt
    if not prompt or prompt != other_prompt:
        return None
    scores = [row.get(column) for column in ("score_chosen", "score_rejected")]
    if any(score is not None and not isinstance(score, int | float) for score in scores):
        return None
    return {
        "source_index": index,
        "prompt": prompt,
        "chosen": chosen[-1:],
        "rejected": rejected[-1:],
        "score_chosen": scores[0],
        "score_rejected": scores[1],
    }


def read_turns(value: Any, role: str | None = None) -> list[dict[str, str]] | None:
    """Turns as a list of role and content. Plain text becomes one turn of `role`; None when it is neither."""
    if isinstance(value, str) and role is not None:
        return [{"role": role, "content": value}]
    if not isinstance(value, list):
        return None
    turns = []
    for turn in value:
        if not isinstance(turn, dict) or turn.get("role") not in ("system", "user", "assistant"):
            return None
        if not isinstance(turn.get("content"), str):
            return None
        turns.append({"role": turn["role"], "content": turn["content"]})
    return turns


def sides(row: Row) -> list[list[dict[str, str]]]:
    """The conversations of a row: one, or the chosen and the rejected one."""
    if "messages" in row:
        return [row["messages"]]
    return [row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]]


def prompt_text(row: Row) -> str:
    """What the user says before the last answer."""
    turns = row["messages"] if "messages" in row else row["prompt"]
    return "\n".join(turn["content"] for turn in turns if turn["role"] == "user")
