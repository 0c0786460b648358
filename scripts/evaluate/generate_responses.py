"""Generate a model's answers to held-out conversations, and compute how likely it finds the reference answers."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.common.config import Responses
from scripts.common.console import Progress, make_parser, run_script, say
from scripts.common.files import hash_json, write_json, write_json_lines
from scripts.common.manifest import describe, find_model
from scripts.common.records import Response, Turns
from scripts.common.torch_setup import prepare_torch
from scripts.evaluate.likelihood import sum_log_probabilities


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="name of the data set in the configuration")
    parser.add_argument("--config", required=True, help="section `responses` of the configuration, as JSON")
    parser.add_argument("--rows", type=Path, required=True, help="held-out rows, Parquet")
    parser.add_argument("--dtype", required=True, help="precision of the weights")
    parser.add_argument("--cpus", type=int, required=True, help="number of arithmetic threads")
    parser.add_argument("--model", type=Path, required=True, help="manifest of the model")
    parser.add_argument("--model-name", required=True, help="name of the model")
    parser.add_argument("--output", type=Path, required=True, help="responses to write, JSON lines")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()
    config = Responses.model_validate_json(options.config)
    device = prepare_torch(seed=0, cpus=options.cpus, exact=True)

    folder = find_model(options.model)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=options.dtype).to(device).eval()
    conversations = pq.read_table(options.rows, columns=["messages"])["messages"].to_pylist()[: config.rows]
    label = f"generate_responses {options.model_name} {options.dataset}"
    answers = answer(model, tokenizer, [turns[:-1] for turns in conversations], config, label)
    encoded = tokenizer.apply_chat_template(
        conversations, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    texts = list(zip(encoded["input_ids"], encoded["assistant_masks"], strict=True))
    sums = sum_log_probabilities(model, texts, tokenizer.pad_token_id, config.batch_size, label)

    responses: list[Response] = [
        {
            "key": hash_json(turns)[:16],
            "prompt": "\n".join(turn["content"] for turn in turns[:-1]),
            "target": turns[-1]["content"],
            "answer": text,
            "is_cut": is_cut,
            "log_probability": total,
            "tokens": sum(mask),
        }
        for turns, (text, is_cut), total, (_, mask) in zip(conversations, answers, sums, texts, strict=True)
    ]
    write_json_lines(options.output, responses)
    say(f"{label}: {len(answers)} answers")
    manifest = describe(
        artefact="responses",
        name=f"{options.model_name} to {options.dataset}",
        config=config.as_dict() | {"dtype": options.dtype},
        inputs={"model": options.model, "rows": options.rows},
        facts={"chat_template_sha256": hash_json(tokenizer.chat_template)},
    )
    write_json(options.manifest, manifest)


@torch.inference_mode()
def answer(model: Any, tokenizer: Any, prompts: list[Turns], config: Responses, label: str) -> list[tuple[str, bool]]:
    """Greedy answer to each prompt, and whether it was cut at the maximum length, before an end of turn."""
    ends = torch.tensor(model.generation_config.eos_token_id).reshape(-1).to(model.device)
    order = sorted(range(len(prompts)), key=lambda i: (sum(len(turn["content"]) for turn in prompts[i]), i))
    progress = Progress(label, len(order), "prompts")
    answers: dict[int, tuple[str, bool]] = {}
    for start in range(0, len(order), config.batch_size):
        chosen = order[start : start + config.batch_size]
        inputs = tokenizer.apply_chat_template(
            [prompts[i] for i in chosen],
            add_generation_prompt=True,
            tokenize=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        ).to(model.device)
        outputs = model.generate(**inputs, do_sample=False, max_new_tokens=config.max_new_tokens)
        written = outputs[:, inputs["input_ids"].shape[1] :]
        for i, tokens in zip(chosen, written, strict=True):
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            answers[i] = text, not bool(torch.isin(tokens, ends).any())
        progress.update(len(answers))
    return [answers[i] for i in range(len(prompts))]


if __name__ == "__main__":
    run_script(main)
