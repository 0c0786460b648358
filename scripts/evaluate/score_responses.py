"""Compare a model's answers to held-out rows with the reference answers: ROUGE, BLEU, lengths, loss, perplexity."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from sacrebleu.metrics.bleu import BLEU

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json, read_json_lines
from scripts.common.manifest import describe
from scripts.common.records import AnyManifest, Estimate, OtherMetric, Response, ResponseItem
from scripts.evaluate.scores import LEVEL, RESAMPLES, describe_values, write_scores

ROUGE = ("rouge1", "rouge2", "rougeL")

_CHARACTER = r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff]"
_WORD = re.compile(rf"{_CHARACTER}|(?:(?!{_CHARACTER})[^\W_])+")

Drawn = np.ndarray[Any, np.dtype[np.int64]]
"""Indices of rows, shape (n,), possibly repeated."""

Metric = Callable[[Drawn], float]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="name of the data set in the configuration")
    parser.add_argument("--model-name", required=True, help="name of the model")
    parser.add_argument("--responses", type=Path, required=True, help="answers of the model, JSON lines")
    parser.add_argument("--manifest", type=Path, required=True, help="their manifest")
    parser.add_argument("--scores", type=Path, required=True, help="score to write, JSON")
    parser.add_argument("--items", type=Path, required=True, help="items to write, JSON lines")
    options = parser.parse_args()
    made: AnyManifest = read_json(options.manifest)
    rows: list[Response] = read_json_lines(options.responses)

    scorer = RougeScorer(ROUGE, tokenizer=Words())
    rouge = [scorer.score(row["target"], row["answer"]) for row in rows]
    items: list[ResponseItem] = [
        {**row, "score": found["rougeL"].fmeasure} for row, found in zip(rows, rouge, strict=True)
    ]
    estimates: dict[str, Estimate] = {
        **{
            name: describe_values([np.array([found[name].fmeasure]) for found in rouge])
            for name in ("rouge1", "rouge2")
        },
        **{
            name: describe_corpus(metric, len(rows), is_share=name == "bleu4")
            for name, metric in corpus_metrics(rows).items()
        },
        "cut_answers": describe_values([np.array([float(row["is_cut"])]) for row in rows]),
    }
    others: list[OtherMetric] = [{"metric": name, "filter": "none", **estimate} for name, estimate in estimates.items()]
    score = write_scores(
        options.scores,
        options.items,
        items,
        benchmark=options.dataset,
        model=options.model_name,
        task="answers to held-out rows",
        metric="rougeL",
        others=others,
        protocol=made["config"] | made["facts"],
        provenance=describe(
            artefact="scores",
            name=f"{options.model_name} on {options.dataset}",
            config={},
            inputs={"responses": options.manifest},
            facts={},
        ),
    )
    say(f"score_responses {options.model_name} {options.dataset}: ROUGE-L {score:.3f} of {len(rows)} answers")


class Words(Tokenizer):
    """Words in lower case. Each Chinese or Japanese character counts as a word, since these scripts have no spaces."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


def corpus_metrics(rows: list[Response]) -> dict[str, Metric]:
    """Metrics of all rows together, as functions of a sample of them.

    - `bleu4`: corpus BLEU of sacrebleu, from 0 to 1, with its tokenizer that splits Chinese text into characters.
    - `length_ratio`: words of the answers divided by words of the reference answers.
    - `length_correlation`: Pearson's correlation of the two lengths in words.
    - `loss`: mean negative log-probability of the tokens of the reference answers, in nats.
    - `perplexity`: its exponential.
    """
    bleu = BLEU(tokenize="zh")
    found = [bleu.corpus_score([row["answer"]], [[row["target"]]]) for row in rows]
    counts = np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in found])
    answers, targets = (np.array([len(_WORD.findall(row[side])) for row in rows]) for side in ("answer", "target"))
    losses, tokens = -np.array([row["log_probability"] for row in rows]), np.array([row["tokens"] for row in rows])

    def score_bleu(drawn: Drawn) -> float:
        *by_order, answered, expected = counts[drawn].sum(0).tolist()
        return float(BLEU.compute_bleu(by_order[:4], by_order[4:], answered, expected, "exp").score) / 100

    def correlate(drawn: Drawn) -> float:
        varies = len(set(answers[drawn])) > 1 and len(set(targets[drawn])) > 1
        return float(np.corrcoef(answers[drawn], targets[drawn])[0, 1]) if varies else math.nan

    def mean_loss(drawn: Drawn) -> float:
        return float(losses[drawn].sum() / tokens[drawn].sum())

    return {
        "bleu4": score_bleu,
        "length_ratio": lambda drawn: float(answers[drawn].sum() / max(1, targets[drawn].sum())),
        "length_correlation": correlate,
        "loss": mean_loss,
        "perplexity": lambda drawn: math.exp(mean_loss(drawn)),
    }


def describe_corpus(metric: Metric, n: int, is_share: bool) -> Estimate:
    """n, value and 95 % bootstrap interval of a metric of all rows together. Values are None where undefined."""
    generator = np.random.default_rng(0)
    values = [metric(generator.integers(n, size=n)) for _ in range(RESAMPLES // 10)]
    defined = [value for value in values if math.isfinite(value)]
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist() if defined else (None, None)
    value = metric(np.arange(n))
    score = value if math.isfinite(value) else None
    return {"n": n, "score": score, "ci_low": low, "ci_high": high, "is_share": is_share}


if __name__ == "__main__":
    run_script(main)
