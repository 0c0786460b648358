"""ORPO lowers its loss and saves a complete model."""

from pathlib import Path

import pytest

from tests.train.learning import TUNINGS, learn

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("tuning", TUNINGS)
def test_orpo_learns(tmp_path: Path, tiny_model: Path, rows: Path, tuning: str) -> None:
    steps = learn("orpo", tmp_path, tiny_model, rows, tuning, {"learning_rate": 5e-3, "per_device_train_batch_size": 4})
    assert steps[-1]["loss"] < steps[0]["loss"]
