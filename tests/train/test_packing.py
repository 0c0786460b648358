"""Packed examples do not see each other: their logits are those that each has alone."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from scripts.common.manifest import find_model
from scripts.train.arguments import make_arguments
from scripts.train.job import load_rows
from scripts.train.model import read_logits
from tests.train.stages import make_job


@pytest.mark.parametrize(
    "args", [{"packing": True, "max_length": 256}, {"padding_free": True, "max_length": None}], ids=str
)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_logits_equal_separate_ones(
    tmp_path: Path, tiny_model: Path, rows: Path, attention: str, args: dict[str, Any]
) -> None:
    """Through the trainer's own packing and collator, with the attention of the stage."""
    tokenizer = AutoTokenizer.from_pretrained(find_model(tiny_model))
    job = make_job(tmp_path, args=args | {"per_device_train_batch_size": 4})
    job.__dict__.update(train=rows / "messages.parquet", validation=rows / "no_messages.parquet")
    train, _ = load_rows(job, ["messages"])
    model = AutoModelForCausalLM.from_pretrained(find_model(tiny_model), attn_implementation=attention)
    trainer = SFTTrainer(
        model=model,
        args=make_arguments(SFTConfig, job, tokenizer, False),
        train_dataset=train,
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert "attention_mask" not in batch and batch["input_ids"].shape[0] == 1
    starts = [*(batch["position_ids"][0] == 0).nonzero().flatten().tolist(), batch["input_ids"].shape[1]]
    assert len(starts) > 4, "several examples stand in one row"
    model.eval()
    torch.set_float32_matmul_precision("highest")
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        packed = model(**inputs, use_cache=False).logits
    for start, end in pairwise(starts):
        alone = read_logits(model, batch["input_ids"][:, start:end])
        assert torch.allclose(packed[:, start:end], alone, atol=1e-5)
