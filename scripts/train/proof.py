"""Prove, before any step, that training sees what it should."""

from typing import Any

from datasets import Dataset

from scripts.common.console import say
from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.data.check_data import mark_trained
from scripts.data.schemas import sides
from scripts.train.job import Job

BATCH = 1_000
"""Rows that are templated at once."""

SHOWN = 3
"""Rows whose templated text the report shows."""


def prove_template(rows: Dataset, tokenizer: Any, job: Job, max_length: int | None) -> dict[str, Any]:
    """Prove it for every row, and write the proof beside the stage.

    Args:
        rows: the training rows. Of a conversation all of the assistant's turns are trained, of an answer to a prompt
            the answer. Prompts without answers, as GRPO takes them, train on what the model says to them.
        max_length: tokens after which TRL cuts a row; None for no cut.

    Returns:
        Facts for the manifest: `trained_token_share`, the share of the tokens that are trained on, `cut_rows`, how many
        rows lose some of those, and `proof`, the text of some rows with the trained tokens marked.

    Raises:
        UserError: a row trains no token, or its end of turn is not trained, so that the model would never stop.
    """
    last_only = job.stage.method != "sft"
    trained = total = 0
    cut: set[int] = set()
    for start in range(0, len(rows) if job.stage.method != "grpo" else 0, BATCH):
        batch = rows.select(range(start, min(start + BATCH, len(rows))))
        numbered = [(start + place, turns) for place, row in enumerate(batch) for turns in sides(row)]
        encoded = tokenizer.apply_chat_template(
            [turns for _, turns in numbered], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        for (number, _), ids, mask in zip(numbered, encoded["input_ids"], encoded["assistant_masks"], strict=True):
            learning = mask_last(mask) if last_only else mask
            learnt = [token for token, is_learnt in zip(ids[:max_length], learning, strict=False) if is_learnt]
            is_cut = max_length is not None and any(learning[max_length:])
            if not learnt or (learnt[-1] != tokenizer.eos_token_id and not is_cut):
                what = "no token would be trained" if not learnt else "the end of the turn would not be trained"
                where = f"row {number} of the training rows" + (f", cut at max_length {max_length}" if is_cut else "")
                raise UserError(f"stages.{job.name}: {where}: {what}; mend the row, or filter such rows out")
            trained, total = trained + len(learnt), total + len(ids[:max_length])
            cut |= {number} if is_cut else set()
    if cut:
        say(f"{job.label}: {len(cut)} of {len(rows)} rows are longer than max_length {max_length} and are cut")
    shown = [
        {"row": number, "texts": [mark_trained(tokenizer, turns, last_only) for turns in sides(row)]}
        for number, row in enumerate(rows.select(range(min(SHOWN, len(rows)))))
    ]
    proof = {"trained_token_share": round(trained / total, 4) if total else None, "cut_rows": len(cut), "proof": shown}
    if job.is_main:
        write_json(job.manifest.parent / "proof.json", proof)
    return proof


def mask_last(mask: list[int]) -> list[int]:
    """Of a mask with several spans, the last one alone."""
    end = max((place for place, is_trained in enumerate(mask) if is_trained), default=-1)
    start = end
    while start > 0 and mask[start - 1]:
        start -= 1
    return [int(start <= place <= end) for place in range(len(mask))] if end >= 0 else mask
