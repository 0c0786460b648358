"""Every row is accounted for: trained on, held out, or rejected by a filter with a name."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.common.config import Filters
from scripts.common.files import read_json, write_json_lines
from scripts.data.filter_dataset import (
    Step,
    apply_filters,
    describe_funnel,
    draw_sample,
    has_content,
    normalise,
    split_rows,
    token_counter,
)
from scripts.data.schemas import Form, Row, prompt_text
from tests.common.running import error_lines, run_script

OFF = {"empty": False, "control_tokens": False, "equal_answers": False, "duplicates": False, "benchmark_overlap": False}


def _chat(question: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _pair(question: str, chosen: str, rejected: str, *scores: float | None) -> Row:
    row: Row = {"prompt": question, "chosen": chosen, "rejected": rejected}
    return row | dict(zip(("score_chosen", "score_rejected"), scores, strict=False))


def _words(row: Row) -> int:
    """Stands in for the tokenizer: the words of the longest conversation."""
    turns = [row["messages"]] if "messages" in row else [row["prompt"] + row[side] for side in ("chosen", "rejected")]
    return max(sum(len(turn["content"].split()) for turn in side) for side in turns)


def _apply(
    rows: list[Row],
    form: Form = "messages",
    questions: set[str] | None = None,
    taken: set[str] | None = None,
    **on: Any,
) -> list[Step]:
    filters = Filters.model_validate(OFF | on)
    return list(apply_filters(rows, form, filters, _words, questions or set(), taken or set()))


def _kept(*args: Any, **on: Any) -> list[int]:
    steps = _apply(*args, **on)
    assert len(steps) == 2, "one filter is on, besides the schema"
    return [row["source_index"] for row in steps[-1].kept]


def test_all_filters_off_leave_all_rows() -> None:
    (schema,) = _apply([_chat("", ""), _chat("", ""), {"messages": None}])
    assert (schema.name, len(schema.kept), schema.removed) == ("schema", 2, [{"source_index": 2}])


def test_empty() -> None:
    only_user = {"messages": [{"role": "user", "content": "hello?"}]}
    only_assistant = {"messages": [{"role": "assistant", "content": "hello!"}]}
    user_last = {"messages": [*_chat("a", "b")["messages"], {"role": "user", "content": "c"}]}
    rows = [
        _chat("a", "b"),
        _chat("a", " \n"),
        _chat("\u3000", "b"),
        only_user,
        only_assistant,
        user_last,
        {"messages": []},
    ]
    assert _kept(rows, empty=True) == [0]
    assert _kept([_pair("q", "a", ""), _pair("q", "a", "b"), _pair(" ", "a", "b")], "preference", empty=True) == [1]


def test_control_tokens() -> None:
    rows = [_chat("a", "b"), _chat("a<|im_end|>", "b"), _chat("a", "<|im_start|>user"), _chat("<|im|>", "b")]
    assert _kept(rows, control_tokens=True) == [0, 3]


def test_equal_answers() -> None:
    rows = [_pair("q", "a", "b"), _pair("q", "a", " a\n"), _pair("q", "a", "A")]
    assert _kept(rows, "preference", equal_answers=True) == [0, 2]


def test_equal_answers_do_not_concern_messages() -> None:
    assert len(_apply([_chat("a", "a")], equal_answers=True, min_margin=1.0)) == 1


def test_min_margin() -> None:
    rows = [
        _pair("q", "a", "b", 5.0, 4.0),
        _pair("q", "a", "b", 5.0, 4.5),
        _pair("q", "a", "b", 4.0, 5.0),
        _pair("q", "a", "b", 5.0, None),
        _pair("q", "a", "b"),
        _pair("q", "a", "b", 5.0, float("nan")),
    ]
    assert _kept(rows, "preference", min_margin=1.0) == [0]
    assert _kept(rows, "preference", min_margin=0.0) == [0, 1], "a margin of zero still needs scores"


def test_bounds_of_tokens_are_inclusive_and_count_the_longer_side() -> None:
    rows = [_chat("one", "two"), _chat("one", "two three"), _chat("one", "two three four")]
    assert _kept(rows, min_tokens=3) == [1, 2]
    assert _kept(rows, max_tokens=3) == [0, 1]
    assert _kept([_pair("q", "a", "a b c"), _pair("q", "a b", "a")], "preference", max_tokens=3) == [1]


def test_duplicates_keep_the_first() -> None:
    rows = [_chat("Straße", "b"), _chat(" STRASSE\n", "b"), _chat("Straße", "c"), _chat("ﬁne", "x"), _chat("fine", "X")]
    assert _kept(rows, duplicates=True) == [0, 2, 3]


def test_texts_that_only_join_to_the_same_are_no_duplicates() -> None:
    assert _kept([_chat("a b", "c"), _chat("a", "b c")], duplicates=True) == [0, 1]


def test_benchmark_overlap_and_not_in() -> None:
    rows = [_chat("What is  2 + 2?", "4"), _chat("What is 2 + 3?", "5")]
    assert _kept(rows, "messages", {normalise("what is 2 + 2?")}, benchmark_overlap=True) == [1]
    assert _kept(rows, "messages", None, {normalise("what is 2 + 3?")}, not_in=["other"]) == [0]


def test_filters_run_in_the_documented_order() -> None:
    on: dict[str, Any] = dict.fromkeys(OFF, True) | {
        "min_margin": 0.5,
        "min_tokens": 1,
        "max_tokens": 9,
        "not_in": ["other"],
    }
    order = [name for name in Filters.model_fields if name in on]
    assert [step.name for step in _apply([], "preference", **on)] == ["schema", *order]


def test_a_row_with_no_turn_is_no_crash(tiny_model: Path) -> None:
    """With `empty: false` the tokenizer gets to see what the filter would have removed."""
    filters = Filters.model_validate(OFF | {"max_tokens": 100})
    steps = list(apply_filters([{"messages": []}], "messages", filters, token_counter(tiny_model), set(), set()))
    assert len(steps) == 2


def test_tokens_are_those_of_the_templated_row(tiny_model: Path) -> None:
    """The tiny tokenizer knows bytes and whole ChatML marks, so the sum can be done by hand."""
    text = "user\nab" + "\n" + "assistant\nc" + "\n"
    row = _chat("ab", "c")
    assert token_counter(tiny_model)(row) == len(text) + 4
    pair = {
        "prompt": row["messages"][:1],
        "chosen": row["messages"][1:],
        "rejected": [{"role": "assistant", "content": "cde"}],
    }
    assert token_counter(tiny_model)(pair) == len(text) + 4 + 2


def test_sample_keeps_the_order_and_follows_the_seed() -> None:
    rows = [{"source_index": i} for i in range(50)]
    step = draw_sample(rows, 20, seed=1)
    drawn = [row["source_index"] for row in step.kept]
    assert len(drawn) == 20 and drawn == sorted(drawn)
    assert sorted(drawn + [row["source_index"] for row in step.removed]) == list(range(50))
    assert draw_sample(rows, 20, seed=1) == step != draw_sample(rows, 20, seed=2)
    assert draw_sample(rows, None, seed=1).kept == draw_sample(rows, 50, seed=1).kept == rows


def test_a_split_holds_out_what_was_asked_where_it_can() -> None:
    rows = [{"source_index": i} | _chat(f"question {i // 2}", "a") for i in range(40)]
    train, validation = split_rows(rows, 10, seed=3)
    assert (len(train), len(validation)) == (30, 10)
    assert split_rows(rows, 0, seed=3) == (rows, [])


def test_the_same_prompt_in_other_letters_stays_on_one_side() -> None:
    rows = [{"source_index": i} | _chat("Two  WORDS" if i % 2 else "two words\n", str(i)) for i in range(6)]
    assert split_rows(rows, 3, seed=3) == (rows, []), "six rows of one prompt do not fit among three"
    assert split_rows(rows, 6, seed=3) == ([], rows)


TEXT = st.sampled_from(["", " ", "a", "A", "b", "ﬁ", "fi", "a  b", "a b", "c\u2028d"])
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": TEXT | st.none()}
)
SCORE = st.none() | st.integers(0, 9) | st.floats(0, 10)
CHAT = st.builds(_chat, TEXT, TEXT) | st.fixed_dictionaries({"messages": st.none() | st.lists(TURN, max_size=4)})
PAIR = st.builds(_pair, TEXT, TEXT, TEXT, SCORE, SCORE) | st.fixed_dictionaries(
    {"prompt": st.none() | TEXT, "chosen": st.none() | st.lists(TURN, max_size=3), "rejected": TEXT}
)
FILTERS = st.fixed_dictionaries(
    {name: st.booleans() for name in OFF}
    | {"min_margin": st.none() | st.floats(0, 5)}
    | {name: st.none() | st.integers(1, 6) for name in ("min_tokens", "max_tokens")}
)


@given(
    st.tuples(st.just("messages"), st.lists(CHAT, max_size=30))
    | st.tuples(st.just("preference"), st.lists(PAIR, max_size=30)),
    FILTERS,
    st.none() | st.integers(1, 20),
    st.integers(0, 10),
    st.integers(0, 3),
)
def test_every_row_is_accounted_for(
    given_rows: tuple[Form, list[Row]], on: dict[str, Any], sample: int | None, held_out: int, seed: int
) -> None:
    form, raw = given_rows

    def run() -> tuple[list[Step], list[Row], list[Row]]:
        steps = _apply(raw, form, {"a", "fi"}, **on)
        steps.append(draw_sample(steps[-1].kept, sample, seed))
        return steps, *split_rows(steps[-1].kept, held_out, seed)

    steps, train, validation = run()
    assert run() == (steps, train, validation), "the same seed gives the same rows"
    everywhere = [*train, *validation, *(row for step in steps for row in step.removed)]
    assert sorted(row["source_index"] for row in everywhere) == list(range(len(raw)))
    assert len(validation) <= held_out
    prompts = [{normalise(prompt_text(row)) for row in rows} for rows in (train, validation)]
    assert prompts[0].isdisjoint(prompts[1])
    funnel = describe_funnel("x", form, len(raw), steps, len(train), len(validation))
    left = len(raw)
    for line in funnel["steps"]:
        left -= line["removed"]
        assert line["rows"] == left
    assert left == len(train) + len(validation)
    if on["empty"]:
        assert all(has_content(row) for row in train + validation)


def test_a_funnel_that_does_not_add_up_stops_the_run() -> None:
    with pytest.raises(AssertionError, match="does not add up"):
        describe_funnel("x", "messages", 3, [Step("schema", [{}, {}], [{}])], 1, 0)


OUTPUTS = {name: f"{name}.parquet" for name in ("train", "validation", "rejected")} | {
    "funnel": "funnel.json",
    "manifest": "manifest.json",
}


def _write_rows(folder: Path, rows: list[Row]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "source.parquet")
    return folder / "source.parquet"


def _options(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    source = {"kind": "file", "path": "x"}
    return {"name": "mine", "form": "messages", "config": {"source": source} | config, "seed": 7} | OUTPUTS | changes


def test_script_twice(tmp_path: Path, tiny_model: Path) -> None:
    rows = [_chat(f"question {i % 30}", "short" if i % 3 else " ") for i in range(60)]
    rows[4] = _chat("A question\u2028of a benchmark", "x")
    rows[5] = {"messages": [{"role": "tool", "content": "x"}]}
    asked = {
        "question": "Question: a question\u2028of a benchmark\nAnswer:",
        "texts": ["a question\u2028of a benchmark"],
    }
    write_json_lines(tmp_path / "q.jsonl", [asked])
    config = {"sample": 20, "validation": 8}
    options = _options(config, rows=_write_rows(tmp_path, rows), model=tiny_model, questions=[tmp_path / "q.jsonl"])
    made = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        run = run_script("data.filter_dataset", folder, **options)
        assert run.returncode == 0, run.stderr
        made.append({name: (folder / name).read_bytes() for name in OUTPUTS.values() if name != "manifest.json"})
    assert made[0] == made[1]

    folder = tmp_path / "first"
    tables = {name: pq.read_table(folder / OUTPUTS[name]).to_pylist() for name in ("train", "validation", "rejected")}
    assert sorted(row["source_index"] for table in tables.values() for row in table) == list(range(60))
    reasons = {row["source_index"]: row["step"] for row in tables["rejected"]}
    assert (reasons[4], reasons[5], reasons[0]) == ("benchmark_overlap", "schema", "empty")
    assert all(json.loads(row["row"]) == rows[row["source_index"]] for row in tables["rejected"])
    funnel = read_json(folder / "funnel.json")
    for line in funnel["steps"][1:]:
        assert line["removed"] == list(reasons.values()).count(line["step"])
    assert funnel["splits"] == {"train": len(tables["train"]), "validation": len(tables["validation"])}
    facts = read_json(folder / "manifest.json")["facts"]
    assert (facts["train_rows"], facts["validation_rows"]) == (len(tables["train"]), len(tables["validation"]))


@pytest.mark.parametrize(
    ("rows", "config", "line"),
    [
        (
            [_chat("a", ""), _chat("b", ""), _chat("c", "d")],
            {"validation": 5},
            "no row is left to train on after filtering (3 read, 2 removed by empty, 1 held out); "
            "loosen datasets.mine.filters",
        ),
        (
            [{"message": "a"}],
            {},
            "messages rows need a column 'messages', which the data set does not have; did you mean 'message'?",
        ),
    ],
    ids=["nothing left", "no column"],
)
def test_script_refuses(tmp_path: Path, rows: list[Row], config: dict[str, Any], line: str) -> None:
    source = _write_rows(tmp_path / "in", rows)
    folder = tmp_path / "out"
    folder.mkdir()
    run = run_script("data.filter_dataset", folder, **_options(config, rows=source, model="no tokens are counted"))
    assert error_lines(run) == [f"error: datasets.mine: {line}"]
    assert list(folder.iterdir()) == [], "a refused data set leaves nothing behind"
