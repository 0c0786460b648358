"""Every row is accounted for: it is trained on, held out, or rejected by a named filter."""

import hashlib
import json
import os
import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory, mkstemp
from typing import Any
from weakref import finalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.common.config import Dataset, Filters, RowType, Sample
from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json_lines
from scripts.common.paths import SPLITS
from scripts.common.records import FunnelStep, Turns
from scripts.data.benchmark_overlap import OverlapIndex
from scripts.data.filter_dataset import (
    RowWriter,
    apply_filters,
    check_malformed,
    check_splits,
    describe_funnel,
    draw_mixture,
    draw_sample,
    fill_shares,
    split_rows,
)
from scripts.data.filters import Tools
from scripts.data.funnel import Funnel, Inspected
from scripts.data.inspect_rows import INSPECTED, inspect_batch
from scripts.data.schemas import SCHEMAS, SOURCE_SCHEMAS, Row
from scripts.data.texts import normalise
from scripts.data.token_counter import TokenCounter
from tests.common.running import call_main, error_lines, run_script

OFF: dict[str, Any] = {
    **dict.fromkeys(("empty", "roles", "control_tokens", "equal_answers", "duplicates"), False),
    "benchmark_overlap": "ignore",
}


class WordCounter(TokenCounter):
    """Counts words as tokens."""

    def count(self, conversations: list[Turns]) -> list[int]:
        return [sum(len(turn["content"].split()) for turn in turns) for turns in conversations]

    def has_at_least(self, turns: Turns, tokens: int) -> bool:
        return False

    def has_at_most(self, turns: Turns, tokens: int) -> bool:
        return False


def _turns(*contents: str) -> Turns:
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(contents)]


def _chat(*contents: str) -> Row:
    return {"messages": _turns(*contents), "answer": None}


def _pair(question: str, chosen: str, rejected: str, margin: float | None = None) -> Row:
    return {
        "prompt": _turns(question),
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "score_chosen": margin,
        "score_rejected": None if margin is None else 0.0,
    }


def _rated(question: str, answer: str, label: bool) -> Row:
    return {"prompt": _turns(question), "completion": [{"role": "assistant", "content": answer}], "label": label}


def _bad(problem: str, raw: str = '{"x": 1}') -> Row:
    return {"problem": problem, "raw": raw}


def _complete(rows: list[Row]) -> list[Row]:
    """Rows as in a source file: numbered, with every column."""
    empty = {"part": "", "balance": None, "problem": None, "raw": None}
    return [{"source_index": index} | empty | row for index, row in enumerate(rows)]


def _funnel(rows: list[Row], row_type: RowType = "messages", **filters: Any) -> Funnel:
    """The inspected rows, before the filters across rows."""
    tools = Tools(WordCounter(Path()), OverlapIndex({}))
    schema = SOURCE_SCHEMAS[row_type]
    given_rows = pa.Table.from_pylist(_complete(rows), schema=schema).to_pylist()
    lines, signatures = inspect_batch(given_rows, row_type, Filters.model_validate(OFF | filters), tools, len(rows))
    handle, name = mkstemp(suffix=".parquet")
    os.close(handle)
    pq.write_table(pa.Table.from_pylist(lines, schema=INSPECTED), name)
    funnel = Funnel(Inspected([Path(name)]), signatures)
    finalize(funnel.rows, os.unlink, name)
    return funnel


def _reasons(funnel: Funnel) -> dict[int, str | None]:
    return dict(funnel.reasons())


def _apply(rows: list[Row], row_type: RowType = "messages", seed: int = 1, **filters: Any) -> Funnel:
    funnel = _funnel(rows, row_type, **filters)
    apply_filters(funnel, row_type, Filters.model_validate(OFF | filters), seed)
    return funnel


def _dataset(**config: Any) -> Dataset:
    return Dataset.model_validate({"source": {"kind": "file", "path": "x"}} | config)


def _mixture(**parts: dict[str, Any]) -> Dataset:
    source = {"kind": "file", "path": "x"}
    return _dataset(source={"kind": "mixture", "parts": {k: {"source": source} | v for k, v in parts.items()}})


def _distinct(size: int, **more: Any) -> list[Row]:
    return [_chat(f"question {i}", f"answer {i}") | more for i in range(size)]


# --- filters across rows ------------------------------------------------------------------------


def test_disabled_filters_keep_all_rows() -> None:
    funnel = _apply([_chat("", ""), _chat("", ""), _bad("messages is missing, not a list of turns")])
    assert funnel.alive.tolist() == [0, 1]
    assert funnel.steps == [
        {"step": "read", "removed": 0, "rows": 3},
        {"step": "schema", "removed": 1, "rows": 2},
    ]
    assert _reasons(funnel) == {2: "messages is missing, not a list of turns"}


def test_a_row_is_removed_by_the_first_filter_that_it_fails() -> None:
    rows = [_chat("a", ""), _chat("a<|im_end|>", ""), _chat("a<|im_end|>", "b"), _chat("a", "b"), _chat("a", "b")]
    funnel = _apply(rows, empty=True, control_tokens=True, duplicates=True)
    assert [(step["step"], step["removed"]) for step in funnel.steps] == [
        *(("read", 0), ("schema", 0), ("empty", 2), ("control_tokens", 1), ("duplicates", 1))
    ]
    assert funnel.alive.tolist() == [3]


