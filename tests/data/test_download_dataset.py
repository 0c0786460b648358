"""Data sets come whole from files, folders and packages; what cannot be read is one clear line."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from scripts.common.config import DatasetSource
from scripts.common.errors import UserError
from scripts.common.files import hash_file, read_json
from scripts.data.download_dataset import fetch
from tests.common.running import error_lines, run_script

ROWS = [
    {"messages": [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"answer {i}"}]}
    for i in range(4)
]


def _fetch(**source: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    table, facts = fetch("mine", TypeAdapter(DatasetSource).validate_python(source))
    return table.to_pylist(), facts


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_json_lines(tmp_path: Path) -> None:
    path = _write_lines(tmp_path / "rows.jsonl", ROWS)
    rows, facts = _fetch(kind="file", path=str(path))
    assert rows == ROWS
    assert facts == {"origin": f"file {path}", "files": {str(path): hash_file(path)}}


def test_columns_that_the_first_row_lacks_are_kept(tmp_path: Path) -> None:
    """Scores and answers are often given for some rows only."""
    path = _write_lines(tmp_path / "rows.jsonl", [ROWS[0], ROWS[1] | {"answer": "1"}])
    rows, _ = _fetch(kind="file", path=str(path))
    assert [row["answer"] for row in rows] == [None, "1"]


def test_empty_lines_and_windows_line_ends(tmp_path: Path) -> None:
    text = "\r\n".join(["", json.dumps({"text": "a\u2028b"}, ensure_ascii=False), "  ", '{"text": "c"}', ""])
    (tmp_path / "rows.jsonl").write_bytes(text.encode())
    rows, _ = _fetch(kind="file", path=str(tmp_path / "rows.jsonl"))
    assert rows == [{"text": "a\u2028b"}, {"text": "c"}]


def test_a_glob_takes_files_by_name(tmp_path: Path) -> None:
    for name, row in (("b", ROWS[1]), ("a", ROWS[0]), ("c", ROWS[2])):
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"part-{name}.parquet")
    rows, facts = _fetch(kind="file", path=str(tmp_path / "part-*.parquet"))
    assert rows == ROWS[:3]
    assert [Path(path).name for path in facts["files"]] == ["part-a.parquet", "part-b.parquet", "part-c.parquet"]


def test_files_of_two_types_that_do_not_fit_together(tmp_path: Path) -> None:
    _write_lines(tmp_path / "a.jsonl", [{"messages": 1}])
    _write_lines(tmp_path / "b.jsonl", [{"messages": "text"}])
    with pytest.raises(UserError, match=r"^datasets.mine.source.path: .*messages") as caught:
        _fetch(kind="file", path=str(tmp_path / "*.jsonl"))
    assert "\n" not in str(caught.value)


def test_one_column_of_two_types(tmp_path: Path) -> None:
    path = _write_lines(tmp_path / "a.jsonl", [{"messages": "text"}, {"messages": [1]}])
    with pytest.raises(UserError, match=r"^datasets.mine.source.path: ") as caught:
        _fetch(kind="file", path=str(path))
    assert "\n" not in str(caught.value)


def test_half_a_character_is_one_clear_line(tmp_path: Path) -> None:
    """JSON can hold half of a surrogate pair, which is no text: it cannot be written as UTF-8."""
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": "\\ud800"}\n')
    with pytest.raises(UserError) as caught:
        _fetch(kind="file", path=str(tmp_path / "a.jsonl"))
    assert "\n" not in str(caught.value) and "a.jsonl" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "problem"), [('{"messages": [', "no valid JSON"), ("[1]", "a JSON object is needed, found list")]
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n\n" + line + "\n")
    with pytest.raises(UserError) as caught:
        _fetch(kind="file", path=str(path))
    assert str(caught.value).startswith(f"{path}:3: {problem}")
    assert "\n" not in str(caught.value)


def test_no_parquet_inside_a_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("no Parquet")
    with pytest.raises(UserError, match=r"^datasets.mine.source.path: ") as caught:
        _fetch(kind="file", path=str(tmp_path / "rows.parquet"))
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_layout_of_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "organisation" / "conversations"
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS[:3]), folder / "data" / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[3:]), folder / "data" / "test-00000-of-00001.parquet")
    rows, facts = _fetch(kind="hub", repository=str(folder), revision="main")
    assert rows == ROWS[:3]
    assert facts["origin"] == f"folder {folder}"
    rows, _ = _fetch(kind="hub", repository=str(folder), revision="main", split="test")
    assert rows == ROWS[3:]
    with pytest.raises(UserError, match="split dev") as caught:
        _fetch(kind="hub", repository=str(folder), revision="main", split="dev")
    assert "\n" not in str(caught.value)


def test_a_repository_that_is_not_in_reach() -> None:
    with pytest.raises(UserError) as caught:
        _fetch(kind="hub", repository="nobody/nothing-of-this-name", revision="main")
    assert str(caught.value).startswith("datasets.mine.source: nobody/nothing-of-this-name, split train, at main: ")
    assert str(caught.value).endswith("or set HF_HOME to a filled cache") and "\n" not in str(caught.value)


def test_real_questions(real_hub: Path) -> None:
    repository = str(real_hub / "openai" / "gsm8k")
    rows, _ = _fetch(kind="hub", repository=repository, config="main", revision="main", split="test")
    assert len(rows) == 1319
    assert rows[0]["question"].startswith("Janet")


def test_rejections_are_not_downloaded() -> None:
    with pytest.raises(UserError, match="sampled from a model"):
        _fetch(kind="rejections", model="base", dataset="x")


def test_script_with_made_tasks(tmp_path: Path) -> None:
    source = {"kind": "package", "package": "reasoning-gym", "task": "chain_sum", "size": 5, "seed": 3}
    files = {"output": tmp_path / "out" / "rows.parquet", "manifest": tmp_path / "out" / "source.json"}
    run = run_script("data.download_dataset", tmp_path, name="sums", config=source, log="x.log", **files)
    assert run.returncode == 0, run.stderr
    rows = pq.read_table(files["output"]).to_pylist()
    for row in rows:
        question, solution = row["messages"]
        assert question["role"] == "user" and question["content"].endswith(" =")
        assert solution["content"].endswith(f"Answer: {row['answer']}")
    manifest = read_json(files["manifest"])
    assert manifest["facts"]["rows"] == len(rows) == 5
    assert manifest["facts"]["sha256"] == hash_file(files["output"])
    assert run.stderr == "download_dataset sums: 5 rows from package reasoning-gym, task chain_sum\n"


def test_script_with_a_missing_file(tmp_path: Path) -> None:
    run = run_script(
        "data.download_dataset",
        tmp_path,
        name="mine",
        config={"kind": "file", "path": "data/*.jsonl"},
        output="rows.parquet",
        manifest="source.json",
    )
    assert error_lines(run) == ["error: datasets.mine.source.path: no file matches data/*.jsonl"]
    assert list(tmp_path.iterdir()) == [], "a refused data set leaves nothing behind"
