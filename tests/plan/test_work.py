"""The work of a stage, and its largest batch."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerState
from trl import SFTConfig

from scripts.common.flops import Cost
from scripts.plan.memory import KEPT_SIZES, Batch
from scripts.plan.rows import Rows
from scripts.plan.steps import Schedule, count_steps
from scripts.plan.work import Work, count_seen, count_work, make_batch
from tests.plan.stages import make_shape, make_stage

ROWS = Rows(1_000, 100, "measured", Counter({50: 1_000}), 50, "measured")
STEPS = 250
"""Steps of two epochs of 1,000 rows in batches of eight."""


@pytest.mark.parametrize(
    ("args", "evaluations"),
    [
        ({}, 2),
        ({"eval_strategy": "no"}, 0),
        ({"eval_strategy": "steps", "eval_steps": 100}, 2),
        ({"eval_strategy": "steps", "eval_steps": 0.1}, 10),
        ({"eval_strategy": "steps", "eval_steps": 0.3}, 3),
        ({"eval_strategy": "steps", "logging_steps": 0.5}, 2),
        ({"eval_strategy": "steps"}, STEPS),
    ],
    ids=str,
)
def test_validations_are_counted(tmp_path: Path, args: dict[str, Any], evaluations: int) -> None:
    """As often as in the trainer, each over 100 validation rows."""
    stage = make_stage(args={"num_train_epochs": 2} | args)
    schedule = count_steps("mine", stage, 1_000, 1)
    assert schedule.steps == STEPS
    cost = make_shape().cost(0)
    none = make_stage(args=stage.args | {"eval_strategy": "no"})
    with_them, without = (count_work(one, ROWS, schedule, cost) for one in (stage, none))
    assert with_them is not None and without is not None
    once = cost.of(100 * 50, 100 * 50**2, False)
    assert (with_them.flops - without.flops) / once == pytest.approx(evaluations)
    if "eval_steps" in args:
        state = TrainerState(max_steps=STEPS)
        state.compute_steps(SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **args), STEPS)
        assert STEPS // state.eval_steps == evaluations


COST = Cost(multiplying=100, adapters=0, attention=3)
"""A token costs 600 FLOPs with gradients and 200 without, and each attended token 9 and 3."""


def work(rows: Rows = ROWS, sequences: int | None = None, **stage: Any) -> Work:
    """The work of a stage without validation."""
    section = make_stage(**stage | {"args": {"eval_strategy": "no"} | stage.get("args", {})})
    counted = count_work(section, rows, count_steps("mine", section, sequences or rows.train or 0, 1), COST)
    assert counted is not None
    return counted


TWICE = {"num_train_epochs": 2}


@pytest.mark.parametrize(
    ("method", "args", "tokens", "flops"),
    [
        # 2,000 rows of 50 tokens: 600 x 100,000 and 9 x 5,000,000 with gradients, a third of that without.
        ("sft", {}, 1e5, 1.05e8),
        # Pairs have two sequences. The reference model adds a pass in each epoch, or a single one before training.
        ("orpo", {}, 2e5, 2.1e8),
        ("dpo", {}, 2e5, 2.1e8 + 0.7e8),
        ("dpo", {"precompute_ref_log_probs": True}, 2e5, 2.1e8 + 0.35e8),
        # Mismatched pairs pass through both models, unless the loss needs none.
        ("kto", {}, 1e5, 1.05e8 + 2 * 0.35e8 + 0.35e8),
        ("kto", {"precompute_ref_log_probs": True}, 1e5, 1.05e8 + 2 * 0.175e8 + 0.35e8),
        ("kto", {"loss_type": "apo_zero_unpaired"}, 1e5, 1.05e8 + 0.35e8),
    ],
    ids=str,
)
def test_the_work_of_each_method(method: str, args: dict[str, Any], tokens: float, flops: float) -> None:
    done = work(method=method, args=TWICE | args)
    assert (done.tokens, done.recomputed) == (tokens, 0)
    assert done.flops == pytest.approx(flops)


@pytest.mark.parametrize(
    ("args", "epochs", "forwards"),
    [({}, 1, 1), ({"beta": 0.04}, 1, 2), ({"num_iterations": 2}, 2, 0.5), ({"num_iterations": 2, "beta": 0.1}, 2, 1.5)],
    ids=str,
)
def test_the_work_of_grpo(args: dict[str, Any], epochs: int, forwards: float) -> None:
    """Eight answers to each of 1,000 prompts, all with 50 tokens: 8,000 sequences of 100 tokens.

    Their forward pass costs 200 x 800,000 and 3 x 80,000,000. Sampling costs one forward pass for all iterations.
    """
    args = {"num_train_epochs": 1, "max_completion_length": 50} | args
    done = work(method="grpo", args=args)
    assert done.tokens == 8e5 * epochs
    assert done.flops == pytest.approx(4e8 * epochs * (3 + forwards))


def test_recomputed_activations_cost_a_forward_pass() -> None:
    done = work(args=TWICE | {"gradient_checkpointing": True})
    assert (done.flops, done.recomputed) == (1.05e8, 0.35e8)


def test_truncated_rows_are_counted() -> None:
    done = work(args=TWICE | {"max_length": 20})
    assert (done.tokens, done.flops) == (4e4, 600 * 4e4 + 9 * 8e5)


def test_packed_rows_have_the_tokens_of_their_examples() -> None:
    """500 rows with two examples each: a step of eight rows trains on 16 examples."""
    done = work(sequences=500, args={"packing": True, "max_length": 100, "max_steps": 10})
    assert (done.tokens, done.flops) == (160 * 50, 600 * 8_000 + 9 * 400_000)


def test_neither_grpo_nor_a_stage_without_validation_rows_is_validated() -> None:
    """Validation of GRPO samples answers, which are not counted."""
    for stage, rows in (
        (make_stage(method="grpo", args={"max_completion_length": 30}), ROWS),
        (make_stage(), replace(ROWS, validation=0)),
    ):
        never = make_stage(method=stage.method, args=stage.args | {"eval_strategy": "no"})
        schedule = Schedule(1_000, 32, 32, 10)
        assert count_work(stage, rows, schedule, COST) == count_work(never, rows, schedule, COST)


def test_an_unknown_number_of_rows_is_not_counted() -> None:
    assert count_work(make_stage(), replace(ROWS, train=None), Schedule(1_000, 32, 32, 10), COST) is None


def test_rows_with_unknown_tokens_are_not_counted() -> None:
    rows = Rows(1_000, 0, "measured", Counter(), 50, "unknown")
    stage = make_stage()
    assert count_work(stage, rows, count_steps("mine", stage, 1_000, 1), COST) is None


@pytest.mark.parametrize(("steps", "seen"), [(126, 1_003), (252, 2_006), (10, 80), (136, 1_083)])
def test_the_last_batch_of_an_epoch_is_not_full(steps: int, seen: int) -> None:
    """1,003 rows in batches of eight: the last of 126 batches has three rows."""
    assert count_seen(Schedule(1_003, 8, 126, steps)) == seen


# --- the batch ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "batch"),
    [
        ({}, Batch(8 * 50, 50, True, 1)),
        ({"args": {"max_length": 20}}, Batch(8 * 20, 20, True, 1)),
        ({"args": {"per_device_train_batch_size": 1}}, Batch(50, 50, False, 1)),
        ({"method": "dpo", "args": {"per_device_train_batch_size": 1}}, Batch(2 * 50, 50, True, 1)),
        ({"args": {"padding_free": True}}, Batch(8 * 50, 50, False, 40)),
        ({"args": {"packing": True}}, Batch(8 * 1_024, 1_024, False, 40)),
        ({"method": "grpo", "args": {"max_completion_length": 30}}, Batch(8 * 80, 80, True, 40)),
    ],
    ids=str,
)
def test_the_largest_batch(stage: dict[str, Any], batch: Batch) -> None:
    """Rows of 50 tokens in ten steps of four batches."""
    section = make_stage(**stage | {"args": {"gradient_accumulation_steps": 4} | stage.get("args", {})})
    assert make_batch(section, ROWS, Schedule(1_000, 32, 32, 10)) == batch
    without = make_batch(section, ROWS, None)
    assert without is not None and without.sizes == (batch.sizes if batch.sizes == 1 else KEPT_SIZES)


def test_the_largest_batch_of_uncounted_rows() -> None:
    unknown = Rows(None, 0, "unknown", Counter(), None, "unknown")
    batch = make_batch(make_stage(), unknown, None)
    assert batch == Batch(8 * 1_024, 1_024, True, KEPT_SIZES), "any batch can have a length of its own"
    assert make_batch(make_stage(args={"max_length": None}), unknown, None) is None
    spread = Rows(2, 0, "measured", Counter({10: 1, 30: 1}), None, "measured")
    batch = make_batch(make_stage(args={"max_length": None}), spread, None)
    assert batch is not None and (batch.tokens, batch.length) == (8 * 30, 30)


@pytest.mark.parametrize(
    ("lengths", "per_device", "steps", "sizes"),
    [
        # Half of the rows have 10 tokens, and half 11. A batch of two has length 11 with probability 3/4.
        ({10: 1, 11: 1}, 1, 1, 1.0),
        ({10: 1, 11: 1}, 1, 2, 1.5),
        ({10: 1, 11: 1}, 2, 1, 1.0),
        ({10: 1, 11: 1}, 2, 2, (1 - 0.75**2) + (1 - 0.25**2)),
        # A bar of width ten represents ten lengths, each of which has probability 1/20.
        ({10: 1, 20: 1}, 1, 2, 20 * (1 - 0.95**2)),
        ({10: 3, 20: 1}, 1, 2, 10 * (1 - 0.925**2) + 10 * (1 - 0.975**2)),
    ],
)
def test_the_expected_number_of_batch_sizes(lengths: dict[int, int], per_device: int, steps: int, sizes: float) -> None:
    rows = Rows(sum(lengths.values()), 0, "measured", Counter(lengths), max(lengths), "measured")
    stage = make_stage(args={"per_device_train_batch_size": per_device})
    batch = make_batch(stage, rows, Schedule(2, per_device, 1, steps))
    assert batch is not None and batch.sizes == pytest.approx(sizes)