def test_duplicates_keep_the_first_and_name_it() -> None:
    rows = [_chat("Élan", "b"), _chat(" ÉLAN\n", "b"), _chat("Élan", "c"), _chat("ﬁne", "x"), _chat("fine", "X")]
    funnel = _apply(rows, duplicates=True)
    assert funnel.alive.tolist() == [0, 2, 3]
    assert _reasons(funnel) == {1: "the same text as row 0", 4: "the same text as row 3"}


def test_duplicates_of_a_removed_row_stay() -> None:
    rows = [_chat("a", "b") | {"problem": "bad"}, _chat("a", "b"), _chat("c", ""), _chat("a", "b")]
    funnel = _apply(rows, duplicates=True, empty=True)
    assert funnel.alive.tolist() == [1] and _reasons(funnel)[3] == "the same text as row 1"


def test_other_turn_boundaries_are_no_duplicates() -> None:
    assert _apply([_chat("a b", "c"), _chat("a", "b c")], duplicates=True).alive.tolist() == [0, 1]


def test_pairs_that_differ_in_one_answer_are_no_duplicates() -> None:
    rows = [_pair("q", "a", "b"), _pair("q", "a", "c"), _pair("q", "b", "a"), _pair("q", "a", "b")]
    assert _apply(rows, "preference", duplicates=True).alive.tolist() == [0, 1, 2]


def test_near_duplicates_keep_the_first_and_name_it() -> None:
    words = " ".join(f"w{i}" for i in range(100))
    rows = [
        _chat("other", ""),
        _chat(words, "end"),
        _bad("bad"),
        _chat(words.replace("w50", "x"), "end"),
        _chat("q", words),
    ]
    funnel = _apply(rows, near_duplicates=0.8)
    assert funnel.alive.tolist() == [0, 1]
    assert _reasons(funnel) == {2: "bad", 3: "nearly the same text as row 1", 4: "nearly the same text as row 1"}


@pytest.mark.parametrize("near", [None, 0.8])
def test_an_empty_data_set_passes_all_steps(near: float | None) -> None:
    funnel = _apply([_chat("", ""), _bad("bad")], empty=True, duplicates=True, near_duplicates=near)
    draw_sample(funnel, Sample(rows=3), seed=1)
    assert funnel.alive.tolist() == []
    assert {name: len(rows) for name, rows in split_rows(funnel, {"validation": 1, "test": 1}, 1).items()} == {
        **{"train": 0, "validation": 0, "test": 0}
    }


def _labels(*labels: bool) -> list[Row]:
    return [_rated(f"q {i}", "a", label) for i, label in enumerate(labels)]


def test_label_balance() -> None:
    rows = _labels(*[True] * 10, *[False] * 4)
    funnel = _apply(rows, "kto", max_label_ratio=1.5)
    assert funnel.steps[-1] == {"step": "max_label_ratio", "removed": 4, "rows": 10}
    assert set(_reasons(funnel).values()) == {"too many desirable rows: 10 to 4"}
    assert set(range(10, 14)) <= set(funnel.alive.tolist()), "all rows of the rarer label stay"
    assert _apply(rows, "kto", max_label_ratio=1.5).alive.tolist() == funnel.alive.tolist()
    drawn = {tuple(_apply(rows, "kto", seed, max_label_ratio=1.5).alive) for seed in range(5)}
    assert len(drawn) > 1, "the seed decides which rows go"
    turned = _apply(_labels(*[False] * 10, *[True] * 4), "kto", max_label_ratio=1)
    assert set(_reasons(turned).values()) == {"too many undesirable rows: 10 to 4"}
    assert turned.steps[-1]["rows"] == 8


def test_the_ratio_of_labels_is_rounded_down() -> None:
    """For five undesirable rows, 1.5 times as many is seven."""
    funnel = _apply(_labels(*[True] * 10, *[False] * 5), "kto", max_label_ratio=1.5)
    assert funnel.steps[-1] == {"step": "max_label_ratio", "removed": 3, "rows": 12}


@pytest.mark.parametrize("labels", [(True, False), (True, True, False), (False, True, True, False), ()])
def test_balanced_labels_stay(labels: tuple[bool, ...]) -> None:
    assert _apply(_labels(*labels), "kto", max_label_ratio=2).steps[-1]["removed"] == 0


def test_a_single_label_cannot_be_balanced() -> None:
    assert _apply(_labels(True, True), "kto", max_label_ratio=5).alive.tolist() == []


# --- mixtures -----------------------------------------------------------------------------------


def _parts(**sizes: int) -> Funnel:
    return _apply([row for name, size in sizes.items() for row in _distinct(size, part=name)], duplicates=False)


def _drawn(funnel: Funnel) -> dict[str, int]:
    return dict(Counter(funnel.column("part").to_pylist()))


def test_a_single_source_has_no_mixture_step() -> None:
    funnel = _apply(_distinct(3))
    draw_mixture(funnel, _dataset(), seed=1)
    assert [step["step"] for step in funnel.steps] == ["read", "schema"]


