"""Build TRL's config of a stage: its `args` override our defaults, and the pipeline sets the remaining fields."""

import copy
import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from transformers import TrainingArguments

from scripts.common.errors import UserError, nearest
from scripts.train.job import Job

Arguments = TypeVar("Arguments", bound=TrainingArguments)

OURS = (
    "output_dir",
    "seed",
    "data_seed",
    "use_cpu",
    "disable_tqdm",
    "eos_token",
    "assistant_only_loss",
    "fp16",
    "deepspeed",
    "fsdp",
    "fsdp_config",
    "save_only_model",
    "logging_nan_inf_filter",
    "logging_strategy",
    "model_init_kwargs",
)
"""Fields of the trainer's config that only the pipeline sets."""

DEFAULTS: dict[str, Any] = {
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 200,
    "save_total_limit": 1,
    "gradient_checkpointing": False,
    "report_to": ["tensorboard"],
}
"""Defaults for `args`: every step is logged, and a killed stage loses at most 200 steps."""

_ZERO: dict[str, Any] = {
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "zero_allow_untested_optimizer": True,  # otherwise DeepSpeed refuses all that it has not tested
}

STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "zero2": {"deepspeed": {"zero_optimization": {"stage": 2, "overlap_comm": True}, **_ZERO}},
    "zero3": {
        "deepspeed": {
            "zero_optimization": {"stage": 3, "overlap_comm": True, "stage3_gather_16bit_weights_on_model_save": True},
            **_ZERO,
        }
    },
    "fsdp2": {"fsdp": "full_shard", "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"}},
}
"""The trainer's arguments for each `strategy`. DeepSpeed sets `auto` values from the other arguments."""


def make_arguments(config: type[Arguments], job: Job, tokenizer: Any, has_validation: bool) -> Arguments:
    """TRL's config of the method for this job. Call it before loading the model, so that ZeRO-3 can shard it."""
    stage = job.stage
    # `bf16` computes matrix products in bfloat16, also of float32 weights.
    ours = DEFAULTS | {"bf16": job.dtype == "bfloat16"} | ({"eval_strategy": "epoch"} if has_validation else {})
    settings = ours | stage.args
    if stage.is_packed and not settings.get("packing"):
        settings.setdefault("max_length", None)  # without padding or packing there is no need to cut rows
    settings |= {
        "output_dir": str(job.checkpoints),
        "seed": job.seed,
        "data_seed": job.seed,
        "use_cpu": job.device == "cpu",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,  # it would hide a loss that is not a number
    }
    strategy = copy.deepcopy(STRATEGIES[stage.strategy])
    if "deepspeed" in strategy:
        strategy["deepspeed"]["bf16"] = {"enabled": settings["bf16"]}
    if stage.method == "sft":
        # The loss covers the assistant's turns, including the end of each turn.
        settings |= {"eos_token": tokenizer.eos_token, "assistant_only_loss": True}
    arguments = build_arguments(config, stage.args, settings | strategy, f"stages.{job.name}.args")
    if stage.method == "grpo" and arguments.save_steps >= 1:
        # GRPO samples answers for several steps at once, and a checkpoint in between would lose them.
        sampled = steps_between_samples(arguments)
        arguments.save_steps = max(1, round(arguments.save_steps / sampled)) * sampled
    return arguments


def steps_between_samples(arguments: Any) -> int:
    """Optimiser steps that use the same sampled answers of GRPO."""
    batches = arguments.steps_per_generation * arguments.num_iterations
    return math.lcm(batches, arguments.gradient_accumulation_steps) // arguments.gradient_accumulation_steps


@contextmanager
def one_line_errors(job: Job) -> Iterator[None]:
    """Turn errors of TRL and PEFT while a trainer is built, such as unknown target modules, into one line.

    Raises:
        UserError: with the first line of their message.
    """
    try:
        yield
    except ValueError as error:
        raise UserError(f"stages.{job.name}: {str(error).splitlines()[0]}") from error


def build_arguments(config: type[Arguments], args: dict[str, Any], settings: dict[str, Any], where: str) -> Arguments:
    """TRL's config from `settings`, which include the user's `args`.

    Raises:
        UserError: an argument is unknown to TRL or set only by the pipeline, or TRL refuses a value.
    """
    known = [field.name for field in dataclasses.fields(config)]
    for argument in args:
        if argument in OURS:
            remedy = "set the stage's strategy" if argument in ("deepspeed", "fsdp", "fsdp_config") else "remove it"
            raise UserError(f"{where}.{argument}: the pipeline sets this itself; {remedy}")
        if argument not in known:
            raise UserError(f"{where}.{argument}: TRL's config has no such field{nearest(argument, known)}")
    if args.get("packing_strategy") == "wrapped":
        raise UserError(f"{where}.packing_strategy: with wrapped, packed examples attend to each other; use bfd")
    try:
        return config(**settings)
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error
