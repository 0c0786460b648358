"""Make preference pairs for a verifiable task: the right answer against wrong answers of the model itself.

The model samples answers to every question. Each answer that is verified as wrong becomes the rejected side of a pair,
with the data set's own answer as the chosen side. Right answers give no pair, and are counted.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.common.config import RejectionsDataset
from scripts.common.console import Progress, make_parser, run_script, say
from scripts.common.errors import UserError
from scripts.common.files import hash_file, write_json, written_whole
from scripts.common.manifest import describe, find_model
from scripts.common.records import SourceFacts, Turns
from scripts.common.torch_setup import prepare_torch
from scripts.common.verifiers import Verifier, make_verifier
from scripts.data.schemas import SOURCE_SCHEMAS, Row


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the data set to create")
    parser.add_argument("--config", required=True, help="its `source`, as JSON")
    parser.add_argument("--dtype", required=True, help="precision of the weights")
    parser.add_argument("--seed", type=int, required=True, help="seed for sampling")
    parser.add_argument("--cpus", type=int, required=True, help="arithmetic threads")
    parser.add_argument("--model", type=Path, required=True, help="manifest of the model that answers")
    parser.add_argument("--questions", type=Path, nargs="+", required=True, help="rows with the questions, Parquet")
    parser.add_argument("--output", type=Path, required=True, help="Parquet file to write")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()
    source = TypeAdapter(RejectionsDataset).validate_json(options.config)
    device = prepare_torch(options.seed, options.cpus)

    rows = [row for path in options.questions for row in pq.read_table(path).to_pylist()]
    rows.sort(key=lambda row: row["source_index"])
    if any(row["answer"] is None for row in rows):
        raise UserError(
            f"datasets.{options.name}.source.dataset: '{source.dataset}' has rows without an `answer` to verify against"
        )
    tokenizer = AutoTokenizer.from_pretrained(find_model(options.model), padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(find_model(options.model), dtype=options.dtype).to(device).eval()
    answers = sample_answers(model, tokenizer, [row["messages"][:-1] for row in rows], source, options.name)
    pairs = make_pairs(rows, answers, make_verifier(source.verify, source.answer_pattern))
    numbered = [{"source_index": index, "part": "", **pair} for index, pair in enumerate(pairs)]

    with written_whole(options.output) as temporary:
        pq.write_table(pa.Table.from_pylist(numbered, schema=SOURCE_SCHEMAS["preference"]), temporary)
    right = len(answers) * source.samples - len(pairs)
    say(f"sample_rejections {options.name}: {len(pairs)} wrong and {right} right answers to {len(rows)} questions")
    facts: SourceFacts = {
        "origin": f"wrong answers of {source.model} to {source.dataset}",
        "questions": len(rows),
        "answers": len(answers) * source.samples,
        "right": right,
        "rows": len(pairs),
        "malformed": 0,
        "sha256": hash_file(options.output),
    }
    manifest = describe(
        artefact="dataset",
        name=options.name,
        config=source.as_dict() | {"seed": options.seed},
        inputs={"model": options.model} | {f"questions {path.stem}": path for path in options.questions},
        facts=facts,
    )
    write_json(options.manifest, manifest)


@torch.inference_mode()
def sample_answers(
    model: Any, tokenizer: Any, prompts: list[Turns], source: RejectionsDataset, name: str
) -> list[list[str]]:
    """Sample `source.samples` answers to each prompt, in the order of the prompts."""
    progress = Progress(f"sample_rejections {name}", len(prompts), "questions")
    answers: list[list[str]] = []
    for start in range(0, len(prompts), source.batch_size):
        batch = prompts[start : start + source.batch_size]
        inputs = tokenizer.apply_chat_template(
            batch, add_generation_prompt=True, tokenize=True, padding=True, return_dict=True, return_tensors="pt"
        ).to(model.device)
        outputs = model.generate(
            **inputs,
            do_sample=True,
            temperature=source.temperature,
            top_k=0,
            max_new_tokens=source.max_new_tokens,
            num_return_sequences=source.samples,
        )
        texts = tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        answers += [texts[i : i + source.samples] for i in range(0, len(texts), source.samples)]
        progress.update(len(answers))
    return answers


def make_pairs(rows: list[Row], answers: list[list[str]], is_right: Verifier) -> list[Row]:
    """One pair for each answer that is verified as wrong."""
    return [
        {
            "prompt": row["messages"][:-1],
            "chosen": row["messages"][-1:],
            "rejected": [{"role": "assistant", "content": answer}],
        }
        for row, texts in zip(rows, answers, strict=True)
        for answer in texts
        if not is_right(answer, row["answer"])
    ]


if __name__ == "__main__":
    run_script(main)
