"""Score one model on held-out preference pairs: how often the chosen answer is more likely than the rejected one.

The likelihood of an answer is the sum of the log-probabilities of its tokens given the prompt, including the end of
turn. The accuracy by mean log-probabilities, which do not favour short answers, is reported too.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import hash_json
from scripts.common.manifest import describe, find_model
from scripts.common.records import OtherMetric, PreferenceItem, Turns
from scripts.common.torch_setup import prepare_torch
from scripts.evaluate.likelihood import Encoded, sum_log_probabilities
from scripts.evaluate.scores import describe_values, write_scores

BATCH = 16
"""Answers in one forward pass."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="name of the data set in the configuration")
    parser.add_argument("--pairs", type=Path, required=True, help="held-out pairs, Parquet")
    parser.add_argument("--dtype", required=True, help="precision of the weights")
    parser.add_argument("--cpus", type=int, required=True, help="number of arithmetic threads")
    parser.add_argument("--model", type=Path, required=True, help="manifest of the model")
    parser.add_argument("--model-name", required=True, help="name of the model")
    parser.add_argument("--scores", type=Path, required=True, help="score to write, JSON")
    parser.add_argument("--items", type=Path, required=True, help="items to write, JSON lines")
    options = parser.parse_args()
    device = prepare_torch(seed=0, cpus=options.cpus, exact=True)

    tokenizer = AutoTokenizer.from_pretrained(find_model(options.model))
    model = AutoModelForCausalLM.from_pretrained(find_model(options.model), dtype=options.dtype).to(device).eval()
    pairs = pq.read_table(options.pairs).to_pylist()
    encoded = [encode(tokenizer, pair["prompt"], pair[side]) for pair in pairs for side in ("chosen", "rejected")]
    label = f"score_preferences {options.model_name} {options.dataset}"
    sums = sum_log_probabilities(model, encoded, tokenizer.pad_token_id, BATCH, label)
    means = [total / sum(counted) for total, (_, counted) in zip(sums, encoded, strict=True)]
    items = make_items(pairs, sums)
    score = write_scores(
        options.scores,
        options.items,
        items,
        benchmark=options.dataset,
        model=options.model_name,
        task="held-out preference pairs",
        metric="preference_accuracy",
        others=describe_likelihoods(sums, means),
        protocol={
            "likelihood": "sum of token log-probabilities",
            "chat_template_sha256": hash_json(tokenizer.chat_template),
            "dtype": options.dtype,
        },
        provenance=describe(
            artefact="scores",
            name=f"{options.model_name} on {options.dataset}",
            config={},
            inputs={"model": options.model, "pairs": options.pairs},
            facts={},
        ),
    )
    say(f"{label}: accuracy {score:.3f} of {len(items)} pairs")


def make_items(pairs: list[dict[str, Any]], sums: list[float]) -> list[PreferenceItem]:
    """One item for each pair.

    Args:
        pairs: rows of preference data.
        sums: log-probability of the chosen and of the rejected answer of each pair in turn, in nats.
    """
    return [
        {
            "key": hash_json(pair)[:16],
            "prompt": "\n".join(turn["content"] for turn in pair["prompt"]),
            "target": pair["chosen"][-1]["content"],
            "answer": pair["rejected"][-1]["content"],
            "chosen_log_probability": chosen,
            "rejected_log_probability": rejected,
            "score": float(chosen > rejected),
        }
        for pair, chosen, rejected in zip(pairs, sums[::2], sums[1::2], strict=True)
    ]


def describe_likelihoods(sums: list[float], means: list[float]) -> list[OtherMetric]:
    """Accuracy by mean log-probability, losses of both sides, and margin.

    Args:
        sums: log-probability of the chosen and of the rejected answer of each pair in turn, in nats.
        means: the same for each token.
    """
    values = {
        "preference_accuracy_by_mean": [float(c > r) for c, r in zip(means[::2], means[1::2], strict=True)],
        "chosen_loss": [-chosen for chosen in means[::2]],
        "rejected_loss": [-rejected for rejected in means[1::2]],
        "margin": [chosen - rejected for chosen, rejected in zip(sums[::2], sums[1::2], strict=True)],
    }
    return [
        {
            "metric": name,
            "filter": "none",
            **describe_values([np.array([value]) for value in each], is_share="accuracy" in name),
        }
        for name, each in values.items()
    ]


def encode(tokenizer: Any, prompt: Turns, answer: Turns) -> Encoded:
    """Tokens of prompt and answer up to the answer's end of turn; only those of the answer are scored."""
    start = tokenizer.apply_chat_template(prompt, tokenize=True, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    whole = tokenizer.apply_chat_template(prompt + answer, tokenize=True, return_dict=True)["input_ids"]
    end = len(whole) - whole[::-1].index(tokenizer.eos_token_id)
    return whole[:end], [0] * len(start) + [1] * (end - len(start))


if __name__ == "__main__":
    run_script(main)
