"""Rows of every format are converted to one schema, or get a problem. No row ends the run."""

import math
from typing import Any

import pyarrow as pa
import pytest

from scripts.common.config import FORMATS, RowType
from scripts.common.errors import UserError
from scripts.data.schemas import (
    SCHEMAS,
    SOURCE_SCHEMAS,
    Malformed,
    answers,
    find_format,
    read_group,
    sides,
    to_row_type,
)

USER = {"role": "user", "content": "2 + 2?"}
RIGHT = {"role": "assistant", "content": "4"}
WRONG = {"role": "assistant", "content": "5"}
SYSTEM = {"role": "system", "content": "Be brief."}
AGAIN = {"role": "user", "content": "Sure?"}
HALF = "half \ud800 a character"

ROWS: dict[Any, dict[str, Any]] = {
    "messages": {"messages": [USER | {"extra": 1}, RIGHT], "answer": 4, "source": "x"},
    "sharegpt": {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
    "alpaca": {"instruction": "2 + 2?", "input": "", "output": "4"},
    "prompt_completion": {"prompt": "2 + 2?", "completion": "4"},
    "problem_answer": {"question": "2 + 2?", "answer": "4"},
    "preference": {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
    "kto": {"prompt": "2 + 2?", "completion": "4", "label": True},
    "kto_messages": {"messages": [USER, RIGHT], "label": True},
    "prompt": {"prompt": "2 + 2?"},
}
"""A small well-formed row of every format."""

VERIFIED = ("messages", "problem_answer")
"""Formats whose row above has an answer that can be verified."""

MADE = [(row_type, name) for row_type, formats in FORMATS.items() for name in formats]


def _read(row: dict[str, Any], row_type: RowType, wanted: Any = "auto") -> dict[str, Any]:
    """The row in the schema of `row_type`, with the format found from its columns."""
    return to_row_type(row, row_type, find_format(row.keys(), row_type, wanted, "datasets.mine"))


# --- every format -------------------------------------------------------------------------------


def test_every_format_has_an_example() -> None:
    assert {name for _, name in MADE} == set(ROWS)


@pytest.mark.parametrize(("row_type", "name"), MADE)
@pytest.mark.parametrize("wanted", ["auto", "by its name"])
def test_every_format_gives_every_row_type_that_it_can(row_type: RowType, name: Any, wanted: str) -> None:
    row = ROWS[name]
    found = find_format(row.keys(), row_type, "auto" if wanted == "auto" else name, "datasets.mine")
    assert found == name
    made = to_row_type(row, row_type, found)
    answer = "4" if name in VERIFIED else None
    assert (
        made
        == {
            "messages": {"messages": [USER, RIGHT], "answer": answer},
            "preference": {
                **{"prompt": [USER], "chosen": [RIGHT], "rejected": [WRONG]},
                **{"score_chosen": None, "score_rejected": None},
            },
            "kto": {"prompt": [USER], "completion": [RIGHT], "label": True},
            "prompt": {"prompt": [USER], "answer": answer},
        }[row_type]
    )
    assert ["source_index", *made] == SCHEMAS[row_type].names
    for schema in (SCHEMAS[row_type], SOURCE_SCHEMAS[row_type]):
        whole = dict.fromkeys(schema.names) | made | {"source_index": 7}
        assert pa.Table.from_pylist([whole], schema=schema).to_pylist() == [whole]


def test_the_first_matching_format_is_used() -> None:
    assert find_format(["prompt", "completion", "messages"], "messages", "auto", "") == "messages"
    assert find_format(["prompt", "completion", "messages"], "messages", "prompt_completion", "") == "prompt_completion"
    assert find_format(["prompt", "completion", "label", "messages"], "kto", "auto", "") == "kto"
    assert find_format(["problem", "answer", "prompt"], "prompt", "auto", "") == "problem_answer"
    assert find_format(["question", "answer", "messages"], "messages", "problem_answer", "") == "problem_answer"


@pytest.mark.parametrize(
    ("columns", "row_type", "wanted", "said"),
    [
        (
            ["mesages", "id"],
            "messages",
            "auto",
            "datasets.mine: messages rows need a column 'messages'; or 'conversations'; or 'instruction' and 'output'; "
            "or 'prompt' and 'completion'; or 'problem|question' and 'answer', and the data set has 'id', 'mesages'; "
            "did you mean 'mesages'? set `rename`, or use another data set",
        ),
        (["conversation"], "messages", "auto", "; did you mean 'conversation'? set `rename`"),
        (["instruction", "ouput"], "messages", "auto", "; did you mean 'ouput'? set `rename`"),
        (["mesages", "instruction", "ouput"], "messages", "auto", "; did you mean 'ouput'? set `rename`"),
        (["prompt", "chosen", "rejectd"], "preference", "auto", "; did you mean 'rejectd'? set `rename`"),
        (["messages", "labels"], "kto", "auto", "; did you mean 'labels'? set `rename`"),
        (["messages"], "messages", "alpaca", "need a column 'instruction' and 'output', and the data set has 'mess"),
        (["x"], "prompt", "auto", "and the data set has 'x'; set `rename`, or use another data set"),
        ([], "preference", "auto", "and the data set has none; set `rename`, or use another data set"),
        ([f"c{i:03}" for i in range(500)], "kto", "kto", "'c018', 'c019' and 480 more; set `rename`"),
        (["a\nb", HALF], "kto", "kto", r"the data set has 'a\nb', 'half \ud800 a character'; set"),
    ],
)
def test_unknown_columns_give_one_line(columns: list[str], row_type: RowType, wanted: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        find_format(columns, row_type, wanted, "datasets.mine")
    text = str(caught.value)
    assert said in text
    assert "\n" not in text and len(text.encode()) < 1500


# --- real data sets -----------------------------------------------------------------------------

ULTRAFEEDBACK = {
    "prompt": "2 + 2?",
    "prompt_id": "f0e37e9f7800261167ce91143f98f511f768847236f133f2d0aed60b444ebe57",
    "chosen": [{"content": "2 + 2?", "role": "user"}, {"content": "4", "role": "assistant"}],
    "rejected": [{"content": "2 + 2?", "role": "user"}, {"content": "5", "role": "assistant"}],
    "messages": [{"content": "2 + 2?", "role": "user"}, {"content": "4", "role": "assistant"}],
    "score_chosen": 8.5,
    "score_rejected": 4,
}
"""The columns of HuggingFaceH4/ultrafeedback_binarized."""


def test_ultrafeedback_binarized() -> None:
    """`chosen` and `rejected` are complete conversations, and `prompt` is text."""
    assert _read(ULTRAFEEDBACK, "preference") == {
        "prompt": [USER],
        "chosen": [RIGHT],
        "rejected": [WRONG],
        "score_chosen": 8.5,
        "score_rejected": 4.0,
    }
    assert _read(ULTRAFEEDBACK, "messages") == {"messages": [USER, RIGHT], "answer": None}
    assert _read(ULTRAFEEDBACK, "prompt") == {"prompt": [USER], "answer": None}


def test_gsm8k() -> None:
    row = {"question": "Janet has 2 ducks, and buys 2.", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}
    turns = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
    assert _read(row, "messages") == {"messages": turns, "answer": "4"}
    assert _read(row, "prompt") == {"prompt": turns[:1], "answer": "4"}


def test_the_answer_of_gsm8k_follows_the_last_mark() -> None:
    row = {"question": "2 + 2?", "answer": "First #### 2 ducks, then 2 more.\n#### 4"}
    trained = {"role": "assistant", "content": row["answer"]}
    assert _read(row, "messages") == {"messages": [USER, trained], "answer": "4"}


def test_math_500() -> None:
    """The worked solution is trained on, and the short answer is verified."""
    row = {"problem": "2 + 2?", "solution": "It is $\\boxed{4}$.", "answer": "4", "subject": "Algebra", "level": 1}
    trained = {"role": "assistant", "content": "It is $\\boxed{4}$."}
    assert _read(row, "messages") == {"messages": [USER, trained], "answer": "4"}
    assert _read(row, "prompt") == {"prompt": [USER], "answer": "4"}
    assert _read(row | {"solution": None}, "messages") == {"messages": [USER, RIGHT], "answer": "4"}


def test_a_problem_takes_precedence_over_a_question_unless_it_is_null() -> None:
    row = {"problem": None, "question": "2 + 2?", "answer": 4}
    assert _read(row, "messages")["messages"] == [USER, RIGHT]
    assert _read(row | {"problem": "Sure?"}, "messages")["messages"] == [AGAIN, RIGHT]


# --- what formats allow -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "known"),
    [
        *[(name, "user") for name in ("user", "human")],
        *[(name, "assistant") for name in ("assistant", "gpt", "chatgpt", "bot", "model")],
        ("system", "system"),
    ],
)
def test_names_of_roles(role: str, known: str) -> None:
    assert _read({"conversations": [{"from": role, "value": "x"}]}, "messages")["messages"] == [
        {"role": known, "content": "x"}
    ]
    assert _read({"messages": [{"role": role, "content": "x"}]}, "messages")["messages"][0]["role"] == known


def test_system_prompts_in_their_own_column() -> None:
    turns = [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]
    assert _read({"conversations": turns, "system": "Be brief."}, "messages")["messages"] == [SYSTEM, USER, RIGHT]
    assert _read({"conversations": turns, "system": ""}, "messages")["messages"] == [USER, RIGHT]
    row = {"instruction": "2 + 2?", "output": "4", "system": "Be brief."}
    assert _read(row, "messages")["messages"] == [SYSTEM, USER, RIGHT]


def test_alpaca_with_input_and_history() -> None:
    row = {"instruction": "Add.", "input": "2 + 2", "output": "4", "history": [["2 + 2?", "5"], ["Sure?", "4"]]}
    assert _read(row, "messages")["messages"] == [
        *(USER, WRONG, AGAIN, RIGHT),
        {"role": "user", "content": "Add.\n2 + 2"},
        RIGHT,
    ]
    nothings: list[dict[str, Any]] = [{"history": None}, {"history": []}, {"history": ""}]
    for nothing in nothings:
        assert len(_read(row | nothing, "messages")["messages"]) == 2


@pytest.mark.parametrize("name", ["prompt_completion", "kto"])
def test_prompts_and_completions_as_turns(name: str) -> None:
    row_type: RowType = "kto" if name == "kto" else "messages"
    turns = ROWS[name] | {"prompt": [SYSTEM, USER], "completion": [RIGHT]}
    made = _read(turns, row_type)
    assert sides(made) == [[SYSTEM, USER, RIGHT]]
    assert answers(made) == ["4"]


def test_preference_with_a_conversation_before_the_answers() -> None:
    earlier = [SYSTEM, USER, WRONG, AGAIN]
    found = _read({"chosen": [*earlier, RIGHT], "rejected": [*earlier, WRONG]}, "preference")
    assert (found["prompt"], found["chosen"], found["rejected"]) == (earlier, [RIGHT], [WRONG])
    assert _read({"prompt": earlier, "chosen": [RIGHT], "rejected": [WRONG]}, "preference") == found
    assert _read({"prompt": earlier, "chosen": "4", "rejected": "5"}, "preference") == found
    assert _read({"question": earlier, "chosen": "4", "rejected": [WRONG]}, "preference") == found
    assert _read({"prompt": "ignored", "chosen": [*earlier, RIGHT], "rejected": "5"}, "preference") == found


@pytest.mark.parametrize(
    ("label", "read"), [(True, True), (False, False), (1, True), (0, False), ("True", True), ("0", False)]
)
def test_labels(label: Any, read: bool) -> None:
    assert _read(ROWS["kto"] | {"label": label}, "kto")["label"] is read
    assert _read(ROWS["kto_messages"] | {"label": label}, "kto")["label"] is read


def test_prompts_of_conversations_end_with_a_user_turn() -> None:
    row = {"messages": [USER, RIGHT, AGAIN]}
    assert _read(row, "prompt")["prompt"] == [USER, RIGHT, AGAIN]
    assert _read({"messages": [*row["messages"], RIGHT]}, "prompt")["prompt"] == [USER, RIGHT, AGAIN]
    with pytest.raises(Malformed, match="there is an answer without a prompt"):
        _read({"messages": [RIGHT]}, "prompt")


def test_content_as_a_list_of_text_parts() -> None:
    parts = [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}]
    assert _read({"messages": [USER | {"content": parts}, RIGHT]}, "messages")["messages"] == [USER, RIGHT]
    picture = [*parts, {"type": "image", "image_url": "x.png"}]
    with pytest.raises(Malformed, match="messages: turn 1: the content is a list, not text"):
        _read({"messages": [USER | {"content": picture}, RIGHT]}, "messages")


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        *[("4", "4"), (4, "4"), (4.0, "4"), (4.5, "4.5"), (10**30, "1" + "0" * 30), (None, None), (True, None)],
        *[(["4"], None), ({"x": 4}, None), (math.nan, None), (math.inf, None)],
    ],
    ids=repr,
)
def test_answers_to_verify(answer: Any, read: str | None) -> None:
    assert _read({"messages": [USER, RIGHT], "answer": answer}, "messages")["answer"] == read


