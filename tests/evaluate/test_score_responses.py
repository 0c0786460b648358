"""Metrics of answers to held-out rows, by hand and against the libraries."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu

from scripts.common.files import read_json, read_json_lines, write_json, write_json_lines
from scripts.common.records import Response
from scripts.evaluate.score_responses import Words, corpus_metrics, describe_corpus
from tests.common.running import call_main

ANSWERS = [
    ("the cat sat on the mat", "the cat sat on the mat"),
    ("a dog ran", "the dog ran away quickly today"),
    ("今天天气很好，我们去公园。", "今天天气不错，我们去公园玩。"),
    ("", "something"),
    ("Mixed 中文 and English words here", "Mixed 中文 with English words there"),
]
"""Answers of a model, and reference answers."""


RESPONSES: list[Response] = [
    {
        "key": str(place),
        "prompt": "p",
        "target": target,
        "answer": answer,
        "is_cut": place == 3,
        "log_probability": -2.0 - place,
        "tokens": 4 + place,
    }
    for place, (answer, target) in enumerate(ANSWERS)
]


def test_bleu_is_that_of_sacrebleu() -> None:
    for drawn in ([0, 1, 2, 3, 4], [0, 2, 2, 4]):
        answers, targets = zip(*(ANSWERS[place] for place in drawn), strict=True)
        theirs = corpus_bleu(list(answers), [list(targets)], tokenize="zh").score
        assert corpus_metrics(RESPONSES)["bleu4"](np.array(drawn)) == pytest.approx(theirs / 100)


def test_loss_and_lengths_by_hand() -> None:
    everything = np.arange(len(RESPONSES))
    metrics = corpus_metrics(RESPONSES)
    assert metrics["loss"](everything) == pytest.approx((2 + 3 + 4 + 5 + 6) / (4 + 5 + 6 + 7 + 8))
    assert metrics["perplexity"](everything) == pytest.approx(math.exp(20 / 30))
    assert metrics["length_ratio"](np.array([1])) == pytest.approx(3 / 6)
    # 3, 6 and 0 words for 6, 6 and 1: the deviations 0, 3, -3 and 5/3, 5/3, -10/3 have the products 5 and 10.
    correlation = 15 / (18 * 150 / 9) ** 0.5
    assert metrics["length_correlation"](np.array([1, 0, 3])) == pytest.approx(correlation)
    assert math.isnan(metrics["length_correlation"](np.array([1, 1])))
    assert describe_corpus(metrics["length_correlation"], 1, is_share=False)["score"] is None


def test_chinese_characters_are_words() -> None:
    assert Words().tokenize("Das Wetter, 今天 ok_2!") == ["das", "wetter", "今", "天", "ok", "2"]
    assert Words().tokenize("语言Python很好3个") == ["语", "言", "python", "很", "好", "3", "个"]
    scorer = RougeScorer(["rouge1"], tokenizer=Words())
    assert scorer.score("今天天气", "今天天冷")["rouge1"].fmeasure == pytest.approx(0.75)


ROWS = [
    ("a b c d", "b a x y z", False),
    ("the cat sat on the mat", "the cat sat", False),
    ("three words here", "", True),
]
"""Reference answer, answer of the model, and whether it was cut."""


def test_script_by_hand(tmp_path: Path) -> None:
    """F is the harmonic mean of precision and recall.

    The first answer has five words and shares two with the four of the reference (2/5 and 2/4: F = 4/9), no pair of
    words, and one word in order (1/5 and 1/4: F = 2/9). The second is the beginning of its reference: it shares 3/3 and
    3/6 words, also in order (F = 2/3), and 2/2 and 2/5 pairs (F = 4/7). The third is empty.
    """
    write_json_lines(
        tmp_path / "answers.jsonl",
        [
            {"key": str(i), "prompt": "p", "target": target, "answer": answer, "is_cut": is_cut}
            | {"log_probability": -3.0 * (i + 1), "tokens": 4}
            for i, (target, answer, is_cut) in enumerate(ROWS)
        ],
    )
    write_json(tmp_path / "manifest.json", {"config": {"rows": 3}, "facts": {"chat_template_sha256": "c"}})
    call_main(
        "evaluate.score_responses",
        tmp_path,
        dataset="talk",
        model_name="sft",
        responses="answers.jsonl",
        manifest="manifest.json",
        scores="talk.json",
        items="talk.items.jsonl",
    )
    items, written = read_json_lines(tmp_path / "talk.items.jsonl"), read_json(tmp_path / "talk.json")
    assert [item["score"] for item in items] == pytest.approx([2 / 9, 2 / 3, 0])
    assert written["score"] == pytest.approx(8 / 27) and written["n"] == 3
    assert (written["benchmark"], written["model"], written["metric"]) == ("talk", "sft", "rougeL")
    assert written["protocol"] == {"rows": 3, "chat_template_sha256": "c"}
    others = {other["metric"]: other for other in written["others"]}
    expected = {
        "rouge1": (4 / 9 + 2 / 3) / 3,
        "rouge2": 4 / 7 / 3,
        "length_ratio": 8 / 13,
        "loss": (3 + 6 + 9) / 12,
        "perplexity": np.exp(1.5),
        "cut_answers": 1 / 3,
    }
    assert {name: others[name]["score"] for name in expected} == pytest.approx(expected)
    is_share = {name for name, other in others.items() if other["is_share"]}
    assert is_share == {"rouge1", "rouge2", "bleu4", "cut_answers"}
    assert {(other["n"], other["filter"]) for other in others.values()} == {(3, "none")}


def test_interval_of_a_corpus_metric_is_a_bootstrap_over_rows() -> None:
    """For a mean over 400 rows, it is close to 1.96 standard errors on both sides."""
    values = np.random.default_rng(0).random(400)

    def mean(drawn: Any) -> float:
        assert drawn.shape == (400,)
        return float(values[drawn].mean())

    described = describe_corpus(mean, 400, is_share=True)
    half = 1.96 * values.std(ddof=1) / 20
    assert described["score"] == pytest.approx(values.mean()) and described["n"] == 400
    low, high = described["ci_low"], described["ci_high"]
    assert low is not None and values.mean() - low == pytest.approx(half, rel=0.1)
    assert high is not None and high - values.mean() == pytest.approx(half, rel=0.1)