def test_mixture_by_rows() -> None:
    funnel = _parts(x=10, y=20, z=5)
    draw_mixture(funnel, _mixture(x={"rows": 4}, y={}, z={"rows": 9}), seed=1)
    assert _drawn(funnel) == {"x": 4, "y": 20, "z": 5}, "a part gives all its rows if more are requested"
    assert funnel.steps[-1] == {"step": "mixture", "removed": 6, "rows": 29}
    assert set(_reasons(funnel).values()) == {"not drawn from part x"}


@pytest.mark.parametrize(
    ("sizes", "weights", "drawn"),
    [
        ({"x": 30, "y": 30}, {"x": 3, "y": 1}, {"x": 30, "y": 10}),
        ({"x": 30, "y": 5}, {"x": 3, "y": 1}, {"x": 15, "y": 5}),
        ({"x": 7, "y": 7}, {"x": 0.1, "y": 0.1}, {"x": 7, "y": 7}),
        ({"x": 10, "y": 10}, {"x": 3, "y": 1}, {"x": 10, "y": 3}),
        ({"x": 21, "y": 40, "z": 40}, {"x": 0.7, "y": 0.2, "z": 0.1}, {"x": 21, "y": 6, "z": 3}),
        ({"x": 5, "y": 0}, {"x": 1, "y": 1}, {}),
    ],
)
def test_mixture_by_weights(sizes: dict[str, int], weights: dict[str, float], drawn: dict[str, int]) -> None:
    """The scarcest part limits all others, and no row is repeated."""
    funnel = _parts(**sizes)
    draw_mixture(funnel, _mixture(**{name: {"weight": weight} for name, weight in weights.items()}), seed=1)
    assert _drawn(funnel) == drawn


def test_the_seed_determines_a_mixture() -> None:
    inspected, drawn = _parts(x=10), []
    for seed in (1, 1, 2, 3):
        funnel = Funnel(inspected.rows, inspected.signatures)
        draw_mixture(funnel, _mixture(x={"rows": 5}), seed)
        drawn.append(funnel.alive.tolist())
    assert drawn[0] == drawn[1] and len({tuple(rows) for rows in drawn}) == 3


def test_a_mixture_draws_from_filtered_rows() -> None:
    rows = [*_distinct(4, part="x"), *_distinct(4, part="y"), _chat("", "") | {"part": "y"}]
    funnel = _apply(rows, duplicates=True, empty=True)
    draw_mixture(funnel, _mixture(x={"rows": 2}, y={"rows": 2}), seed=1)
    assert _drawn(funnel) == {"x": 2}, "the rows of y are duplicates of those of x"


# --- samples ------------------------------------------------------------------------------------


def _sample(source: list[Row], seed: int = 1, row_type: RowType = "messages", **sample: Any) -> list[int]:
    funnel = _apply(source, row_type)
    before = len(funnel.alive)
    draw_sample(funnel, Sample.model_validate(sample), seed)
    assert funnel.steps[-1] == {"step": "sample", "removed": before - len(funnel.alive), "rows": len(funnel.alive)}
    assert set(_reasons(funnel).values()) <= {"not drawn", "bad"}
    drawn: list[int] = funnel.alive.tolist()
    assert drawn == sorted(drawn), "the order of the source is kept"
    return drawn


def test_a_random_sample_follows_the_seed() -> None:
    rows = [*_distinct(25), _bad("bad"), *_distinct(25)]
    drawn = _sample(rows, rows=20)
    assert len(drawn) == len(set(drawn)) == 20 and 25 not in drawn
    assert _sample(rows, rows=20) == drawn != _sample(rows, seed=2, rows=20)
    assert _sample(rows, rows=50) == _sample(rows, rows=99) == [i for i in range(51) if i != 25]


def test_every_row_has_the_same_chance() -> None:
    """In 1,000 samples of 3 of 10 rows, each row is expected 300 times, with a standard deviation of 14.5."""
    inspected = _apply(_distinct(10))
    counts: Counter[int] = Counter()
    for seed in range(1000):
        funnel = Funnel(inspected.rows, inspected.signatures)
        draw_sample(funnel, Sample(rows=3), seed)
        counts.update(funnel.alive.tolist())
    assert all(abs(counts[i] - 300) < 65 for i in range(10)), counts


def test_the_first_rows() -> None:
    assert _sample([_bad("bad"), *_distinct(9)], rows=3, method="first") == [1, 2, 3]


def test_the_largest_margins() -> None:
    margins = [0.5, None, 3.0, -1.0, 2.0, 3.0, None]
    rows = [_pair(f"q {i}", "a", "b", margin) for i, margin in enumerate(margins)]
    taken = [_sample(rows, row_type="preference", rows=n, method="margin") for n in range(1, 8)]
    assert taken[0] == [2], "of equal margins, the first row"
    assert taken[2] == [2, 4, 5] and taken[4] == [0, 2, 3, 4, 5], "pairs without scores come last"
    assert taken[6] == list(range(7))