# --- refusals -----------------------------------------------------------------------------------

REFUSED: list[tuple[str, RowType, dict[str, Any], str]] = [
    ("messages", "messages", {"messages": None}, "messages is missing, not a list of turns"),
    ("messages", "messages", {"messages": "2 + 2?"}, "messages is text, not a list of turns"),
    ("messages", "messages", {"messages": USER}, "messages is an object, not a list of turns"),
    ("messages", "messages", {"messages": 4}, "messages is a number, not a list of turns"),
    ("messages", "messages", {"messages": b"x"}, "messages is bytes, not a list of turns"),
    ("messages", "messages", {"messages": []}, "messages has no turns"),
    ("messages", "messages", {"messages": [None]}, "messages: turn 1 is missing, not a role and its content"),
    ("messages", "messages", {"messages": [USER, "4"]}, "messages: turn 2 is text, not a role and its content"),
    ("messages", "messages", {"messages": [[USER]]}, "messages: turn 1 is a list, not a role and its content"),
    (
        "messages",
        "messages",
        {"messages": [USER, {"role": "tool", "content": "4"}]},
        "messages: turn 2 has the role 'tool'; user, assistant and system are known",
    ),
    (
        "messages",
        "messages",
        {"messages": [{"role": HALF + "x" * 99, "content": "4"}]},
        r"messages: turn 1 has the role 'half \ud800 a characterxxxxxxxxxxxxxxxxxxxxxx'; user, assistant and system",
    ),
    ("messages", "messages", {"messages": [{"content": "4"}]}, "messages: turn 1 has the role 'None'; user"),
    ("messages", "messages", {"messages": [{"role": ["user"], "content": "4"}]}, "turn 1 has the role \"['user']\""),
    ("messages", "messages", {"messages": [{"role": "user"}]}, "messages: turn 1: the content is missing, not text"),
    (
        "messages",
        "messages",
        {"messages": [USER | {"content": 4}]},
        "messages: turn 1: the content is a number, not te",
    ),
    ("messages", "messages", {"messages": [USER | {"content": True}]}, "the content is true or false, not text"),
    ("messages", "messages", {"messages": [USER | {"content": {"text": "x"}}]}, "the content is an object, not text"),
    ("sharegpt", "messages", {"conversations": "x"}, "conversations is text, not a list of turns"),
    ("sharegpt", "prompt", {"system": 4}, "system is a number, not text"),
    ("alpaca", "messages", {"output": None}, "output is missing, not text"),
    ("alpaca", "messages", {"instruction": ["x"]}, "instruction is a list, not text"),
    ("alpaca", "prompt", {"input": 4}, "input is a number, not text"),
    ("alpaca", "messages", {"history": [["2 + 2?"]]}, "history is not a list of pairs of text"),
    ("alpaca", "messages", {"history": [["2 + 2?", None]]}, "history is not a list of pairs of text"),
    ("alpaca", "messages", {"history": "2 + 2? 4"}, "history is not a list of pairs of text"),
    ("prompt_completion", "messages", {"prompt": 4}, "prompt is a number, not a list of turns or text"),
    ("prompt_completion", "messages", {"completion": []}, "completion has no turns"),
    ("problem_answer", "messages", {"question": None}, "problem is missing, not text"),
    ("problem_answer", "messages", {"answer": None}, "answer is missing"),
    ("problem_answer", "prompt", {"answer": ["4"]}, "answer is missing"),
    ("problem_answer", "prompt", {"solution": 4}, "solution is a number, not text"),
    ("preference", "preference", {"prompt": None}, "prompt is missing, not a list of turns or text"),
    ("preference", "preference", {"prompt": []}, "prompt has no turns"),
    ("preference", "preference", {"chosen": None}, "chosen is missing, not a list of turns or text"),
    ("preference", "preference", {"rejected": 5}, "rejected is a number, not a list of turns or text"),
    ("preference", "preference", {"rejected": []}, "rejected has no turns"),
    ("preference", "preference", {"rejected": [AGAIN, WRONG]}, "chosen and rejected answer different prompts"),
    (
        "preference",
        "preference",
        {"chosen": [USER, RIGHT], "rejected": [AGAIN, WRONG]},
        "chosen and rejected answer different prompts",
    ),
    ("preference", "preference", {"score_chosen": "good"}, "score_chosen is text, not a number"),
    ("preference", "preference", {"score_rejected": [1]}, "score_rejected is a list, not a number"),
    ("preference", "preference", {"score_rejected": True}, "score_rejected is true or false, not a number"),
    ("preference", "preference", {"score_chosen": math.nan}, "score_chosen is not a finite number"),
    ("preference", "preference", {"score_chosen": -math.inf}, "score_chosen is not a finite number"),
    ("preference", "preference", {"score_rejected": 10**400}, "score_rejected is not a finite number"),
    ("kto", "kto", {"label": None}, "label is missing, not true or false"),
    ("kto", "kto", {"label": "yes"}, "label is text, not true or false"),
    ("kto", "kto", {"label": 2}, "label is a number, not true or false"),
    ("kto", "kto", {"label": 1.0}, "label is a number, not true or false"),
    ("kto", "kto", {"label": [1]}, "label is a list, not true or false"),
    ("kto", "kto", {"completion": None}, "completion is missing, not a list of turns or text"),
    ("kto_messages", "kto", {"messages": []}, "messages has no turns"),
    ("prompt", "prompt", {"prompt": None}, "prompt is missing, not a list of turns or text"),
]

