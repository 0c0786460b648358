"""Data sets are read completely from every kind of source. Broken rows are counted; broken sources give one line."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.common.config import Dataset, FileDataset, MixturePart, RowType
from scripts.common.errors import UserError
from scripts.common.files import hash_file, read_json
from scripts.data.data_files import SHOWN, Record
from scripts.data.download_dataset import LOOKED_AT, convert
from scripts.data.schemas import SOURCE_SCHEMAS
from tests.common.running import call_main, error_lines, run_script

ROWS = [
    {"messages": [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"answer {i}"}]}
    for i in range(4)
]
PACKAGE = {"kind": "package", "package": "reasoning-gym", "task": "chain_sum", "size": 5, "seed": 3}

Facts = dict[str, Any]


def _options(
    source: dict[str, Any], row_type: RowType = "messages", balance: str = "", **section: Any
) -> dict[str, Any]:
    made = {"output": "out/source.parquet", "manifest": "out/source.json"}
    return {"name": "mine", "row_type": row_type, "config": {"source": source} | section, "balance": balance} | made


def _fetch(folder: Path, source: dict[str, Any], **options: Any) -> tuple[list[dict[str, Any]], Facts]:
    """The rows that the script writes, and the facts of its manifest."""
    call_main("data.download_dataset", folder, **_options(source, **options))
    table = pq.read_table(folder / "out" / "source.parquet")
    assert table.schema.equals(SOURCE_SCHEMAS[options.get("row_type", "messages")])
    rows = table.to_pylist()
    assert [row["source_index"] for row in rows] == list(range(len(rows)))
    facts: Facts = read_json(folder / "out" / "source.json")["facts"]
    assert facts["rows"] == len(rows)
    assert facts["malformed"] == sum(row["problem"] is not None for row in rows)
    assert facts["sha256"] == hash_file(folder / "out" / "source.parquet")
    return rows, facts


def _refused(folder: Path, source: dict[str, Any], **options: Any) -> str:
    """The error for a data set that is refused."""
    with pytest.raises(UserError) as caught:
        call_main("data.download_dataset", folder, **_options(source, **options))
    assert "\n" not in str(caught.value)
    assert not list((folder / "out").glob("*")), "a refused data set leaves nothing behind"
    return str(caught.value)


def _file(path: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "file", "path": str(path)} | more


def _write_lines(path: Path, rows: list[Any]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


# --- files --------------------------------------------------------------------------------------


def test_a_file_with_its_facts(tmp_path: Path) -> None:
    path = _write_lines(tmp_path / "rows.jsonl", ROWS)
    rows, facts = _fetch(tmp_path, _file(path, licence="CC-BY-4.0"))
    empty = {"answer": None, "part": "", "balance": None, "problem": None, "raw": None}
    assert rows == [{"source_index": i} | row | empty for i, row in enumerate(ROWS)]
    assert facts == {
        "origin": f"file {path}",
        "files": {str(path): hash_file(path)},
        "licence": "CC-BY-4.0",
        "rows": 4,
        "malformed": 0,
        "sha256": facts["sha256"],
    }
    manifest = read_json(tmp_path / "out" / "source.json")
    assert (manifest["artefact"], manifest["name"]) == ("dataset", "mine")
    assert manifest["config"] == {"source": {"kind": "file", "path": str(path), "licence": "CC-BY-4.0"}}


def test_a_glob_reads_files_of_several_types_in_order(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([ROWS[1]]), tmp_path / "part-b.parquet")
    _write_lines(tmp_path / "part-a.jsonl", [ROWS[0]])
    _write_lines(tmp_path / "part-c.jsonl", [ROWS[2]])
    rows, facts = _fetch(tmp_path, _file(tmp_path / "part-*"))
    assert [row["messages"] for row in rows] == [row["messages"] for row in ROWS[:3]]
    assert [Path(path).name for path in facts["files"]] == ["part-a.jsonl", "part-b.parquet", "part-c.jsonl"]
    assert facts["licence"] is None


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    path = _write_lines(tmp_path / "rows.jsonl", ROWS)
    sums = [_fetch(tmp_path, _file(path))[1]["sha256"] for _ in range(2)]
    assert sums[0] == sums[1]


def test_columns_that_the_first_row_lacks_are_kept(tmp_path: Path) -> None:
    """Often only some rows have scores or answers."""
    path = _write_lines(tmp_path / "rows.jsonl", [ROWS[0], ROWS[1] | {"answer": "1"}])
    rows, _ = _fetch(tmp_path, _file(path))
    assert [row["answer"] for row in rows] == [None, "1"]


def test_malformed_rows_are_kept_with_their_problem(tmp_path: Path) -> None:
    long = {"messages": "x" * 10_000}
    path = _write_lines(tmp_path / "rows.jsonl", [ROWS[0], '{"messages": [', ROWS[1], {"messages": []}, long, "[1]"])
    rows, facts = _fetch(tmp_path, _file(path))
    assert (facts["rows"], facts["malformed"]) == (6, 4)
    assert [(row["source_index"], row["problem"]) for row in rows if row["problem"] is not None] == [
        (1, "rows.jsonl:2: invalid JSON (Expecting value at character 16)"),
        (3, "messages has no turns"),
        (4, "messages is text, not a list of turns"),
        (5, "rows.jsonl:6: not a JSON object"),
    ]
    assert [rows[i]["raw"] for i in (1, 3, 5)] == ['{"messages": [\n', '{"messages": []}', "[1]\n"]
    assert rows[4]["raw"] == json.dumps(long)[:SHOWN]
    assert all(rows[i]["messages"] is None and rows[i]["part"] == "" for i in (1, 3, 4, 5))
    assert [rows[i]["messages"] for i in (0, 2)] == [row["messages"] for row in ROWS[:2]]


def test_a_file_with_only_malformed_rows(tmp_path: Path) -> None:
    """The filters decide whether there are too many."""
    rows, facts = _fetch(tmp_path, _file(_write_lines(tmp_path / "rows.jsonl", ["{", "]", "null"])))
    assert facts["malformed"] == len(rows) == 3


def test_an_empty_file(tmp_path: Path) -> None:
    rows, facts = _fetch(tmp_path, _file(_write_lines(tmp_path / "rows.jsonl", [])))
    assert (rows, facts["rows"], facts["malformed"]) == ([], 0, 0)


@pytest.mark.parametrize("bad", [0, 1, LOOKED_AT - 1, LOOKED_AT, 3 * LOOKED_AT])
def test_good_rows_after_many_bad_ones(bad: int) -> None:
    """The first well-formed rows determine the format, after any number of malformed ones."""
    records = [Record(None, f"line {i}", "raw") for i in range(bad)] + [Record(row) for row in ROWS]
    part = MixturePart(source=FileDataset(kind="file", path="x"))
    rows = list(convert(iter(records), part, "messages", "", "datasets.mine"))
    assert [row["problem"] for row in rows] == [f"line {i}" for i in range(bad)] + [None] * len(ROWS)


def test_one_column_of_two_types(tmp_path: Path) -> None:
    rows, _ = _fetch(
        tmp_path, _file(_write_lines(tmp_path / "a.jsonl", [ROWS[0], {"messages": [1]}, {"messages": {}}]))
    )
    assert [row["problem"] for row in rows] == [
        None,
        "messages: turn 1 is a number, not a role and its content",
        "messages is an object, not a list of turns",
    ]


def test_a_lone_surrogate_makes_its_row_malformed(tmp_path: Path) -> None:
    """JSON can contain a lone surrogate, which cannot be written as UTF-8."""
    lines: list[Any] = ['{"prompt": "fine", "completion": "x", "kind": "\\udc00"}']
    lines += ['{"prompt": "\\ud800", "completion": "x"}', '{"prompt": "fine", "completion": "x", "other": "\\ud800"}']
    rows, _ = _fetch(tmp_path, _file(_write_lines(tmp_path / "a.jsonl", lines)), balance="kind")
    assert [row["problem"] for row in rows] == [
        "kind: a lone surrogate (half a character) in the text",
        "prompt: a lone surrogate (half a character) in the text",
        None,
    ]
    assert json.loads(rows[1]["raw"])["prompt"] == "\ud800"


@pytest.mark.parametrize("depth", [100, *range(920, 1000, 4)])
def test_rows_nested_nearly_too_deep(tmp_path: Path, depth: int) -> None:
    """A value that can just be read may be too deep to be written again."""
    deep = "[" * depth + "]" * depth
    path = _write_lines(
        tmp_path / "a.jsonl", [ROWS[0], f'{{"messages": {deep}}}', f'{{"messages": [{{"role": {deep}}}]}}']
    )
    rows, facts = _fetch(tmp_path, _file(path))
    assert facts["malformed"] == 2
    assert all(row["raw"] for row in rows[1:])


def test_a_table(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('prompt,completion\n"1, 2","3\n4"\na,\n', encoding="utf-8")
    rows, _ = _fetch(tmp_path, _file(tmp_path / "rows.csv"))
    assert [turn["content"] for turn in rows[0]["messages"]] == ["1, 2", "3\n4"]
    assert rows[1]["problem"] == "completion is missing, not a list of turns or text"


# --- columns ------------------------------------------------------------------------------------


def test_columns_are_renamed_first(tmp_path: Path) -> None:
    path = _write_lines(tmp_path / "rows.jsonl", [{"q": "2 + 2?", "a": "4", "prompt": "not this one"}])
    rows, _ = _fetch(tmp_path, _file(path), rename={"q": "prompt", "a": "completion"})
    assert [turn["content"] for turn in rows[0]["messages"]] == ["2 + 2?", "4"]


def test_two_columns_can_swap_names(tmp_path: Path) -> None:
    path = _write_lines(tmp_path / "rows.jsonl", [{"prompt": "x", "chosen": "bad", "rejected": "good"}])
    names = {"chosen": "rejected", "rejected": "chosen"}
    rows, _ = _fetch(tmp_path, _file(path), row_type="preference", rename=names)
    assert (rows[0]["chosen"][0]["content"], rows[0]["rejected"][0]["content"]) == ("good", "bad")


def test_wrong_columns_give_one_line_with_the_nearest_name(tmp_path: Path) -> None:
    path = _write_lines(tmp_path / "rows.jsonl", [{"prompt": "x", "chosen": "a", "rejcted": "b"}])
    assert _refused(tmp_path, _file(path), row_type="preference") == (
        "datasets.mine: preference rows need a column 'chosen' and 'rejected', and the data set has 'chosen', "
        "'prompt', 'rejcted'; did you mean 'rejcted'? set `rename`, or use another data set"
    )


def test_a_named_format_overrides_detection(tmp_path: Path) -> None:
    row = ROWS[0] | {"prompt": "2 + 2?", "completion": "4"}
    path = _write_lines(tmp_path / "rows.jsonl", [row])
    assert _fetch(tmp_path, _file(path))[0][0]["messages"] == ROWS[0]["messages"]
    found = _fetch(tmp_path, _file(path), format="prompt_completion")[0][0]["messages"]
    assert [turn["content"] for turn in found] == ["2 + 2?", "4"]


def test_the_balance_column(tmp_path: Path) -> None:
    kinds = ["algebra", 3, None, ["list"]]
    path = _write_lines(tmp_path / "rows.jsonl", [row | {"kind": kind} for row, kind in zip(ROWS, kinds, strict=True)])
    rows, _ = _fetch(tmp_path, _file(path), balance="kind")
    assert [row["balance"] for row in rows] == ["algebra", "3", None, None]
    assert rows[3]["problem"] == "kind is a list, not a value to balance over"
    assert [row["balance"] for row in _fetch(tmp_path, _file(path))[0]] == [None] * 4


def test_a_column_without_a_name_is_ignored(tmp_path: Path) -> None:
    """A data frame saved as CSV has its row numbers in such a column."""
    (tmp_path / "rows.csv").write_text(",prompt,completion\n0,a,b\n1,c,d\n", encoding="utf-8")
    rows, _ = _fetch(tmp_path, _file(tmp_path / "rows.csv"))
    assert [row["balance"] for row in rows] == [None, None]


def test_an_unknown_balance_column_gives_one_line(tmp_path: Path) -> None:
    path = _write_lines(tmp_path / "rows.jsonl", [row | {"subject": "x"} for row in ROWS])
    said = _refused(tmp_path, _file(path), balance="subjct")
    assert said == "datasets.mine: the data set has no column 'subjct' to balance over; did you mean 'subject'?"
    path = _write_lines(tmp_path / "rows.jsonl", [row | {"a\nb": "x", "\ud800": "x"} for row in ROWS])
    said = _refused(tmp_path, _file(path), balance="kind")
    assert said == "datasets.mine: the data set has no column 'kind' to balance over; known: messages"


# --- folders and the hub ------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in the hub's layout, with two splits."""
    folder = tmp_path / "organisation" / "conversations"
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS[:3]), folder / "data" / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[3:]), folder / "data" / "test-00000-of-00001.parquet")
    return folder


