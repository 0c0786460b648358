"""Rows of every shape become one schema, or are counted as broken; none ends the run."""

from typing import Any

import pyarrow as pa
import pytest

from scripts.data.schemas import SCHEMAS, prompt_text, sides, to_form, to_messages, to_preference

USER = {"role": "user", "content": "2 + 2?"}
RIGHT = {"role": "assistant", "content": "4"}
WRONG = {"role": "assistant", "content": "5"}


def test_messages() -> None:
    row = {"messages": [USER | {"extra": 1}, RIGHT], "answer": 4, "source": "x"}
    assert to_messages(row, 7) == {"source_index": 7, "messages": [USER, RIGHT], "answer": "4"}


def test_messages_without_an_answer_to_verify() -> None:
    assert to_messages({"messages": [USER, RIGHT]}, 0) == {"source_index": 0, "messages": [USER, RIGHT], "answer": None}


@pytest.mark.parametrize(
    "messages",
    [
        None,
        "2 + 2?",
        [None],
        ["2 + 2?"],
        [{"role": "user"}],
        [{"content": "2 + 2?"}],
        [USER, {"role": "assistant", "content": None}],
        [USER, {"role": "assistant", "content": 4}],
        [USER, {"role": "tool", "content": "4"}],
        {"role": "user", "content": "2 + 2?"},
    ],
    ids=str,
)
def test_broken_messages(messages: Any) -> None:
    assert to_messages({"messages": messages}, 0) is None


def test_preference_as_text() -> None:
    assert to_preference({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}, 3) == {
        "source_index": 3,
        "prompt": [USER],
        "chosen": [RIGHT],
        "rejected": [WRONG],
        "score_chosen": None,
        "score_rejected": None,
    }


def test_preference_as_in_ultrafeedback_binarized() -> None:
    """There `chosen` and `rejected` are whole conversations, and `prompt` is text."""
    row = {
        "prompt": "2 + 2?",
        "prompt_id": "f0e3",
        "chosen": [USER, RIGHT],
        "rejected": [USER, WRONG],
        "messages": [USER, RIGHT],
        "score_chosen": 8.5,
        "score_rejected": 4,
    }
    found = to_preference(row, 0)
    assert found is not None
    assert (found["prompt"], found["chosen"], found["rejected"]) == ([USER], [RIGHT], [WRONG])
    assert (found["score_chosen"], found["score_rejected"]) == (8.5, 4)


def test_preference_with_a_conversation_before_the_answers() -> None:
    earlier = [{"role": "system", "content": "Be brief."}, USER, RIGHT, USER]
    found = to_preference({"chosen": [*earlier, RIGHT], "rejected": [*earlier, WRONG]}, 0)
    assert found is not None and found["prompt"] == earlier
    assert to_preference({"prompt": earlier, "chosen": [RIGHT], "rejected": [WRONG]}, 0) == found


GOOD = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}


@pytest.mark.parametrize(
    "change",
    [
        {"chosen": None},
        {"rejected": []},
        {"prompt": None},
        {"prompt": []},
        {"chosen": 4},
        {"chosen": [USER, RIGHT], "rejected": [{"role": "user", "content": "3 + 3?"}, WRONG]},
        {"chosen": [USER, {"role": "assistant"}]},
        {"score_chosen": "8.5"},
        {"score_rejected": [1]},
    ],
    ids=str,
)
def test_broken_pairs(change: dict[str, Any]) -> None:
    assert to_preference(GOOD, 0) is not None
    assert to_preference(GOOD | change, 0) is None


def test_rows_fit_their_schema() -> None:
    """Parquet is written with these schemas: a row must have their columns, in their types."""
    for form, row in (
        ("messages", {"messages": [USER, RIGHT], "answer": 4}),
        ("preference", GOOD | {"score_chosen": 1}),
    ):
        schema = SCHEMAS[form]  # type: ignore[index]
        found = to_form(row, 0, form)  # type: ignore[arg-type]
        assert found is not None and list(found) == schema.names
        assert pa.Table.from_pylist([found], schema=schema).to_pylist() == [found]


def test_sides_and_prompt() -> None:
    pair = to_preference(GOOD, 0)
    assert pair is not None
    assert sides(pair) == [[USER, RIGHT], [USER, WRONG]]
    turns = [{"role": "system", "content": "s"}, USER, RIGHT, {"role": "user", "content": "sure?"}, RIGHT]
    assert prompt_text({"messages": turns}) == "2 + 2?\nsure?"