HALVES: list[tuple[str, RowType, dict[str, Any], str]] = [
    ("messages", "messages", {"messages": [USER, RIGHT | {"content": HALF}]}, "messages: turn 2"),
    ("messages", "messages", {"messages": [USER | {"content": [{"text": HALF}]}]}, "messages: turn 1"),
    ("messages", "messages", {"answer": HALF}, "answer"),
    ("sharegpt", "messages", {"conversations": [{"from": "human", "value": HALF}]}, "conversations: turn 1"),
    ("sharegpt", "messages", {"system": HALF}, "system"),
    ("alpaca", "messages", {"instruction": HALF}, "instruction"),
    ("alpaca", "messages", {"input": HALF}, "input"),
    ("alpaca", "messages", {"output": HALF}, "output"),
    ("alpaca", "messages", {"history": [["2 + 2?", HALF]]}, "history"),
    ("prompt_completion", "messages", {"prompt": HALF}, "prompt"),
    ("prompt_completion", "messages", {"completion": HALF}, "completion"),
    ("problem_answer", "messages", {"question": HALF}, "question"),
    ("problem_answer", "messages", {"solution": HALF}, "solution"),
    ("problem_answer", "prompt", {"answer": HALF}, "answer"),
    ("preference", "preference", {"chosen": HALF}, "chosen"),
    ("preference", "preference", {"rejected": HALF}, "rejected"),
    ("preference", "preference", {"prompt": HALF}, "prompt"),
    ("kto", "kto", {"completion": HALF}, "completion"),
    ("kto_messages", "kto", {"messages": [USER | {"content": HALF}, RIGHT]}, "messages: turn 1"),
    ("prompt", "prompt", {"prompt": HALF}, "prompt"),
]
"""JSON can contain a lone surrogate, which cannot be written as UTF-8."""


