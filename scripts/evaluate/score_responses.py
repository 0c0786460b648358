"""Hold a model's answers to held-out rows against the rows' own: BLEU, ROUGE, lengths, loss and perplexity."""

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
from scripts.evaluate.scores import LEVEL, RESAMPLES, describe_values, write_scores

ROUGE = ("rouge1", "rouge2", "rougeL")

_CHARACTER = r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff]"
_WORD = re.compile(rf"{_CHARACTER}|(?:(?!{_CHARACTER})[^\W_])+")

Row = dict[str, Any]
Drawn = np.ndarray[Any, np.dtype[np.int64]]
"""Numbers of rows, some of them perhaps several times."""
Metric = Callable[[Drawn], float]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="name of the data set")
    parser.add_argument("--model-name", required=True, help="name of the model")
    parser.add_argument("--responses", type=Path, required=True, help="answers of the model, JSON lines")
    parser.add_argument("--manifest", type=Path, required=True, help="their manifest")
    parser.add_argument("--scores", type=Path, required=True, help="score to write, JSON")
    parser.add_argument("--items", type=Path, required=True, help="row by row, JSON lines")
    options = parser.parse_args()
    made = read_json(options.manifest)
    rows = read_json_lines(options.responses)

    scorer = RougeScorer(ROUGE, tokenizer=Words())
    rouge = [scorer.score(row["target"], row["answer"]) for row in rows]
    items = [row | {"score": found["rougeL"].fmeasure} for row, found in zip(rows, rouge, strict=True)]
    others = [
        {"metric": name} | describe_values([np.array([found[name].fmeasure]) for found in rouge])
        for name in ("rouge1", "rouge2")
    ]
    others += [
        {"metric": name} | describe_corpus(metric, len(rows)) | {"is_share": name == "bleu4"}
        for name, metric in corpus_metrics(rows).items()
    ]
    others.append({"metric": "cut_answers"} | describe_values([np.array([float(row["is_cut"])]) for row in rows]))
    score = write_scores(
        options.scores,
        options.items,
        items,
        benchmark=options.dataset,
        model=options.model_name,
        task="answers to held-out rows",
        metric="rougeL",
        others=[{"filter": "none"} | other for other in others],
        protocol=made["config"] | made["facts"],
        provenance=describe(
            artefact="scores",
            name=f"{options.model_name} on {options.dataset}",
            config={},
            inputs={"responses": options.manifest},
        ),
    )
    say(f"score_responses {options.model_name} {options.dataset}: ROUGE-L {score:.3f} of {len(rows)} answers")


class Words(Tokenizer):
    """Words of any script in lower case; of Chinese and Japanese, which part no words, single characters."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


def corpus_metrics(rows: list[Row]) -> dict[str, Metric]:
    """Metrics that are made of all rows together, or of any draw of them.

    `bleu4`: 0 to 1, by sacrebleu with its tokenizer that parts Chinese characters. `length_ratio`: words of the answers
    for each word of the rows' own. `length_correlation`: Pearson's, of the two lengths. `loss`: mean negative
    log-probability of a token of the rows' own answers, in nats; `perplexity`: its exponential.
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


def describe_corpus(metric: Metric, n: int) -> dict[str, Any]:
    """n, value and 95 % bootstrap interval of a metric of all rows together; None where it is undefined."""
    generator = np.random.default_rng(0)
    values = [metric(generator.integers(n, size=n)) for _ in range(RESAMPLES // 10)]
    defined = [value for value in values if math.isfinite(value)]
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist() if defined else (None, None)
    value = metric(np.arange(n))
    return {"n": n, "score": value if math.isfinite(value) else None, "ci_low": low, "ci_high": high}


if __name__ == "__main__":
    run_script(main)
