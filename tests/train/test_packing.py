"""Packed examples do not attend to each other: each has the same logits as alone."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from trl import SFTConfig, SFTTrainer

from scripts.common.errors import UserError
from scripts.common.manifest import find_model
from scripts.train.arguments import make_arguments
from scripts.train.job import Job, load_rows
from scripts.train.model import check_packing, read_logits
from tests.train.stages import make_job


def _trainer(folder: Path, tiny_model: Path, rows: Path, attention: str, args: dict[str, Any]) -> tuple[Any, Job]:
    """A trainer with these packing arguments, and its job."""
    tokenizer = AutoTokenizer.from_pretrained(find_model(tiny_model))
    job = make_job(folder, args=args | {"per_device_train_batch_size": 4})
    job.__dict__.update(train=rows / "messages.parquet", validation=rows / "no_messages.parquet")
    train, _ = load_rows(job, ["messages"])
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(find_model(tiny_model), attn_implementation=attention),
        args=make_arguments(SFTConfig, job, tokenizer, False),
        train_dataset=train,
        processing_class=tokenizer,
    )
    return trainer, job


@pytest.mark.parametrize(
    "args", [{"packing": True, "max_length": 256}, {"padding_free": True, "max_length": None}], ids=str
)
@pytest.mark.parametrize("attention", ["sdpa", "eager", "varlen_attention"])
def test_packed_logits_equal_separate_ones(
    tmp_path: Path, tiny_model: Path, rows: Path, attention: str, args: dict[str, Any]
) -> None:
    """With the trainer's packing and collator, and the attention of the stage."""
    trainer, _ = _trainer(tmp_path, tiny_model, rows, attention, args)
    model = trainer.model
    batch = next(iter(trainer.get_train_dataloader()))
    assert "attention_mask" not in batch and batch["input_ids"].shape[0] == 1
    starts = [*(batch["position_ids"][0] == 0).nonzero().flatten().tolist(), batch["input_ids"].shape[1]]
    assert len(starts) > 4, "several examples are in one row"
    model.eval()
    torch.set_float32_matmul_precision("highest")
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        packed = model(**inputs, use_cache=False).logits
    for start, end in pairwise(starts):
        alone = read_logits(model, batch["input_ids"][:, start:end])
        assert torch.allclose(packed[:, start:end], alone, atol=1e-5)


def test_the_check_before_training_passes(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    trainer, job = _trainer(tmp_path, tiny_model, rows, "sdpa", {"packing": True, "max_length": 256})
    difference = check_packing(trainer, job)["packing_difference"]
    assert difference is not None and 0 <= difference < 1e-5
    trainer, job = _trainer(tmp_path, tiny_model, rows, "sdpa", {"max_length": 256})
    assert check_packing(trainer, job) == {"packing_difference": None}, "nothing is packed"


def test_attention_that_leaks_is_refused(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    """Plain causal attention, for which transformers creates no mask."""
    AttentionInterface.register("leaking", sdpa_attention_forward)
    trainer, job = _trainer(tmp_path, tiny_model, rows, "leaking", {"packing": True, "max_length": 256})
    line = r"stages.mine.attention: packed examples attend to each other: logits differ from separate ones by \d+.\d+%"
    with pytest.raises(UserError, match=rf"^{line}, more than 0.01%; set another attention, or disable packing$"):
        check_packing(trainer, job)


def _refuse(*given: Any, **named: Any) -> Any:
    raise RuntimeError("no kernel for this device\nand much more")


def test_attention_that_does_not_run_here_is_reported(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    AttentionInterface.register("refusing", _refuse)
    trainer, job = _trainer(tmp_path, tiny_model, rows, "refusing", {"packing": True, "max_length": 256})
    with pytest.raises(UserError, match=r"^stages.mine.attention: no kernel for this device; try sdpa$"):
        check_packing(trainer, job)
