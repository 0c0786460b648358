"""Count steps and epochs as the trainers of transformers and TRL do."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from scripts.common.config import Stage
from scripts.common.errors import UserError

DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3.0,
    "max_steps": -1,
    "dataloader_drop_last": False,
    "max_length": 1024,
    "max_completion_length": 512,
    "num_generations": 8,
    "num_iterations": 1,
    "optim": "adamw_torch_fused",
    "packing_strategy": "bfd",
}
"""Defaults of TRL's configs. A test compares them with TRL."""

NO_LENGTH = 1 << 62
"""Represents `max_length: null`: no row is truncated."""


@dataclass(frozen=True)
class Schedule:
    """The optimiser steps of a stage.

    Args:
        sequences: sequences of an epoch: rows, packed rows, or for GRPO sampled answers.
        effective_batch: sequences of a step.
        steps_per_epoch: steps of a complete epoch.
        steps: steps of the stage.
    """

    sequences: int
    effective_batch: int
    steps_per_epoch: int
    steps: int

    @property
    def epochs(self) -> float:
        """Passes over the rows."""
        return self.steps / self.steps_per_epoch


NUMBERS = {
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_length",
    "max_completion_length",
    "num_generations",
    "num_iterations",
    "steps_per_generation",
    "generation_batch_size",
    "eval_steps",
    "logging_steps",
}
"""Arguments that the plan computes with, which must be numbers above 0."""


def check_numbers(name: str, stage: Stage) -> None:
    """Raises UserError, with one line each, for arguments of a stage that are not valid numbers."""
    problems = [
        f"stages.{name}.args.{key}: a number above 0 is needed (given: {value!r})"
        for key, value in stage.args.items()
        if key in NUMBERS and value is not None and not (_is_number(value) and value > 0)
    ]
    if not isinstance(stage.args.get("max_steps", -1), int):
        problems.append(f"stages.{name}.args.max_steps: a whole number is needed (given: {stage.args['max_steps']!r})")
    if problems:
        raise UserError("\n".join(problems))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def setting(stage: Stage, name: str) -> Any:
    """An argument of a stage, or TRL's default."""
    given = stage.args.get(name)
    return DEFAULTS[name] if given is None else given


def max_length(stage: Stage) -> int:
    """Tokens after which a row is truncated. With `padding_free` but no packing, only if `max_length` is set."""
    uncut = stage.method == "grpo" or (stage.args.get("padding_free") and not stage.args.get("packing"))
    length = stage.args.get("max_length", NO_LENGTH if uncut else DEFAULTS["max_length"])
    return NO_LENGTH if length is None else int(length)


def count_steps(name: str, stage: Stage, sequences: int, processes: int) -> Schedule:
    """The schedule of a stage.

    It follows `Trainer.set_initial_training_values` of transformers 5.23. Accelerate gives each process the same number
    of batches, so a remainder counts as a full batch unless `dataloader_drop_last` is set. Steps per epoch are batches
    divided by accumulation, rounded up. Steps are epochs times that, rounded up, or `max_steps` if it is set.

    Args:
        name: name of the stage, for messages.
        stage: the stage.
        sequences: rows, or packed rows, of an epoch.
        processes: number of training processes.

    Raises:
        UserError: the rows do not fill one batch.
    """
    per_device = setting(stage, "per_device_train_batch_size")
    accumulation = setting(stage, "gradient_accumulation_steps")
    drop_last = setting(stage, "dataloader_drop_last")
    effective = per_device * accumulation * processes
    if stage.method == "grpo":
        sequences, batches = count_sampled(stage, sequences, processes)
    else:
        divide = _floor_divide if drop_last else _ceil_divide
        batches = divide(divide(sequences, per_device), processes)
    if not batches:
        raise UserError(f"stages.{name}: its rows do not fill a batch of {effective}; add rows or reduce it")
    steps_per_epoch = max(1, _ceil_divide(batches, accumulation))
    wanted = setting(stage, "max_steps")
    steps = wanted if wanted > 0 else math.ceil(setting(stage, "num_train_epochs") * steps_per_epoch)
    return Schedule(sequences, effective, steps_per_epoch, steps)


def count_sampled(stage: Stage, prompts: int, processes: int) -> tuple[int, int]:
    """Answers that GRPO trains on in an epoch, and batches per process.

    TRL samples `generation_batch_size` answers at once, `num_generations` for each prompt. It drops prompts that do not
    fill such a batch, and trains on each answer `num_iterations` times (`RepeatSampler` of TRL 1.16).
    """
    per_device, generations = setting(stage, "per_device_train_batch_size"), setting(stage, "num_generations")
    at_once = stage.args.get("generation_batch_size")
    passes = stage.args.get("steps_per_generation") or (
        at_once // (per_device * processes) if at_once else setting(stage, "gradient_accumulation_steps")
    )
    at_once = at_once or per_device * processes * passes
    blocks = prompts // max(1, at_once // generations)
    batches = blocks * setting(stage, "num_iterations") * passes
    return batches * per_device * processes, batches


def count_packed(lengths: Counter[int], longest: int) -> int:
    """Number of packed rows of `longest` tokens with best-fit decreasing packing, as TRL's `bfd`.

    Args:
        lengths: number of rows by tokens.
        longest: tokens of a packed row. Longer rows are truncated.
    """
    cut: Counter[int] = Counter()
    for length, rows in lengths.items():
        cut[min(length, longest)] += rows
    free: Counter[int] = Counter()  # number of packed rows by free tokens
    packed = 0
    for length, rows in sorted(cut.items(), reverse=True):
        left = rows
        for room in sorted(room for room in free if room >= length):
            # Best fit fills each of these packed rows with as many rows as fit before it uses the next.
            fitting = min(left, free[room] * (room // length))
            full, rest = divmod(fitting, room // length)
            free[room] -= full + (rest > 0)
            free[room - length * (room // length)] += full
            free[room - length * rest] += rest > 0
            left -= fitting
        a_row = longest // length
        full, rest = divmod(left, a_row)
        free[longest - length * a_row] += full
        free[longest - length * rest] += rest > 0
        packed += full + (rest > 0)
        free = +free
    return packed


def _ceil_divide(number: int, by: int) -> int:
    return -(-number // by)


def _floor_divide(number: int, by: int) -> int:
    return number // by
