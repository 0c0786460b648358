"""Answers to held-out rows: written by the model's own greedy choice, and held against the rows' own."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.common.config import Responses
from scripts.common.files import read_json, read_json_lines
from scripts.common.manifest import find_model
from scripts.data.schemas import SCHEMAS
from scripts.evaluate.generate_responses import Turns, answer
from scripts.evaluate.score_responses import Words, corpus_metrics, describe_corpus
from tests.common.running import call_main, run_script

PAIRS = [
    ("the cat sat on the mat", "the cat sat on the mat"),
    ("a dog ran", "the dog ran away quickly today"),
    ("今天天气很好，我们去公园。", "今天天气不错，我们去公园玩。"),
    ("", "something"),
    ("Mixed 中文 and English words here", "Mixed 中文 with English words there"),
]
"""What a model says, and what the row does."""


def _row(answer: str, target: str, place: int = 0) -> dict[str, Any]:
    counts = {"log_probability": -2.0 - place, "tokens": 4 + place}
    return {"key": str(place), "prompt": "p", "target": target, "answer": answer, "is_cut": place == 3} | counts


ROWS = [_row(answer, target, place) for place, (answer, target) in enumerate(PAIRS)]


def test_bleu_is_that_of_sacrebleu() -> None:
    everything = np.arange(len(ROWS))
    theirs = corpus_bleu([row["answer"] for row in ROWS], [[row["target"] for row in ROWS]], tokenize="zh").score
    assert corpus_metrics(ROWS)["bleu4"](everything) == pytest.approx(theirs / 100)
    some = np.array([0, 2, 2, 4])
    theirs = corpus_bleu([ROWS[i]["answer"] for i in some], [[ROWS[i]["target"] for i in some]], tokenize="zh").score
    assert corpus_metrics(ROWS)["bleu4"](some) == pytest.approx(theirs / 100), "of any draw of rows"


def test_loss_and_lengths_by_hand() -> None:
    everything = np.arange(len(ROWS))
    metrics = corpus_metrics(ROWS)
    assert metrics["loss"](everything) == pytest.approx((2 + 3 + 4 + 5 + 6) / (4 + 5 + 6 + 7 + 8))
    assert metrics["perplexity"](everything) == pytest.approx(math.exp(20 / 30))
    assert metrics["length_ratio"](np.array([1])) == pytest.approx(3 / 6)
    assert math.isnan(metrics["length_correlation"](np.array([1, 1])))
    assert describe_corpus(metrics["length_correlation"], 1)["score"] is None


def test_words_of_chinese_are_its_characters() -> None:
    assert Words().tokenize("Das Wetter, 今天 ok_2!") == ["das", "wetter", "今", "天", "ok", "2"]
    assert Words().tokenize("语言Python很好3个") == ["语", "言", "python", "很", "好", "3", "个"]
    scorer = RougeScorer(["rouge1"], tokenizer=Words())
    assert scorer.score("今天天气", "今天天冷")["rouge1"].fmeasure == pytest.approx(0.75)


def test_an_answer_that_ends_by_any_end_is_whole(tiny_model: Path) -> None:
    """A base model ends a text with a token of its own, not with that of a turn."""
    folder = find_model(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    config = Responses(rows=1, max_new_tokens=3, batch_size=1)
    prompts: list[Turns] = [[{"role": "user", "content": "say"}]]
    ((_, is_cut),) = answer(model, tokenizer, prompts, config, "test")
    assert is_cut
    asked = tokenizer.apply_chat_template(prompts[0], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    first = int(model.generate(**asked, do_sample=False, max_new_tokens=1)[0, -1])
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, first]
    ((_, is_cut),) = answer(model, tokenizer, prompts, config, "test")
    assert not is_cut


@pytest.mark.slow
def test_scripts(tmp_path: Path, tiny_model: Path) -> None:
    """The first answer is the one that the model gives alone; the loss is that of each row alone."""
    said = ["yes", "今天很好。", "a longer answer than the others", "no", "4", "fine", "beyond the sixth"]
    conversations = [
        [{"role": "user", "content": f"say {place}"}, {"role": "assistant", "content": text}]
        for place, text in enumerate(said)
    ]
    pq.write_table(
        pa.Table.from_pylist(
            [{"source_index": i, "messages": turns, "answer": None} for i, turns in enumerate(conversations)],
            schema=SCHEMAS["messages"],
        ),
        tmp_path / "rows.parquet",
    )
    config = {"rows": 6, "max_new_tokens": 5, "batch_size": 4}
    made = {"output": "answers.jsonl", "manifest": "answers.manifest.json"}
    given = {"dataset": "sums", "rows": "rows.parquet", "dtype": "float32", "cpus": 1, "model": tiny_model}
    run = run_script("evaluate.generate_responses", tmp_path, config=config, model_name="base", **given, **made)
    assert run.returncode == 0, run.stderr
    answers = read_json_lines(tmp_path / "answers.jsonl")
    assert len(answers) == len({answered["key"] for answered in answers}) == 6

    folder = find_model(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for turns, answered in zip(conversations[:6], answers, strict=True):
        asked = tokenizer.apply_chat_template(
            turns[:-1], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            written = model.generate(**asked, do_sample=False, max_new_tokens=5)[0, asked["input_ids"].shape[1] :]
        assert answered["answer"] == tokenizer.decode(written, skip_special_tokens=True)
        assert answered["target"] == turns[-1]["content"] and answered["is_cut"] == (
            tokenizer.eos_token_id not in written
        )
        whole = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
        tokens, mask = whole["input_ids"], whole["assistant_masks"]
        with torch.no_grad():
            chances = model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
        alone = sum(float(chances[i - 1, tokens[i]]) for i in range(1, len(tokens)) if mask[i])
        assert answered["log_probability"] == pytest.approx(alone, abs=0.1) and answered["tokens"] == sum(mask)

    call_main(
        "evaluate.score_responses",
        tmp_path,
        dataset="sums",
        model_name="base",
        responses="answers.jsonl",
        manifest="answers.manifest.json",
        scores="sums.json",
        items="sums.items.jsonl",
    )
    written = read_json(tmp_path / "sums.json")
    others = {other["metric"]: other for other in written["others"]}
    loss = -sum(answer["log_probability"] for answer in answers) / sum(answer["tokens"] for answer in answers)
    assert others["loss"]["score"] == pytest.approx(loss)
    assert others["loss"]["ci_low"] <= loss <= others["loss"]["ci_high"]
    assert {"rouge1", "rouge2", "bleu4", "length_ratio", "length_correlation", "perplexity", "cut_answers"} <= set(
        others
    )
    assert (written["metric"], written["n"]) == ("rougeL", 6)
    assert written["protocol"]["max_new_tokens"] == 5 and written["protocol"]["chat_template_sha256"]
