"""Check the chat template on all training rows before the first step, and record the proof."""

from typing import Any

from datasets import Dataset

from scripts.common.console import say
from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.common.records import ProofFacts, ProofRow
from scripts.data.schemas import sides
from scripts.data.trained_spans import mark_trained
from scripts.train.job import Job

BATCH = 1_000
"""Rows that are tokenised at once."""

SHOWN = 3
"""Rows that the report shows with their template."""


def prove_template(rows: Dataset, tokenizer: Any, job: Job, max_length: int | None) -> ProofFacts:
    """Check that every row trains its answers up to the end of the turn, and write the proof.

    Args:
        rows: the training rows. Conversations train all assistant turns, and other rows with a prompt train the answer.
            GRPO samples the answers to its prompts, so its rows have nothing to check.
        max_length: number of tokens after which TRL truncates a row; None for no limit.

    Returns:
        Facts for the manifest: `trained_token_share` is the share of tokens that are trained, `cut_rows` the number of
        rows that lose trained tokens, and `proof` the text of a few rows with the trained tokens marked.

    Raises:
        UserError: a row trains no token, or not the end of its turn, so that the model would not learn to stop.
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
            selected = mask_last(mask) if last_only else mask
            learned = [token for token, is_trained in zip(ids[:max_length], selected, strict=False) if is_trained]
            is_cut = max_length is not None and any(selected[max_length:])
            if not learned or (learned[-1] != tokenizer.eos_token_id and not is_cut):
                what = "no token would be trained" if not learned else "the end of the turn would not be trained"
                where = f"row {number} of the training rows" + (f", cut at max_length {max_length}" if is_cut else "")
                raise UserError(f"stages.{job.name}: {where}: {what}; fix the row, or filter out such rows")
            trained, total = trained + len(learned), total + len(ids[:max_length])
            cut |= {number} if is_cut else set()
    if cut:
        say(f"{job.label}: {len(cut)} of {len(rows)} rows are longer than max_length {max_length} and are cut")
    shown: list[ProofRow] = [
        {"row": number, "texts": [mark_trained(tokenizer, turns, last_only) for turns in sides(row)]}
        for number, row in enumerate(rows.select(range(min(SHOWN, len(rows)))))
    ]
    share = round(trained / total, 4) if total else None
    proof: ProofFacts = {"trained_token_share": share, "cut_rows": len(cut), "proof": shown}
    if job.is_main:
        write_json(job.proof, proof)
    return proof


def mask_last(mask: list[int]) -> list[int]:
    """A mask with only the last of its spans."""
    end = max((place for place, is_trained in enumerate(mask) if is_trained), default=-1)
    start = end
    while start > 0 and mask[start - 1]:
        start -= 1
    return [int(start <= place <= end) for place in range(len(mask))] if end >= 0 else mask
