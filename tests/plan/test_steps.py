"""Steps are counted as in transformers' Trainer, accelerate and TRL."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from torch.utils.data import BatchSampler
from transformers import Trainer, TrainingArguments
from trl import DPOConfig, GRPOConfig, KTOConfig, SFTConfig, pack_dataset
from trl.experimental.orpo import ORPOConfig
from trl.trainer.utils import RepeatSampler

from scripts.common.errors import UserError
from scripts.plan.rows import Rows
from scripts.plan.steps import DEFAULTS, NO_LENGTH, check_numbers, count_packed, count_steps, max_length
from scripts.plan.work import count_sequences, cut_rows
from tests.plan.stages import make_stage

CASES = [
    (26_982, 2, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}, 2_532),
    (20_000, 2, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "num_train_epochs": 1.5}, 1_875),
    (61_135, 4, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 32, "max_steps": 2_000}, 2_000),
    (52_000, 4, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8}, 1_221),
    (66, 1, {}, 27),
    (67, 3, {"per_device_train_batch_size": 4, "dataloader_drop_last": True, "num_train_epochs": 0.3}, 2),
    (5, 2, {"gradient_accumulation_steps": 4, "num_train_epochs": 2.5}, 3),
]


@pytest.mark.parametrize(("rows", "processes", "args", "steps"), CASES)
def test_steps_are_those_of_the_trainer(
    tmp_path: Path, rows: int, processes: int, args: dict[str, Any], steps: int
) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], **args)
    trainer = Trainer(torch.nn.Linear(1, 1), arguments, train_dataset=Dataset.from_dict({"x": [0]}))
    batches = BatchSampler(range(rows), arguments.per_device_train_batch_size, arguments.dataloader_drop_last)
    # The data loader of each process, as accelerate creates it.
    shard = BatchSamplerShard(batches, processes, 0, even_batches=True)
    loader = torch.utils.data.DataLoader(Dataset.from_dict({"x": [0] * rows}), batch_sampler=shard)
    expected = trainer.set_initial_training_values(arguments, loader)
    schedule = count_steps("mine", make_stage(args=args), rows, processes)
    assert (schedule.steps, schedule.steps_per_epoch) == (expected[6], expected[1])
    assert schedule.steps == steps
    assert schedule.effective_batch == expected[4] * processes


@pytest.mark.parametrize(
    ("args", "processes"),
    [
        ({"num_generations": 4}, 1),
        ({"num_generations": 4, "gradient_accumulation_steps": 3, "num_iterations": 2}, 2),
        ({"num_generations": 2, "steps_per_generation": 6, "gradient_accumulation_steps": 4}, 1),
        ({"num_generations": 2, "steps_per_generation": 10, "gradient_accumulation_steps": 4}, 1),
        ({"num_generations": 8, "generation_batch_size": 64}, 2),
    ],
    ids=str,
)
def test_grpo_counts_sampled_answers(tmp_path: Path, args: dict[str, Any], processes: int) -> None:
    """TRL's sampler repeats prompts, and its loader reads the batches of several steps at once."""
    prompts = 101
    stage = make_stage(method="grpo", args=args)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GRPOConfig, "world_size", property(lambda self: processes))
        config = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], **args)
    sampler = RepeatSampler(
        range(prompts),
        mini_repeat_count=config.num_generations,
        batch_size=config.generation_batch_size // config.num_generations,
        repeat_count=config.num_iterations * config.steps_per_generation,
    )
    at_once = config.per_device_train_batch_size * config.steps_per_generation
    batches = len(BatchSamplerShard(BatchSampler(sampler, at_once, False), processes, 0, even_batches=True))
    accumulation = config.gradient_accumulation_steps
    schedule = count_steps("mine", stage, prompts, processes)
    assert schedule.steps_per_epoch == -(-batches // accumulation)


def test_grpo_trains_on_each_answer_in_each_iteration() -> None:
    """Twelve of 101 prompts are sampled at once, eight times, with four answers each and two iterations."""
    args = {"num_generations": 4, "gradient_accumulation_steps": 3, "num_iterations": 2, "num_train_epochs": 1}
    schedule = count_steps("mine", make_stage(method="grpo", args=args), 101, 2)
    assert (schedule.sequences, schedule.effective_batch, schedule.steps) == (8 * 12 * 4 * 2, 8 * 3 * 2, 16)


@pytest.mark.parametrize("method", ["sft", "dpo", "orpo", "kto", "grpo"])
def test_defaults_agree_with_trl(method: str) -> None:
    config = {"sft": SFTConfig, "dpo": DPOConfig, "orpo": ORPOConfig, "kto": KTOConfig, "grpo": GRPOConfig}[method]
    known = {field.name: field.default for field in dataclasses.fields(config)}
    unlike = {"max_completion_length"} if method == "orpo" else set()  # it has another meaning there
    shared = DEFAULTS.keys() & known.keys() - unlike
    assert {name: known[name] for name in shared} == {name: DEFAULTS[name] for name in shared}
    assert {"per_device_train_batch_size", "num_train_epochs", "max_steps", "optim"} <= shared


def test_length_at_which_rows_are_truncated() -> None:
    assert max_length(make_stage()) == 1_024
    assert max_length(make_stage(args={"max_length": 99})) == 99
    assert max_length(make_stage(args={"max_length": None})) == NO_LENGTH
    assert max_length(make_stage(args={"padding_free": True})) == NO_LENGTH
    assert max_length(make_stage(args={"padding_free": True, "packing": True})) == 1_024
    assert max_length(make_stage(method="grpo")) == NO_LENGTH


@pytest.mark.parametrize("seed", range(4))
def test_packed_rows_agree_with_trl(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 70, (400,), generator=generator).tolist()
    packed = pack_dataset(Dataset.from_dict({"input_ids": [[1] * length for length in lengths]}), 64, "bfd")
    assert count_packed(Counter(lengths), 64) == len(packed)


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split"])
def test_long_rows_are_packed_as_in_trl(strategy: str) -> None:
    lengths = torch.randint(1, 300, (400,), generator=torch.Generator().manual_seed(0)).tolist()
    packed = pack_dataset(Dataset.from_dict({"input_ids": [[1] * length for length in lengths]}), 64, strategy)
    stage = make_stage(args={"packing": True, "packing_strategy": strategy, "max_length": 64})
    rows = cut_rows(stage, Rows(len(lengths), 0, "measured", Counter(lengths), max(lengths), "measured"))
    assert count_sequences(stage, rows) == len(packed)
    assert (rows.mean(64) or 0) * (rows.train or 0) == pytest.approx(sum(map(len, packed["input_ids"])))


def test_too_few_rows_for_a_batch_are_refused() -> None:
    with pytest.raises(UserError, match=r"^stages\.mine: its rows do not fill a batch of 8; add rows or reduce it$"):
        count_steps("mine", make_stage(args={"dataloader_drop_last": True}), 7, 1)


@pytest.mark.parametrize(
    "args", [{"num_train_epochs": "three"}, {"per_device_train_batch_size": 0}, {"max_steps": "x"}]
)
def test_invalid_numbers_are_refused(args: dict[str, Any]) -> None:
    (key, value), *_ = args.items()
    with pytest.raises(UserError) as caught:
        check_numbers("mine", make_stage(args=args))
    assert str(caught.value).startswith(f"stages.mine.args.{key}: a ") and repr(value) in str(caught.value)
