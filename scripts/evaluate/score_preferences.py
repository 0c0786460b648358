"""Score one model on held-out preference pairs: how often it finds the chosen answer likelier than the rejected one.

An answer's likelihood is the sum of its tokens' log-probabilities given the prompt, end of turn included.
"""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.common.console import Progress, make_parser, run_script, say
from scripts.common.files import hash_json
from scripts.common.manifest import describe, find_model
from scripts.common.torch_setup import prepare_torch
from scripts.evaluate.scores import write_scores

BATCH = 16
"""Answers in one forward pass."""

Turns = list[dict[str, str]]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="name of the data set of pairs")
    parser.add_argument("--pairs", type=Path, required=True, help="held-out pairs, Parquet")
    parser.add_argument("--dtype", required=True, help="precision of the weights")
    parser.add_argument("--cpus", type=int, required=True, help="arithmetic threads")
    parser.add_argument("--model", type=Path, required=True, help="manifest of the model")
    parser.add_argument("--model-name", required=True, help="name of the model")
    parser.add_argument("--scores", type=Path, required=True, help="score to write, JSON")
    parser.add_argument("--items", type=Path, required=True, help="pair by pair, JSON lines")
    options = parser.parse_args()
    device = prepare_torch(seed=0, cpus=options.cpus)

    tokenizer = AutoTokenizer.from_pretrained(find_model(options.model))
    model = AutoModelForCausalLM.from_pretrained(find_model(options.model), dtype=options.dtype).to(device).eval()
    pairs = pq.read_table(options.pairs).to_pylist()
    encoded = [encode(tokenizer, pair["prompt"], pair[side]) for pair in pairs for side in ("chosen", "rejected")]
    label = f"score_preferences {options.model_name} {options.dataset}"
    sums = answer_log_probabilities(model, encoded, tokenizer.pad_token_id, BATCH, label)
    items = [
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
    score = write_scores(
        options.scores,
        options.items,
        items,
        benchmark=options.dataset,
        model=options.model_name,
        task="held-out preference pairs",
        metric="preference_accuracy",
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
        ),
    )
    say(f"{label}: accuracy {score:.3f} of {len(items)} pairs")


def encode(tokenizer: Any, prompt: Turns, answer: Turns) -> tuple[list[int], int]:
    """Tokens of prompt and answer up to the answer's end of turn, and how many of them are the answer's."""
    start = tokenizer.apply_chat_template(prompt, tokenize=True, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    whole = tokenizer.apply_chat_template(prompt + answer, tokenize=True, return_dict=True)["input_ids"]
    end = len(whole) - whole[::-1].index(tokenizer.eos_token_id)
    return whole[:end], end - len(start)


@torch.inference_mode()
def answer_log_probabilities(
    model: Any, encoded: list[tuple[list[int], int]], pad: int, batch_size: int, label: str
) -> list[float]:
    """Sum of the log-probabilities of each answer's tokens, in nats, in the order given.

    Rows of like length share a batch. They are padded on the left, so that all answers end at the last position and
    only the positions that predict an answer need the LM head.
    """
    # What is the same text is scored once: padding changes the last bits of a sum, and they must not decide a tie.
    first: dict[tuple[tuple[int, ...], int], int] = {}
    for i, (tokens_of_row, length) in enumerate(encoded):
        first.setdefault((tuple(tokens_of_row), length), i)
    order = sorted(first.values(), key=lambda i: (len(encoded[i][0]), i))
    progress = Progress(label, len(order), "answers")
    sums = [0.0] * len(encoded)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = max(len(encoded[i][0]) for i in rows)
        longest = max(encoded[i][1] for i in rows)
        tokens = torch.tensor([[pad] * (width - len(encoded[i][0])) + encoded[i][0] for i in rows], device=model.device)
        mask = torch.tensor(
            [[0] * (width - len(encoded[i][0])) + [1] * len(encoded[i][0]) for i in rows], device=model.device
        )
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, logits_to_keep=longest + 1, use_cache=False
        ).logits
        answers = tokens[:, -longest:]
        losses = cross_entropy(logits[:, :-1].flatten(0, 1).float(), answers.flatten(), reduction="none")
        chances = -losses.view_as(answers)
        for row, i in enumerate(rows):
            sums[i] = float(chances[row, -encoded[i][1] :].sum())
        progress.update(start + len(rows))
    return [sums[first[tuple(tokens_of_row), length]] for tokens_of_row, length in encoded]


if __name__ == "__main__":
    run_script(main)
