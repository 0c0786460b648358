"""The check shows the origin of a data set, its malformed rows, and what the model is trained on."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from scripts.common.config import RowType
from scripts.common.files import read_json, write_json_lines
from scripts.common.manifest import find_model
from scripts.data.check_data import EXAMPLES, describe, read_first_rows
from tests.common.running import call_main, run_script

USER = {"role": "user", "content": "2 + 2? 中文 😀"}
RIGHT = {"role": "assistant", "content": "It is 4 ⁂ 中文 😀"}
WRONG = {"role": "assistant", "content": "It is 5"}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(find_model(tiny_model))


def _download(folder: Path, name: str, row_type: RowType, rows: list[dict[str, Any]]) -> Path:
    """Write a data set as `download_dataset` does."""
    write_json_lines(folder / f"{name}.jsonl", rows)
    path = folder / name / "source.parquet"
    source = {"kind": "file", "path": str(folder / f"{name}.jsonl"), "licence": "MIT"}
    made = {"output": path, "manifest": path.with_suffix(".json")}
    call_main("data.download_dataset", folder, name=name, row_type=row_type, config={"source": source}, **made)
    return path


def _describe(path: Path, row_type: RowType, tokenizer: Any) -> list[str]:
    return list(describe(path, row_type, read_json(path.with_suffix(".json")), tokenizer))


def test_messages_with_their_problems(tmp_path: Path, tokenizer: Any) -> None:
    tool = [{"role": "tool", "content": ""}]
    values: list[Any] = [[USER, WRONG], [], [USER, RIGHT], tool, [], [USER, RIGHT], 4, "a fourth kind of problem"]
    path = _download(tmp_path, "mine", "messages", [{"messages": value} for value in values])
    lines = _describe(path, "messages", tokenizer)
    assert lines[:6] == [
        f"== mine: 8 messages rows from file {tmp_path}/mine.jsonl",
        "   revision none, licence MIT",
        "   5 rows cannot be read:",
        "   row 1: messages has no turns",
        "   row 3: messages: turn 1 has the role 'tool'; user, assistant and system are known",
        "   row 6: messages is a number, not a list of turns",
    ]
    assert lines[6::2] == [f"-- mine, row {i}, as the model sees it:" for i in (0, 2, 5)]
    assert [line.count("⟦") for line in lines[7::2]] == [1, 1, 1] and "It is 5" in lines[7]


def test_pairs_show_both_sides(tmp_path: Path, tokenizer: Any) -> None:
    row = {"prompt": [USER, WRONG, USER], "chosen": [RIGHT], "rejected": [WRONG]}
    lines = _describe(_download(tmp_path, "pairs", "preference", [row]), "preference", tokenizer)
    assert lines[2:4] == ["   0 rows cannot be read", "-- pairs, row 0, chosen:"]
    assert lines[4].endswith("⟦It is 4 ⁂ 中文 😀<|im_end|>⟧") and lines[4].count("⟦") == 1
    assert lines[5] == "-- pairs, row 0, rejected:"
    assert lines[6].endswith("⟦It is 5<|im_end|>⟧") and lines[6].count("⟦") == 1
    assert lines[4].rpartition("⟦")[0] == lines[6].rpartition("⟦")[0], "both answer one prompt"
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("row_type", "row"),
    [("kto", {"prompt": "2 + 2?", "completion": "4", "label": False}), ("prompt", {"prompt": "2 + 2?"})],
)
def test_rows_of_other_types(tmp_path: Path, tokenizer: Any, row_type: RowType, row: dict[str, Any]) -> None:
    lines = _describe(_download(tmp_path, "mine", row_type, [row]), row_type, tokenizer)
    assert lines[3] == "-- mine, row 0, as the model sees it:"
    assert lines[4].count("⟦") == (row_type == "kto") and "2 + 2?" in lines[4]


def test_only_malformed_rows(tmp_path: Path, tokenizer: Any) -> None:
    path = _download(tmp_path, "mine", "messages", [{"messages": number} for number in range(200)])
    assert read_first_rows(path, EXAMPLES) == []
    assert _describe(path, "messages", tokenizer)[2:] == [
        "   200 rows cannot be read:",
        "   row 0: messages is a number, not a list of turns",
    ]


def test_the_first_well_formed_rows_are_shown(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"messages": None}] * 250 + [{"messages": [USER, RIGHT]}] * 10
    path = _download(tmp_path, "mine", "messages", rows)
    assert [row["source_index"] for row in read_first_rows(path, EXAMPLES)] == [250, 251, 252]


def test_script_on_two_data_sets(tmp_path: Path, tiny_model: Path) -> None:
    paths = [
        _download(tmp_path, "talks", "messages", [{"messages": [USER, RIGHT]}]),
        _download(tmp_path, "pairs", "preference", [{"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}]),
    ]
    given = {"rows": paths, "manifests": [path.with_suffix(".json") for path in paths]}
    types = ["messages", "preference"]
    run = run_script("data.check_data", tmp_path, model=tiny_model, **given, row_types=types, log="check.log")
    assert run.returncode == 0, run.stderr
    heads = [line for line in run.stderr.splitlines() if line.startswith("==")]
    assert [head.split(" rows")[0] for head in heads] == ["== talks: 1 messages", "== pairs: 1 preference"]
    assert run.stderr.count("⟦") == run.stderr.count("⟧") == 3
    assert run.stderr in (tmp_path / "check.log").read_text(encoding="utf-8")


def test_no_data_set_to_check(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_main("data.check_data", tmp_path, model=tiny_model)
    assert "check_data: no data set to check" in capsys.readouterr().err