@pytest.mark.parametrize(
    ("name", "row_type", "change", "said"),
    REFUSED + [(*case, f"{where}: a lone surrogate (half a character) in the text") for *case, where in HALVES],
)
def test_malformed_rows(name: Any, row_type: RowType, change: dict[str, Any], said: str) -> None:
    to_row_type(ROWS[name], row_type, name)
    with pytest.raises(Malformed) as caught:
        to_row_type(ROWS[name] | change, row_type, name)
    text = str(caught.value)
    assert said in text
    assert len(text.encode()) < 150 and "\n" not in text, "it fits a table and is shown on one line"


def test_complete_characters_beyond_ascii_are_kept() -> None:
    text = "中文 😀 e\u0301 \u2028"
    assert _read({"prompt": text, "completion": text}, "messages")["messages"][1]["content"] == text


# --- all row types ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "read"), [("algebra", "algebra"), (3, "3"), (1.5, "1.5"), (True, "True"), (None, None)]
)
def test_groups(value: Any, read: str | None) -> None:
    assert read_group({"kind": value}, "kind") == read
    assert read_group({}, "kind") is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (["a"], "kind is a list, not a value to balance over"),
        ({"a": 1}, "kind is an object, not a value to balance over"),
        (HALF, "kind: a lone surrogate (half a character) in the text"),
    ],
)
def test_values_that_are_not_groups(value: Any, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_group({"kind": value}, "kind")
    assert str(caught.value) == said


def test_sides_answers_and_prompt_of_every_row_type() -> None:
    pair = _read(ROWS["preference"], "preference")
    assert sides(pair) == [[USER, RIGHT], [USER, WRONG]]
    assert answers(pair) == ["4", "5"]
    asked = _read(ROWS["prompt"], "prompt")
    assert (sides(asked), answers(asked)) == ([[USER]], [])
    rated = _read(ROWS["kto_messages"], "kto")
    assert (sides(rated), answers(rated)) == ([[USER, RIGHT]], ["4"])
    trained = {"messages": [SYSTEM, USER, RIGHT, AGAIN, WRONG]}
    assert (sides(trained), answers(trained)) == ([trained["messages"]], ["5"])
