"""What a stage computes beside its steps."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerState
from trl import SFTConfig

from scripts.plan.rows import Rows
from scripts.plan.steps import count_steps
from scripts.plan.work import count_work
from tests.plan.stages import make_shape, make_stage

ROWS = Rows(1_000, 100, "measured", Counter({50: 1_000}), 50, "measured")
STEPS = 250
"""Of 1,000 rows in batches of eight, for two epochs."""


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
    """As often as the trainer's callback would ask for them, each over a tenth of as many rows."""
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