def _hub(repository: Path | str, **more: Any) -> dict[str, Any]:
    return {"kind": "hub", "repository": str(repository), "revision": "main"} | more


def test_a_folder_in_the_hub_layout(tmp_path: Path, folder: Path) -> None:
    rows, facts = _fetch(tmp_path, _hub(folder))
    assert [row["messages"] for row in rows] == [row["messages"] for row in ROWS[:3]]
    assert (facts["origin"], facts["revision"], facts["licence"]) == (f"folder {folder}", None, None)
    rows, _ = _fetch(tmp_path, _hub(folder, split="test"))
    assert [row["messages"] for row in rows] == [ROWS[3]["messages"]]


def test_a_missing_split(tmp_path: Path, folder: Path) -> None:
    said = _refused(tmp_path, _hub(folder, split="dev"))
    assert said.startswith(f"datasets.mine.source: {folder}, split dev, at main: ")


def test_a_folder_with_a_broken_file(tmp_path: Path, folder: Path) -> None:
    (folder / "data" / "train-00000-of-00001.parquet").write_bytes(b"no Parquet")
    said = _refused(tmp_path, _hub(folder))
    assert said.startswith(f"datasets.mine.source: {folder}, split train, at main: ")
    assert "Parquet magic bytes not found" in said


def test_invalid_utf8_in_a_folder_affects_only_its_row(tmp_path: Path, folder: Path) -> None:
    buffers = pa.array([b"good", b"\xff\xfe", b"good too"], pa.binary()).buffers()
    texts = pa.StringArray.from_buffers(3, buffers[1], buffers[2])
    table = pa.table({"prompt": texts, "completion": ["a", "b", "c"]})
    (folder / "data" / "test-00000-of-00001.parquet").unlink()
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    rows, _ = _fetch(tmp_path, _hub(folder))
    assert [row["problem"] for row in rows] == [None, f"{folder}: row 2: invalid UTF-8", None]