@pytest.mark.parametrize("method", ["random", "first", "margin"])
def test_balance_gives_equal_shares(method: str) -> None:
    groups = ["a"] * 3 + ["b"] * 20 + [None] * 20
    rows = [_pair(f"q {i}", "a", "b", float(i)) | {"balance": group} for i, group in enumerate(groups)]
    drawn = _sample(rows, row_type="preference", rows=15, method=method, balance="column")
    assert Counter(groups[i] for i in drawn) == {"a": 3, "b": 6, None: 6}
    if method == "first":
        assert drawn == [0, 1, 2, *range(3, 9), *range(23, 29)]
    if method == "margin":
        assert drawn == [0, 1, 2, *range(17, 23), *range(37, 43)]


@given(st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 30), min_size=1), st.integers(0, 150))
def test_shares(sizes: dict[str, int], total: int) -> None:
    shares = fill_shares(sizes, total)
    assert list(shares) == list(sizes)
    assert sum(shares.values()) == min(total, sum(sizes.values()))
    assert all(0 <= shares[name] <= size for name, size in sizes.items())
    open_shares = [shares[name] for name, size in sizes.items() if shares[name] < size]
    assert all(share >= max(shares.values()) - 1 for share in open_shares), "only exhausted groups have less"


# --- splits -------------------------------------------------------------------------------------


def _split(rows: list[Row], seed: int = 1, **held_out: int) -> dict[str, list[int]]:
    return {name: part.tolist() for name, part in split_rows(_apply(rows), held_out, seed).items()}


def test_a_split_holds_out_the_requested_rows_if_possible() -> None:
    rows = [_chat(f"question {i // 2}", "a") for i in range(40)]
    split = _split(rows, validation=10, test=6)
    assert {name: len(part) for name, part in split.items()} == {"train": 24, "validation": 10, "test": 6}
    assert _split(rows, validation=10, test=6) == split != _split(rows, seed=2, validation=10, test=6)
    assert _split(rows, validation=0, test=0) == {"train": list(range(40)), "validation": [], "test": []}
    assert len(_split(rows, validation=9)["validation"]) == 8, "a prompt's rows stay together"


def test_differently_written_prompts_stay_in_one_split() -> None:
    rows = [_chat("Two  WORDS" if i % 2 else "two words\n", str(i)) for i in range(6)]
    assert _split(rows, validation=3, test=5) == {"train": [0, 1, 2, 3, 4, 5], "validation": [], "test": []}
    assert _split(rows, validation=3, test=6)["test"] == [0, 1, 2, 3, 4, 5]


@given(st.lists(st.integers(0, 12), max_size=40), st.integers(0, 15), st.integers(0, 15), st.integers(0, 3))
def test_splits_share_no_prompt(questions: list[int], validation: int, test: int, seed: int) -> None:
    split = _split([_chat(f"q {q}", str(i)) for i, q in enumerate(questions)], seed, validation=validation, test=test)
    assert sorted(i for part in split.values() for i in part) == list(range(len(questions)))
    prompts = [{questions[i] for i in part} for part in split.values()]
    assert sum(map(len, prompts)) == len(set(questions))
    assert len(split["validation"]) <= validation and len(split["test"]) <= test
    smallest = min((questions.count(q) for q in prompts[0]), default=99)
    assert all(len(split[name]) + smallest > wanted for name, wanted in (("validation", validation), ("test", test)))


# --- errors -------------------------------------------------------------------------------------


def test_too_many_malformed_rows_stop_the_run() -> None:
    rows = [*_distinct(97), _bad("line 3 of x.jsonl: no JSON"), _bad("b"), _bad("c"), _bad("d")]
    funnel = _funnel(rows)
    check_malformed(funnel, 0.04, "datasets.mine")
    with pytest.raises(UserError) as refused:
        check_malformed(funnel, 0.03, "datasets.mine")
    assert str(refused.value) == (
        "datasets.mine: 4 of 101 rows cannot be read, more than datasets.mine.max_malformed (0.03) allows; "
        "fix them or raise it. The first: row 97: line 3 of x.jsonl: no JSON; row 98: b; row 99: c"
    )
    check_malformed(_funnel([_bad("b")]), 1, "datasets.mine")
    check_malformed(_funnel([*_distinct(3), _bad("b")]), 0.25, "datasets.mine")  # the share itself is allowed


def test_an_empty_source_stops_the_run() -> None:
    with pytest.raises(UserError) as refused:
        check_malformed(_funnel([]), 1, "datasets.mine")
    assert str(refused.value) == "datasets.mine.source: the data set has no rows"


def _check(rows: list[Row], validation: int = 0, test: int = 0, **filters: Any) -> str:
    funnel = _apply(rows, **filters)
    config = _dataset(filters=filters, validation=validation, test=test)
    splits = split_rows(funnel, {"validation": validation, "test": test}, 1)
    with pytest.raises(UserError) as refused:
        check_splits(funnel, splits, config, "datasets.mine")
    return str(refused.value)


def test_nothing_left_to_train_on_stops_the_run() -> None:
    assert _check([_chat("a", ""), _chat("b", ""), _chat("c", "d")], validation=5, empty=True) == (
        "datasets.mine: no row is left to train on after filtering (3 read, 2 removed by empty, 1 held out); "
        "loosen datasets.mine.filters"
    )


