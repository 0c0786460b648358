"""Accuracy on preference pairs, by log-probabilities that do not depend on batches and padding."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.common.files import hash_json, read_json, read_json_lines
from scripts.common.manifest import find_model
from scripts.data.schemas import SCHEMAS, from_preference
from scripts.evaluate.likelihood import sum_log_probabilities
from scripts.evaluate.score_preferences import encode
from tests.common.running import call_main, run_script

PAIRS = [
    ("2 + 2?", "4", "5"),
    ("Say something long, please. " * 4, "yes " * 25, "no"),
    ("Say nothing.", "the same answer", "the same answer"),
    ("?", "a", "b" * 60),
    ("2 + 3?", "The answer is 5.", "The answer is 6."),
    ("Grüße?", "世界 🙂", "-"),
    ("x", "assistant\n", "\n"),
]


def _naive(model: Any, tokenizer: Any, pair: dict[str, Any], side: str) -> float:
    """Log-probability of an answer, computed for one text without padding."""
    start = tokenizer.apply_chat_template(pair["prompt"], tokenize=False, add_generation_prompt=True)
    answer = pair[side][-1]["content"] + "<|im_end|>"
    prompt, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (start, start + answer))
    with torch.no_grad():
        chances = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return float(sum(chances[i - 1, whole[i]] for i in range(len(prompt), len(whole))))


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(find_model(tiny_model), dtype="float32").eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(find_model(tiny_model))


def test_answers_are_scored_up_to_their_end_of_turn(tokenizer: Any) -> None:
    prompt = [{"role": "user", "content": "2 + 2?"}]
    tokens, counted = encode(tokenizer, prompt, [{"role": "assistant", "content": "4!"}])
    length = sum(counted)
    assert counted == [0] * (len(tokens) - length) + [1] * length
    assert tokenizer.decode(tokens[-length:]) == "4!<|im_end|>"
    assert tokenizer.decode(tokens[:-length]).endswith("<|im_start|>assistant\n")


def _rows(texts: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    return [
        {"source_index": i} | from_preference({"prompt": p, "chosen": c, "rejected": r})
        for i, (p, c, r) in enumerate(texts)
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.usefixtures("exact_products")
def test_sums_do_not_depend_on_the_batch(model: Any, tokenizer: Any, batch_size: int) -> None:
    sides = [(row, side) for row in _rows(PAIRS) for side in ("chosen", "rejected")]
    encoded = [encode(tokenizer, row["prompt"], row[side]) for row, side in sides]
    sums = sum_log_probabilities(model, encoded, tokenizer.pad_token_id, batch_size, "test")
    for (row, side), found in zip(sides, sums, strict=True):
        assert found == pytest.approx(_naive(model, tokenizer, row, side), abs=1e-4)


@pytest.mark.slow
def test_script(tmp_path: Path, tiny_model: Path, model: Any, tokenizer: Any) -> None:
    """Among the pairs are ties whose sides could get different padding. Last bits must not decide them."""
    ties = [("q" * n, "the same answer", "the same answer") for n in range(1, 30, 2)]
    rows = _rows(PAIRS + ties)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS["preference"]), tmp_path / "pairs.parquet")
    run = run_script(
        "evaluate.score_preferences",
        tmp_path,
        dataset="pairs",
        pairs="pairs.parquet",
        dtype="float32",
        cpus=1,
        model=tiny_model,
        model_name="base",
        scores="base/pairs.json",
        items="base/pairs.items.jsonl",
    )
    assert run.returncode == 0, run.stderr
    items = read_json_lines(tmp_path / "base" / "pairs.items.jsonl")
    for row, item in zip(rows, items, strict=True):
        for side in ("chosen", "rejected"):
            # Less exact than above, since products may be bfloat16 here.
            assert item[f"{side}_log_probability"] == pytest.approx(_naive(model, tokenizer, row, side), abs=0.1)
        assert item["score"] == float(item["chosen_log_probability"] > item["rejected_log_probability"])
    assert [item["score"] for item in items[len(PAIRS) :]] == [0.0] * len(ties), "a tie does not count as right"
    assert sum(item["score"] for item in items) > 0
    assert len({item["key"] for item in items}) == len(rows)
    written = read_json(tmp_path / "base" / "pairs.json")
    assert written["n"] == len(rows)
    assert written["score"] == pytest.approx(sum(item["score"] for item in items) / len(rows))
    assert (written["benchmark"], written["model"], written["metric"]) == ("pairs", "base", "preference_accuracy")
    others = {other["metric"]: other for other in written["others"]}
    margins = [item["chosen_log_probability"] - item["rejected_log_probability"] for item in items]
    assert others["margin"]["score"] == pytest.approx(sum(margins) / len(rows))
    assert others["margin"]["ci_low"] < others["margin"]["score"] < others["margin"]["ci_high"]
    assert others["rejected_loss"]["n"] == len(rows)


def test_means_are_over_the_tokens_of_answers(tmp_path: Path, tiny_model: Path, tokenizer: Any) -> None:
    """A token is a byte here. An answer has one more for its end of turn. The prompt does not count."""
    rows = _rows(PAIRS)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS["preference"]), tmp_path / "pairs.parquet")
    given = {"dataset": "pairs", "pairs": "pairs.parquet", "dtype": "bfloat16", "cpus": 1, "model": tiny_model}
    made = {"scores": "pairs.json", "items": "pairs.items.jsonl"}
    call_main("evaluate.score_preferences", tmp_path, model_name="base", **given, **made)
    items, written = read_json_lines(tmp_path / "pairs.items.jsonl"), read_json(tmp_path / "pairs.json")
    shown = [(item["prompt"], item["target"], item["answer"]) for item in items]
    assert shown == PAIRS, "the target is the chosen answer"

    chosen, rejected = (
        [
            item[f"{side}_log_probability"] / (len(pair[place].encode()) + 1)
            for item, pair in zip(items, PAIRS, strict=True)
        ]
        for place, side in ((1, "chosen"), (2, "rejected"))
    )
    won = [one > other for one, other in zip(chosen, rejected, strict=True)]
    assert won != [item["score"] == 1 for item in items], "means and sums must differ in some pair"
    assert not won[2], "a tie does not count as right"
    others = {other["metric"]: other for other in written["others"]}
    assert others["preference_accuracy_by_mean"]["score"] == pytest.approx(sum(won) / len(PAIRS))
    assert others["chosen_loss"]["score"] == pytest.approx(-sum(chosen) / len(PAIRS))
    assert others["rejected_loss"]["score"] == pytest.approx(-sum(rejected) / len(PAIRS))
    assert {name: other["is_share"] for name, other in others.items()} == {
        "preference_accuracy_by_mean": True,
        "chosen_loss": False,
        "rejected_loss": False,
        "margin": False,
    }
    assert others["chosen_loss"]["ci_high"] > 1, "a loss is not limited to 0 to 1"
    assert written["protocol"] == {
        "likelihood": "sum of token log-probabilities",
        "chat_template_sha256": hash_json(tokenizer.chat_template),
        "dtype": "bfloat16",
    }
    assert written["provenance"]["inputs"].keys() == {"model", "pairs"}
