"""The proof of the template counts trained tokens, and refuses rows that would teach nothing."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.common.manifest import find_model
from scripts.train.proof import mask_last, prove_template
from tests.train.stages import chat, make_job


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(find_model(tiny_model))


def test_the_share_of_trained_tokens(tmp_path: Path, tokenizer: Any) -> None:
    rows = Dataset.from_list([{"messages": chat(1)["messages"]}, {"messages": chat(22)["messages"]}])
    texts = [
        tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=True)["input_ids"] for row in rows
    ]
    trained = 2 * (len("yes yes yes") + 1)  # one token for each byte, and the end of the turn
    proof = prove_template(rows, tokenizer, make_job(tmp_path), max_length=None)
    assert proof["trained_token_share"] == round(trained / sum(map(len, texts)), 4) and proof["cut_rows"] == 0


def test_rows_that_are_cut_are_counted(tmp_path: Path, tokenizer: Any) -> None:
    """A row with a part of its answer still trains something; a row without an answer trains nothing."""
    rows = Dataset.from_list([{"messages": chat(1)["messages"]}, {"messages": chat(22)["messages"]}])
    encoded = tokenizer.apply_chat_template(rows[1]["messages"], tokenize=True, return_dict=True)["input_ids"]
    # The line feed after the end of the turn is not trained.
    assert prove_template(rows, tokenizer, make_job(tmp_path), max_length=len(encoded) - 2)["cut_rows"] == 1
    with pytest.raises(UserError, match=r"row 0 of the training rows, cut at max_length 8: no token would be trained"):
        prove_template(rows, tokenizer, make_job(tmp_path), max_length=8)


def test_the_trained_share_of_cut_rows(tmp_path: Path, tokenizer: Any) -> None:
    """A token is a byte or a mark of the template. A row has 37: 13 of the question, 11 of the mark and role of the
    answer, 12 trained ones of the answer and its end, and a line feed. The first 30 include 6 of the 12.
    """
    rows = Dataset.from_list([{"messages": chat(1)["messages"]}] * 3)
    proof = prove_template(rows, tokenizer, make_job(tmp_path), max_length=30)
    assert (proof["trained_token_share"], proof["cut_rows"]) == (6 / 30, 3)


def test_rows_are_numbered_across_batches(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.train.proof.BATCH", 2)
    rows = Dataset.from_list([{"messages": chat(i)["messages"][: 1 if i == 3 else 2]} for i in range(5)])
    with pytest.raises(UserError, match=r"row 3 of the training rows: no token would be trained"):
        prove_template(rows, tokenizer, make_job(tmp_path), max_length=None)
    rows = Dataset.from_list([{"messages": chat(1)["messages"]}] * 5)
    assert prove_template(rows, tokenizer, make_job(tmp_path), max_length=30)["cut_rows"] == 5


ANSWER = [{"role": "assistant", "content": "one"}]
SIDES: dict[str, dict[str, Any]] = {
    "dpo": {"chosen": ANSWER, "rejected": [{"role": "assistant", "content": "two"}]},
    "kto": {"completion": ANSWER, "label": False},
}
SIDES["orpo"] = SIDES["dpo"]


@pytest.mark.parametrize("method", SIDES)
def test_earlier_answers_are_not_trained(tmp_path: Path, tokenizer: Any, method: str) -> None:
    """The turns have 13, 24, 13 and 16 tokens. Of the last turn, "one" and its end are trained."""
    prompt = [*chat(1)["messages"], {"role": "user", "content": "again"}]
    rows = Dataset.from_list([{"prompt": prompt} | SIDES[method]] * 2)
    facts = prove_template(rows, tokenizer, make_job(tmp_path, method=method), None)
    assert facts["trained_token_share"] == round(4 / 66, 4)


def test_a_pair_that_is_cut_counts_once(tmp_path: Path, tokenizer: Any) -> None:
    rows = Dataset.from_list([{"prompt": chat(1)["messages"][:1]} | SIDES["dpo"]] * 3)
    facts = prove_template(rows, tokenizer, make_job(tmp_path, method="dpo"), max_length=26)
    # 13 tokens of the question, 11 of the mark and role, and two letters.
    assert (facts["cut_rows"], facts["trained_token_share"]) == (3, round(2 / 26, 4))


def test_a_row_that_trains_nothing_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    rows = Dataset.from_list([{"messages": chat(1)["messages"]}, {"messages": chat(2)["messages"][:1]}])
    with pytest.raises(UserError, match=r"^stages.mine: row 1 of the training rows: no token would be trained; fix"):
        prove_template(rows, tokenizer, make_job(tmp_path), max_length=None)


def test_a_template_that_does_not_train_the_end_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(find_model(tiny_model))
    inside = "{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}"
    outside = "{{- message['content'] -}}{%- endgeneration -%}{{- '<|im_end|>' -}}"
    assert inside in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(inside, outside)
    with pytest.raises(UserError, match="row 0 of the training rows: the end of the turn would not be trained"):
        prove_template(Dataset.from_list([{"messages": chat(1)["messages"]}]), tokenizer, make_job(tmp_path), None)


@pytest.mark.parametrize(
    ("mask", "last"),
    [([0, 1, 1, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1, 0]), ([1, 1], [1, 1]), ([0, 0], [0, 0]), ([1, 0], [1, 0]), ([], [])],
)
def test_the_last_span(mask: list[int], last: list[int]) -> None:
    assert mask_last(mask) == last


def test_the_proof_is_written_next_to_the_stage(tmp_path: Path, tokenizer: Any) -> None:
    """Pairs train only the answers, even if the prompt has an assistant turn."""
    turns = [*chat(1)["messages"], {"role": "user", "content": "again"}]
    sides = {side: [{"role": "assistant", "content": text}] for side, text in (("chosen", "one"), ("rejected", "two"))}
    job = make_job(tmp_path, method="dpo")
    facts = prove_template(Dataset.from_list([{"prompt": turns} | sides] * 5), tokenizer, job, None)
    assert read_json(tmp_path / "mine" / "proof.json") == facts
    assert [shown["row"] for shown in facts["proof"]] == [0, 1, 2]
    before = "<|im_start|>user\nsay 1<|im_end|>\n<|im_start|>assistant\nyes yes yes<|im_end|>\n"
    before += "<|im_start|>user\nagain<|im_end|>\n<|im_start|>assistant\n"
    assert facts["proof"][0]["texts"] == [f"{before}⟦{text}<|im_end|>⟧" for text in ("one", "two")]


def test_prompts_are_shown_without_a_check(tmp_path: Path, tokenizer: Any) -> None:
    rows = Dataset.from_list([{"prompt": chat(1)["messages"][:1], "answer": "1"}])
    facts = prove_template(rows, tokenizer, make_job(tmp_path, method="grpo"), None)
    assert facts["trained_token_share"] is None and "say 1" in facts["proof"][0]["texts"][0]
