"""A stage killed at any moment resumes from its newest complete checkpoint and ends with the same weights.

Each method is killed twice in one process and twice in two, at random moments that differ in every test session, since
no moment may matter. The runs are longer than an epoch.
"""

import random
from pathlib import Path
from typing import Any

import pytest

from scripts.common.config.stage import Method
from scripts.common.files import read_json
from tests.train.forked import METHODS, kill_stage, read_output, run_stage
from tests.train.stages import method_options, read_losses

pytestmark = pytest.mark.long

STEPS = 30
KILLS = 2

ARGS: dict[Method, dict[str, Any]] = {
    "sft": {"per_device_train_batch_size": 4},
    "dpo": {"per_device_train_batch_size": 4},
    "orpo": {"per_device_train_batch_size": 4},
    "kto": {"per_device_train_batch_size": 4},
    "grpo": {"per_device_train_batch_size": 16, "num_generations": 4, "max_completion_length": 8, "num_iterations": 2},
}


PACKED: dict[str, Any] = {"tuning": "lora", "args": {"padding_free": True, "max_length": None}}
"""Adapters around bfloat16 weights, and packed examples."""


@pytest.mark.parametrize(
    ("method", "processes", "section", "dtype"),
    [(method, processes, {}, "float32") for method in METHODS for processes in (1, 2)]
    + [("sft", 1, PACKED, "bfloat16"), ("sft", 1, {"args": PACKED["args"]}, "bfloat16")],
)
def test_a_killed_stage_ends_with_the_same_weights(
    tmp_path: Path, tiny_model: Path, rows: Path, method: Method, processes: int, section: dict[str, Any], dtype: str
) -> None:
    args = ARGS[method] | {"learning_rate": 1e-3, "max_steps": STEPS, "save_steps": 2} | section.get("args", {})
    section = section | {"args": args, "rewards": {"answer_pattern": r"\w"}}
    options = method_options(method, tiny_model, rows, section) | {"dtype": dtype}
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    for folder in (unbroken, killed):
        folder.mkdir()
    run_stage(method, unbroken, options, processes)

    moments = random.Random()
    for _ in range(KILLS):
        steps, delay = moments.randrange(3, 8), moments.uniform(0, 0.1)
        was_alive = kill_stage(method, killed, options, processes, steps, delay)
        assert was_alive, "the stage ended before it was killed"
        print(f"{method}, {processes} processes: killed {delay:.2f} s after {steps} steps")
    if not (killed / "stage" / "manifest.json").exists():
        run_stage(method, killed, options, processes)
        assert "resuming from checkpoint-" in read_output(killed)
    weights = [
        read_json(folder / "stage" / "manifest.json")["facts"]["weights_sha256"] for folder in (unbroken, killed)
    ]
    assert weights[0] == weights[1]
    losses = [read_losses(folder / "stage.parquet") for folder in (unbroken, killed)]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS
