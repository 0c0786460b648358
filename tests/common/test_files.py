"""Files are written atomically, and reading returns what was written."""

import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.common.files import (
    hash_file,
    hash_json,
    read_json,
    read_json_lines,
    write_json,
    write_json_lines,
    write_text,
    written_whole,
)


def test_an_error_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_whole(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"table.json": "old"}


def test_the_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "table.parquet"
    with written_whole(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.suffix == path.suffix, "some writers choose their format by the suffix"
    assert [p.name for p in path.parent.iterdir()] == ["table.parquet"]


def test_the_group_can_read_and_write_files(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "x")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o664


def test_nan_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"score": float("nan")})
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text() | st.integers() | st.none(), max_size=3), max_size=5))
def test_json_lines_are_read_back_unchanged(rows: list[dict[str, str | int | None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_json_lines(Path(folder) / "rows.jsonl", rows)
        assert read_json_lines(Path(folder) / "rows.jsonl") == rows


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\r", "\n"])
def test_separators_in_texts_do_not_split_a_line(tmp_path: Path, separator: str) -> None:
    rows = [{"answer": f"one{separator}two"}]
    write_json_lines(tmp_path / "rows.jsonl", rows)
    assert read_json_lines(tmp_path / "rows.jsonl") == rows


def test_json_ends_with_a_newline_and_is_not_escaped(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"title": "训练"})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text.endswith("}\n") and "训练" in text
    assert read_json(tmp_path / "x.json") == {"title": "训练"}


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert hash_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1}) != hash_json({"a": 1, "b": [3]})