def test_an_empty_split_stops_the_run() -> None:
    rows = [_chat("q", str(i)) for i in range(3)]
    for split in ("validation", "test"):
        assert _check(rows, **{split: 2}) == (
            f"datasets.mine.{split}: every prompt has more than 2 rows, and they must stay together; raise it"
        )


def test_a_funnel_that_does_not_add_up_stops_the_run() -> None:
    with pytest.raises(AssertionError, match="does not add up"):
        describe_funnel("x", "messages", _apply(_distinct(3)), {"train": 1, "validation": 0})


# --- the two scripts ----------------------------------------------------------------------------

OUTPUTS = {name: f"{name}.parquet" for name in (*SPLITS, "rejected", "contamination")} | {
    "funnel": "funnel.json",
    "summary": "summary.json",
}

QUESTION = "How many apples does Ada have when she gives four of her eleven apples to Ben?"


def _write_source(path: Path, rows: list[Row], row_type: RowType, group: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(_complete(rows), schema=SOURCE_SCHEMAS[row_type]), path, row_group_size=group)
    return path


def _write_questions(folder: Path, *texts: str) -> dict[str, Path]:
    """Write the questions of a benchmark. Returns its file by its name."""
    path = folder / "questions.jsonl"
    write_json_lines(path, [{"question": text, "texts": [text]} for text in texts])
    return {"apples": path}


def _call(script: str, folder: Path, **options: Any) -> None:
    call_main(f"data.{script}", folder, **options)


def _run_in_new_process(script: str, folder: Path, **options: Any) -> None:
    run = run_script(f"data.{script}", folder, **options)
    assert run.returncode == 0, run.stderr


def _filter(
    folder: Path,
    model: Path,
    source: Path,
    /,
    row_type: RowType = "messages",
    shards: int = 1,
    questions: dict[str, Path] | None = None,
    others: list[Path] | None = None,
    run: Any = _call,
    **config: Any,
) -> Path:
    """Run both scripts as the rules do. Returns the folder of their outputs."""
    folder.mkdir(parents=True)
    section = _dataset(shards=shards, **config).as_dict()
    compared = {"benchmarks": list(questions or {}), "questions": list((questions or {}).values())}
    both = {"name": "mine", "row_type": row_type, "rows": source} | compared
    made: dict[str, list[str]] = {"inspected": [], "signatures": []}
    for shard in range(shards):
        made["inspected"].append(f"{shard}.parquet")
        made["signatures"].append(f"{shard}.signatures")
        given_files = {"model": model, "others": others or []}
        written = {"output": made["inspected"][-1], "signatures": made["signatures"][-1]}
        numbers = {"shard": shard, "shards": shards}
        run("inspect_rows", folder, config=section["filters"], **both, **numbers, **given_files, **written)
    run("filter_dataset", folder, config=section, seed=7, **both, **made, **OUTPUTS, manifest="manifest.json")
    return folder


def _bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / file).read_bytes() for name, file in OUTPUTS.items()}


def _tables(folder: Path) -> dict[str, list[Row]]:
    return {name: pq.read_table(folder / OUTPUTS[name]).to_pylist() for name in (*SPLITS, "rejected", "contamination")}


@pytest.mark.slow
def test_both_scripts_in_new_processes(tmp_path: Path, tiny_model: Path) -> None:
    rows = [_chat(f"question {i % 30}", f"short {i}" if i % 3 else " ") for i in range(60)]
    rows[4] = _chat(QUESTION.lower(), "seven")
    rows[5] = _bad("x.jsonl, line 6: no JSON", "{oops")
    source = _write_source(tmp_path / "source.parquet", rows, "messages")
    given_run: dict[str, Any] = {"questions": _write_questions(tmp_path, QUESTION), "max_malformed": 0.1}
    given_run |= {"sample": {"rows": 20}, "validation": 4, "test": 3}
    folder = _filter(tmp_path / "first", tiny_model, source, run=_run_in_new_process, **given_run)
    again = _filter(tmp_path / "second", tiny_model, source, **given_run)
    assert _bytes(folder) == _bytes(again), "other processes with other hash seeds give the same bytes"

    tables = _tables(folder)
    assert [len(tables[split]) for split in SPLITS] == [13, 4, 3]
    placed = [row["source_index"] for name in (*SPLITS, "rejected") for row in tables[name]]
    assert sorted(placed) == list(range(60))
    rejected = {row["source_index"]: row for row in tables["rejected"]}
    assert list(rejected) == sorted(rejected)
    assert [(rejected[i]["step"], rejected[i]["reason"]) for i in (0, 4, 5)] == [
        ("empty", "an empty turn"),
        ("benchmark_overlap", "apples, item 0"),
        ("schema", "x.jsonl, line 6: no JSON"),
    ]
    assert rejected[5]["row"] == "{oops", "malformed input is kept verbatim"
    assert json.loads(rejected[0]["row"]) == {"source_index": 0, "messages": rows[0]["messages"], "part": ""}
    (hit,) = tables["contamination"]
    assert (hit["benchmark"], hit["item"], hit["source_index"], hit["removed"]) == ("apples", 0, 4, True)

    funnel = read_json(folder / "funnel.json")
    steps = Counter(row["step"] for row in tables["rejected"])
    assert {line["step"]: line["removed"] for line in funnel["steps"] if line["removed"]} == steps
    assert funnel["splits"] == {"train": 13, "validation": 4, "test": 3}
    facts = read_json(folder / "manifest.json")["facts"]
    assert [facts[f"{split}_rows"] for split in SPLITS] == [13, 4, 3]


def test_a_refused_data_set_leaves_nothing_behind(tmp_path: Path, tiny_model: Path) -> None:
    source = _write_source(tmp_path / "source.parquet", [_chat("a", ""), _bad("bad")], "messages")
    with pytest.raises(UserError, match="1 of 2 rows cannot be read"):
        _filter(tmp_path / "out", tiny_model, source)
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {"0.parquet", "0.signatures"}
    options = {
        "name": "mine",
        "row_type": "messages",
        "config": _dataset(max_malformed=1).as_dict(),
        "seed": 7,
        "rows": source,
    }
    inspected = {"inspected": ["0.parquet"], "signatures": ["0.signatures"], "manifest": "manifest.json"}
    run = run_script("data.filter_dataset", tmp_path / "out", **options, **inspected, **OUTPUTS)
    assert error_lines(run) == [
        "error: datasets.mine: no row is left to train on after filtering (2 read, 1 removed by schema, 0 held out); "
        "loosen datasets.mine.filters"
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == made


def test_mixture_sample_and_splits_follow_the_section(tmp_path: Path, tiny_model: Path) -> None:
    """Two of 14 rows are malformed. Three rows of x and six of y are drawn, then eight of them; seven are held out."""
    rows = [*_distinct(6, part="x"), *_distinct(6, part="y"), _bad("bad") | {"part": "x"}, _bad("bad") | {"part": "y"}]
    for number, row in enumerate(rows[:12]):
        row["messages"][0]["content"] = f"question {number}"
    source = _write_source(tmp_path / "source.parquet", rows, "messages")
    parts = _mixture(x={"rows": 3}, y={}).as_dict()["source"]
    section = {"source": parts, "max_malformed": 0.15, "sample": {"rows": 8}, "validation": 2, "test": 5}
    folder = _filter(tmp_path / "out", tiny_model, source, **section)
    steps = [(line["step"], line["rows"]) for line in read_json(folder / "funnel.json")["steps"]]
    assert steps[:2] == [("read", 14), ("schema", 12)] and steps[-2:] == [("mixture", 9), ("sample", 8)]
    assert [len(_tables(folder)[split]) for split in SPLITS] == [1, 2, 5]
    manifest = read_json(folder / "manifest.json")
    assert [manifest["facts"][f"{split}_rows"] for split in SPLITS] == [1, 2, 5]
    hashes = [hashlib.sha256((folder / f"{split}.parquet").read_bytes()).hexdigest() for split in SPLITS]
    assert [manifest["facts"][f"{split}_sha256"] for split in SPLITS] == hashes
    assert manifest["config"]["seed"] == 7 and manifest["config"]["sample"]["rows"] == 8


def test_flagged_rows_are_kept_and_reported(tmp_path: Path, tiny_model: Path) -> None:
    rows = [_chat("clean", "a"), _chat(f"Well: {QUESTION}", "b"), _chat("x", f"{QUESTION}\nSeven."), _chat("", "c")]
    source = _write_source(tmp_path / "source.parquet", rows, "messages")
    given_run: dict[str, Any] = {"questions": _write_questions(tmp_path, "-", QUESTION)}
    flagged = _filter(tmp_path / "flag", tiny_model, source, filters={"benchmark_overlap": "flag"}, **given_run)
    removed = _filter(tmp_path / "remove", tiny_model, source, **given_run)
    ignored = _filter(tmp_path / "ignore", tiny_model, source, filters={"benchmark_overlap": "ignore"}, **given_run)
    assert [[row["source_index"] for row in _tables(f)["train"]] for f in (flagged, removed, ignored)] == [
        *([0, 1, 2], [0], [0, 1, 2])
    ]
    span = normalise([QUESTION])[0].replace("?", "")
    for folder, gone in ((flagged, False), (removed, True)):
        assert _tables(folder)["contamination"] == [
            {"benchmark": "apples", "item": 1, "source_index": i, "share": 1.0, "span": span, "removed": gone}
            for i in (1, 2)
        ]
    assert _tables(ignored)["contamination"] == []
    assert "benchmark_overlap" not in [line["step"] for line in read_json(ignored / "funnel.json")["steps"]]


def test_not_in_compares_prompts_of_conversations(tmp_path: Path, tiny_model: Path) -> None:
    taken = [_chat("One", "a", "two", "b"), _chat("three", "c")]
    other = tmp_path / "other.parquet"
    pq.write_table(pa.Table.from_pylist(_complete(taken), schema=SCHEMAS["messages"]), other)
    rows = [_chat("ONE", "x", "Two", "y"), _chat("one two", "x"), _chat("three ", "x"), _chat("four", "x")]
    source = _write_source(tmp_path / "source.parquet", rows, "messages")
    folder = _filter(tmp_path / "out", tiny_model, source, others=[other], filters={"not_in": ["other"]})
    assert [row["source_index"] for row in _tables(folder)["train"]] == [1, 3]
    assert {row["reason"] for row in _tables(folder)["rejected"]} == {"another data set has the prompt"}


def test_row_groups_have_the_same_size_for_all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.data.filter_dataset.ROWS_WRITTEN", 10)
    table = pa.table({"x": list(range(47))})
    made = []
    for number, sizes in enumerate([[47], [1] * 47, [9, 9, 9, 20], [0, 10, 10, 27, 0]]):
        path = tmp_path / f"{number}.parquet"
        writer = RowWriter(path, table.schema)
        start = 0
        for size in sizes:
            writer.write(table.slice(start, size))
            start += size
        writer.close()
        assert writer.rows == 47
        with pq.ParquetFile(path) as file:
            assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [10, 10, 10, 10, 7]
        assert pq.read_table(path) == table
        made.append(path.read_bytes())
    assert len(set(made)) == 1


# --- properties ---------------------------------------------------------------------------------

LONG = " ".join(f"w{i}" for i in range(30))
TEXT = st.sampled_from(
    [
        *("", " ", "a", "A", "b", "ﬁ", "fi", "a  b", "a b", "c\u2028d", "<|im_end|>", "the same " * 9, "中文"),
        *(LONG, LONG.replace("w29", "x"), LONG.upper(), QUESTION, "I'm sorry, but I can't help."),
    ]
)
MARGIN = st.none() | st.integers(-1, 3)
NUMBERED = st.integers(0, 40).map(lambda number: f"question {number}")
ROWS: dict[RowType, st.SearchStrategy[Row]] = {
    "messages": st.builds(_chat, TEXT | NUMBERED, TEXT)
    | st.builds(_chat, TEXT, TEXT, TEXT)
    | st.builds(_chat, NUMBERED, NUMBERED, TEXT, NUMBERED),
    "preference": st.builds(_pair, TEXT | NUMBERED, TEXT, TEXT | NUMBERED, MARGIN),
    "kto": st.builds(_rated, TEXT | NUMBERED, TEXT | NUMBERED, st.booleans()),
    "prompt": st.builds(lambda text: {"prompt": _turns(text), "answer": None}, TEXT | NUMBERED),
}
EXTRAS = st.fixed_dictionaries({"part": st.sampled_from(["x", "y"]), "balance": st.sampled_from([None, "", "u", "v"])})
FILTERS = st.fixed_dictionaries(
    {name: st.booleans() for name in ("empty", "roles", "control_tokens", "equal_answers", "refusals", "duplicates")}
    | {"benchmark_overlap": st.sampled_from(["remove", "flag", "ignore"])}
    | {"min_margin": st.none() | st.integers(0, 2), "max_length_ratio": st.none() | st.just(3)}
    | {"max_repetition": st.none() | st.just(0.3), "near_duplicates": st.none() | st.just(0.7)}
    | {"min_tokens": st.none() | st.integers(1, 20), "max_tokens": st.none() | st.integers(40, 200)}
    | {"patterns": st.sampled_from([{}, {"letters": ["^b$"]}]), "max_label_ratio": st.none() | st.just(1.5)}
)
SAMPLE = st.none() | st.fixed_dictionaries(
    {
        "rows": st.integers(1, 30),
        "method": st.sampled_from(["random", "first", "margin"]),
        "balance": st.sampled_from([None, "column"]),
    }
)
PARTS = st.sampled_from(
    [
        None,
        {"x": {}, "y": {"rows": 5}},
        {"x": {"weight": 2}, "y": {"weight": 1}},
    ]
)


@st.composite
def _problems(draw: st.DrawFn, least: int) -> tuple[RowType, list[Row], dict[str, Any]]:
    """A row type, rows of it, and the configuration of the data set."""
    row_type = draw(st.sampled_from(list(ROWS)))
    row = st.builds(lambda row, extras: row | extras, ROWS[row_type], EXTRAS)
    bad = st.builds(lambda extras: _bad("bad") | extras, EXTRAS)
    rows = draw(st.lists(st.one_of(*[row] * 9, bad), min_size=least, max_size=50))
    config = {"filters": draw(FILTERS), "sample": draw(SAMPLE), "max_malformed": 1}
    config |= {"validation": draw(st.integers(0, 5)), "test": draw(st.integers(0, 5))}
    if (parts := draw(PARTS)) is not None:
        config["source"] = _mixture(**parts).as_dict()["source"]
    return row_type, rows, config


def _assert_adds_up(steps: list[FunnelStep], read: int, left: int) -> None:
    rows = read
    for line in steps:
        rows -= line["removed"]
        assert line["rows"] == rows
    assert rows == left


@settings(max_examples=150)
@given(_problems(least=0), st.integers(0, 3))
def test_every_row_is_accounted_for(problem: tuple[RowType, list[Row], dict[str, Any]], seed: int) -> None:
    row_type, rows, section = problem
    config = _dataset(**section)

    def run() -> tuple[Funnel, dict[str, Any]]:
        funnel = _funnel(rows, row_type, **section["filters"])
        apply_filters(funnel, row_type, config.filters, seed)
        draw_mixture(funnel, config, seed)
        if config.sample:
            draw_sample(funnel, config.sample, seed)
        return funnel, split_rows(funnel, {"validation": config.validation, "test": config.test}, seed)

    funnel, splits = run()
    placed = [*(i for part in splits.values() for i in part.tolist()), *np.flatnonzero(funnel.removed_by >= 0).tolist()]
    assert sorted(placed) == list(range(len(rows)))
    assert set(_reasons(funnel)) == set(np.flatnonzero(funnel.removed_by >= 0).tolist()), "each has a reason"
    _assert_adds_up(funnel.steps, len(rows), sum(map(len, splits.values())))
    assert len(splits["validation"]) <= config.validation and len(splits["test"]) <= config.test

    again, same = run()
    assert again.steps == funnel.steps and _reasons(again) == _reasons(funnel)
    assert {name: part.tolist() for name, part in same.items()} == {name: p.tolist() for name, p in splits.items()}


@settings(max_examples=15)
@given(_problems(least=12))
def test_the_number_of_shards_does_not_change_the_files(
    tiny_model: Path, problem: tuple[RowType, list[Row], dict[str, Any]]
) -> None:
    row_type, rows, config = problem
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = _write_source(folder / "source.parquet", rows, row_type, group=3)
        given_run = {"questions": _write_questions(folder, QUESTION), **config}

        def run(number: int, shards: int) -> Path | str:
            try:
                return _filter(folder / str(number), tiny_model, source, row_type, shards, **given_run)
            except UserError as refused:
                return str(refused)

        made = [run(0, 1), run(1, 1), run(2, 4)]
        if isinstance(made[0], str):
            assert made[0] == made[1] == made[2]
            return
        one, again, four = (_bytes(path) for path in made if isinstance(path, Path))
        assert one == again == four
        _check_tables(_tables(made[0]), source, row_type, config)
        counts = {split: len(rows) for split, rows in _tables(made[0]).items() if split in SPLITS}
        funnel = read_json(made[0] / "funnel.json")
        assert funnel["splits"] == counts
        _assert_adds_up(funnel["steps"], len(rows), sum(counts.values()))


def _prompt(row: Row) -> tuple[str, ...]:
    turns = row["messages"] if "messages" in row else row["prompt"]
    return tuple(normalise([turn["content"] for turn in turns if turn["role"] == "user"]))


def _check_tables(tables: dict[str, list[Row]], source: Path, row_type: RowType, config: dict[str, Any]) -> None:
    """Each source row is in exactly one file, unchanged, and no prompt is in two splits."""
    columns = SCHEMAS[row_type].names
    given_rows = {row["source_index"]: row for row in pq.read_table(source).to_pylist()}
    kept = [row for split in SPLITS for row in tables[split]]
    numbers = [row["source_index"] for row in kept + tables["rejected"]]
    assert sorted(numbers) == list(given_rows)
    for row in kept:
        assert row == {name: given_rows[row["source_index"]][name] for name in columns}
    for row in tables["rejected"]:
        was = given_rows[row["source_index"]]
        assert row["reason"]
        if row["step"] == "schema":
            assert row["row"] == was["raw"]
        else:
            assert json.loads(row["row"]) == {name: value for name, value in was.items() if value is not None}
    prompts = [{_prompt(row) for row in tables[split]} for split in SPLITS]
    assert sum(map(len, prompts)) == len(set().union(*prompts))
    if config["filters"]["benchmark_overlap"] == "remove":
        assert not any(QUESTION in json.dumps(row, ensure_ascii=False) for row in kept)
    hits = [row["source_index"] for row in tables["contamination"]]
    assert all(QUESTION in json.dumps(given_rows[i], ensure_ascii=False) for i in hits)


def test_more_shards_than_row_groups(tmp_path: Path, tiny_model: Path) -> None:
    source = _write_source(tmp_path / "source.parquet", _distinct(5), "messages", group=5)
    one, three = (
        _filter(tmp_path / str(shards), tiny_model, source, shards=shards, filters={"near_duplicates": 0.8})
        for shards in (1, 3)
    )
    assert _bytes(one) == _bytes(three)


def test_batch_size_does_not_change_the_files(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows than one batch, in row groups of other sizes."""
    monkeypatch.setattr("scripts.data.inspect_rows.BATCH", 100)
    monkeypatch.setattr("scripts.data.filter_dataset.BATCH", 100)
    rng = random.Random(1)
    rows = [_chat(f"question {rng.randrange(150)}", f"answer {rng.randrange(9)} " + "x " * 9) for _ in range(230)]
    given_run: dict[str, Any] = {"filters": {"near_duplicates": 0.8}, "validation": 5, "test": 5}
    made = []
    for group, shards in ((230, 1), (70, 1), (10, 4)):
        source = _write_source(tmp_path / f"{group}.parquet", rows, "messages", group)
        made.append(_bytes(_filter(tmp_path / f"{group}", tiny_model, source, shards=shards, **given_run)))
    assert made[0] == made[1] == made[2]
