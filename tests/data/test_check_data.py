"""The check shows what a data set is, what is wrong with it, and what the model will learn from it."""

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from scripts.common.data_config import Form
from scripts.common.files import read_json, write_json_lines
from scripts.common.manifest import find_model
from scripts.data.check_data import EXAMPLES, LONGEST, describe, mark_trained, read_whole, visible
from tests.common.running import call_main, run_script

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "2 + 2? 中文 😀"}
RIGHT = {"role": "assistant", "content": "It is 4 ⁂ 中文 😀"}
WRONG = {"role": "assistant", "content": "It is 5"}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(find_model(tiny_model))


def _bring(folder: Path, name: str, form: Form, rows: list[dict[str, Any]]) -> Path:
    """A data set as `download_dataset` brings it in."""
    write_json_lines(folder / f"{name}.jsonl", rows)
    path = folder / name / "source.parquet"
    source = {"kind": "file", "path": str(folder / f"{name}.jsonl"), "licence": "MIT"}
    made = {"output": path, "manifest": path.with_suffix(".json")}
    call_main("data.download_dataset", folder, name=name, form=form, config={"source": source}, **made)
    return path


def _describe(path: Path, form: Form, tokenizer: Any) -> list[str]:
    return list(describe(path, form, read_json(path.with_suffix(".json"))["facts"], tokenizer))


# --- the trained span ---------------------------------------------------------------------------


def test_what_the_assistant_says_is_marked(tokenizer: Any) -> None:
    assert mark_trained(tokenizer, [SYSTEM, USER, RIGHT, USER, WRONG]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n2 + 2? 中文 😀<|im_end|>\n"
        "<|im_start|>assistant\n⟦It is 4 ⁂ 中文 😀<|im_end|>⟧\n"
        "<|im_start|>user\n2 + 2? 中文 😀<|im_end|>\n"
        "<|im_start|>assistant\n⟦It is 5<|im_end|>⟧"
    )


@pytest.mark.parametrize("text", ["", " ", "\n", " x ", "\nx\n", "x" * 300, "user\nassistant", "a\tb"])
def test_the_marks_stand_exactly_around_the_tokens(tokenizer: Any, text: str) -> None:
    """Without its marks the text is what the template gives, and what is marked is what the mask has."""
    turns = [USER, {"role": "assistant", "content": text}]
    shown = mark_trained(tokenizer, turns)
    assert shown.replace("⟦", "").replace("⟧", "") == tokenizer.apply_chat_template(turns, tokenize=False).rstrip("\n")
    encoded = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    learnt = [t for t, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert re.findall("⟦(.*?)⟧", shown, re.DOTALL) == [tokenizer.decode(learnt)] == [f"{text}<|im_end|>"]


def test_of_compared_answers_only_the_last_turn_is_learnt(tokenizer: Any) -> None:
    turns = [USER, RIGHT, USER, WRONG]
    assert mark_trained(tokenizer, turns).count("⟦") == 2
    assert mark_trained(tokenizer, turns, last_only=True).endswith("assistant\n⟦It is 5<|im_end|>⟧")
    assert mark_trained(tokenizer, turns, last_only=True).count("⟦") == 1


def test_a_prompt_has_nothing_to_learn(tokenizer: Any) -> None:
    assert mark_trained(tokenizer, [USER]) == "<|im_start|>user\n2 + 2? 中文 😀<|im_end|>"


def test_long_texts_are_cut_before_the_answer(tokenizer: Any) -> None:
    shown = mark_trained(tokenizer, [{"role": "user", "content": "word " * 2000}, WRONG])
    assert LONGEST <= len(shown) <= LONGEST + 3 and " … " in shown
    assert shown.startswith("<|im_start|>user\nword word") and shown.endswith("⟦It is 5<|im_end|>⟧")


def test_texts_do_not_act_on_the_terminal(tokenizer: Any) -> None:
    turns = [{"role": "user", "content": "\x1b[2J\x1b]0;title\x07\r\x9b1m\x00"}]
    assert visible(turns[0]["content"]) == "\\x1b[2J\\x1b]0;title\\x07\\r\\x9b1m\\x00"
    assert "\x1b" not in mark_trained(tokenizer, turns) and "\\x1b[2J" in mark_trained(tokenizer, turns)
    assert visible("a\n\tb中") == "a\n\tb中"


# --- what is said -------------------------------------------------------------------------------


def test_messages_with_their_problems(tmp_path: Path, tokenizer: Any) -> None:
    tool = [{"role": "tool", "content": ""}]
    values: list[Any] = [[USER, WRONG], [], [USER, RIGHT], tool, [], [USER, RIGHT], 4, "a fourth kind of problem"]
    path = _bring(tmp_path, "mine", "messages", [{"messages": value} for value in values])
    lines = _describe(path, "messages", tokenizer)
    assert lines[:6] == [
        f"== mine: 8 messages rows from file {tmp_path}/mine.jsonl",
        "   revision none, licence MIT",
        "   5 rows cannot be read:",
        "   row 1: messages has no turn",
        "   row 3: messages: turn 1 has the role 'tool'; user, assistant and system are known",
        "   row 6: messages is a number, not a list of turns",
    ]
    assert lines[6::2] == [f"-- mine, row {i}, as the model sees it:" for i in (0, 2, 5)]
    assert [line.count("⟦") for line in lines[7::2]] == [1, 1, 1] and "It is 5" in lines[7]


def test_pairs_show_both_sides(tmp_path: Path, tokenizer: Any) -> None:
    row = {"prompt": [USER, WRONG, USER], "chosen": [RIGHT], "rejected": [WRONG]}
    lines = _describe(_bring(tmp_path, "pairs", "preference", [row]), "preference", tokenizer)
    assert lines[2:4] == ["   0 rows cannot be read", "-- pairs, row 0, chosen:"]
    assert lines[4].endswith("⟦It is 4 ⁂ 中文 😀<|im_end|>⟧") and lines[4].count("⟦") == 1
    assert lines[5] == "-- pairs, row 0, rejected:"
    assert lines[6].endswith("⟦It is 5<|im_end|>⟧") and lines[6].count("⟦") == 1
    assert lines[4].rpartition("⟦")[0] == lines[6].rpartition("⟦")[0], "both answer one prompt"
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("form", "row"),
    [("kto", {"prompt": "2 + 2?", "completion": "4", "label": False}), ("prompt", {"prompt": "2 + 2?"})],
)
def test_rows_of_other_kinds(tmp_path: Path, tokenizer: Any, form: Form, row: dict[str, Any]) -> None:
    lines = _describe(_bring(tmp_path, "mine", form, [row]), form, tokenizer)
    assert lines[3] == "-- mine, row 0, as the model sees it:"
    assert lines[4].count("⟦") == (form == "kto") and "2 + 2?" in lines[4]


def test_nothing_but_problems(tmp_path: Path, tokenizer: Any) -> None:
    path = _bring(tmp_path, "mine", "messages", [{"messages": number} for number in range(200)])
    assert read_whole(path, EXAMPLES) == []
    assert _describe(path, "messages", tokenizer)[2:] == [
        "   200 rows cannot be read:",
        "   row 0: messages is a number, not a list of turns",
    ]


def test_the_first_good_rows_are_shown(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"messages": None}] * 250 + [{"messages": [USER, RIGHT]}] * 10
    path = _bring(tmp_path, "mine", "messages", rows)
    assert [row["source_index"] for row in read_whole(path, EXAMPLES)] == [250, 251, 252]


def test_script_on_two_data_sets(tmp_path: Path, tiny_model: Path) -> None:
    paths = [
        _bring(tmp_path, "talks", "messages", [{"messages": [USER, RIGHT]}]),
        _bring(tmp_path, "pairs", "preference", [{"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}]),
    ]
    run = run_script(
        "data.check_data", tmp_path, model=tiny_model, rows=paths, forms=["messages", "preference"], log="check.log"
    )
    assert run.returncode == 0, run.stderr
    heads = [line for line in run.stderr.splitlines() if line.startswith("==")]
    assert [head.split(" rows")[0] for head in heads] == ["== talks: 1 messages", "== pairs: 1 preference"]
    assert run.stderr.count("⟦") == run.stderr.count("⟧") == 3
    assert run.stderr in (tmp_path / "check.log").read_text(encoding="utf-8")


def test_no_data_set_to_check(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_main("data.check_data", tmp_path, model=tiny_model)
    assert "check_data: no data set to check" in capsys.readouterr().err