@pytest.mark.parametrize("repository", ["nobody/nothing-of-this-name", "data/no/such/folder", "./data"])
def test_an_unreachable_repository(tmp_path: Path, repository: str) -> None:
    said = _refused(tmp_path, _hub(repository))
    assert said.startswith(f"datasets.mine.source: {repository}, split train, at main: ")
    assert said.endswith("or set HF_HOME to a cache that has it")


def test_real_questions(tmp_path: Path, real_hub: Path) -> None:
    rows, _ = _fetch(tmp_path, _hub(real_hub / "openai" / "gsm8k", config="main", split="test"))
    assert len(rows) == 1319
    assert rows[0]["messages"][0]["content"].startswith("Janet")
    assert rows[0]["answer"] == "18" and rows[0]["messages"][1]["content"].endswith("#### 18")


# --- packages and mixtures ----------------------------------------------------------------------


def test_script_with_generated_tasks(tmp_path: Path) -> None:
    run = run_script("data.download_dataset", tmp_path, log="x.log", **_options(PACKAGE))
    assert run.returncode == 0, run.stderr
    rows = pq.read_table(tmp_path / "out" / "source.parquet").to_pylist()
    for row in rows:
        question, solution = row["messages"]
        assert question["role"] == "user" and question["content"].endswith(" =")
        assert solution["content"].endswith(f"Answer: {row['answer']}")
    facts = read_json(tmp_path / "out" / "source.json")["facts"]
    assert (facts["rows"], facts["malformed"], facts["licence"]) == (len(rows), 0, "Apache-2.0") and len(rows) == 5
    assert facts["revision"].count(".") == 2
    assert run.stderr == "download_dataset mine: 5 rows from package reasoning-gym, task chain_sum\n"


