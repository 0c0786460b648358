"""GRPO raises the reward of its answers and saves a complete model."""

from pathlib import Path
from typing import Any

import pytest

from tests.train.learning import TUNINGS, learn

pytestmark = pytest.mark.slow

REWARD = """
def share_of_e(text, row):
    assert row["answer"] == "yes" and row["prompt"][0]["role"] == "user"
    return text.count("e") / max(8, len(text))
"""

ARGS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "per_device_train_batch_size": 32,
    "num_generations": 32,
    "max_completion_length": 8,
}


@pytest.mark.parametrize("tuning", TUNINGS)
def test_grpo_learns(tmp_path: Path, finished: Path, rows: Path, tuning: str) -> None:
    """GRPO learns only from answers that it happens to sample, so it starts from a partly trained model."""
    (tmp_path / "rewards.py").write_text(REWARD, encoding="utf-8")
    rewards = {"answer": False, "functions": {"letters": f"{tmp_path / 'rewards.py'}:share_of_e"}}
    parent = finished / "sft" / "manifest.json"
    steps = learn("grpo", tmp_path, parent, rows, tuning, ARGS, rewards=rewards)
    earned = [row["reward"] for row in steps]
    assert min(earned[-3:]) > earned[0] + 0.3
    assert any(key.startswith("rewards/letters_reward") for key in steps[0])