def test_generated_tasks_as_prompts(tmp_path: Path) -> None:
    rows, _ = _fetch(tmp_path, PACKAGE, row_type="prompt")
    assert all(len(row["prompt"]) == 1 and row["answer"] for row in rows)


def test_a_mixture(tmp_path: Path) -> None:
    table = [{"q": "2 + 2?", "a": "4"}, {"q": "3 + 3?"}]
    _write_lines(tmp_path / "a.jsonl", ROWS)
    _write_lines(tmp_path / "b.jsonl", table)
    parts = {
        "talks": {"source": _file(tmp_path / "a.jsonl", licence="MIT"), "weight": 1},
        "sums": {"source": PACKAGE, "weight": 2},
        "mine": {"source": _file(tmp_path / "b.jsonl"), "rename": {"q": "problem", "a": "answer"}, "weight": 0.5},
    }
    rows, facts = _fetch(tmp_path, {"kind": "mixture", "parts": parts})
    assert [row["part"] for row in rows] == ["talks"] * 4 + ["sums"] * 5 + ["mine"] * 2
    assert [row["problem"] for row in rows] == [None] * 10 + ["answer is missing"]
    assert facts["origin"] == (
        f"mixture of talks (file {tmp_path}/a.jsonl), sums (package reasoning-gym, task chain_sum), "
        f"mine (file {tmp_path}/b.jsonl)"
    )
    assert facts["licence"] == "Apache-2.0, MIT"
    assert (facts["rows"], facts["malformed"]) == (11, 1)
    assert {name: (part["rows"], part["malformed"]) for name, part in facts["parts"].items()} == {
        "talks": (4, 0),
        "sums": (5, 0),
        "mine": (2, 1),
    }
    assert facts["parts"]["talks"]["files"] == {f"{tmp_path}/a.jsonl": hash_file(tmp_path / "a.jsonl")}


def test_errors_name_the_part_of_a_mixture(tmp_path: Path) -> None:
    _write_lines(tmp_path / "a.jsonl", [{"x": 1}])
    parts = {"sums": {"source": PACKAGE}, "mine": {"source": _file(tmp_path / "a.jsonl")}}
    said = _refused(tmp_path, {"kind": "mixture", "parts": parts})
    assert said.startswith("datasets.mine.source.parts.mine: messages rows need a column 'messages'")
    parts["mine"]["source"]["path"] = str(tmp_path / "none.jsonl")
    said = _refused(tmp_path, {"kind": "mixture", "parts": parts})
    assert said == f"datasets.mine.source.parts.mine.source.path: no file matches {tmp_path}/none.jsonl"


def test_sampled_pairs_are_not_downloaded() -> None:
    source = {"kind": "rejections", "model": "base", "dataset": "x"}
    assert Dataset.model_validate({"source": source}).parts == {}


def test_script_with_a_missing_file_leaves_nothing(tmp_path: Path) -> None:
    run = run_script("data.download_dataset", tmp_path, **_options({"kind": "file", "path": "data/*.jsonl"}))
    assert error_lines(run) == ["error: datasets.mine.source.path: no file matches data/*.jsonl"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
