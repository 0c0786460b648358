"""DPO starts from its parent, uses it as the reference model, and saves a complete model."""

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.common.files import read_json
from tests.common.running import call_main
from tests.train.learning import TUNINGS, learn
from tests.train.stages import DPO, dpo_options

pytestmark = pytest.mark.slow


def _train(folder: Path, parent: Path, rows: Path, stage: dict[str, Any]) -> list[dict[str, Any]]:
    """Train, and return the logged steps."""
    call_main("train.train_dpo", folder, **dpo_options(parent, rows, stage))
    return [row for row in pq.read_table(folder / "dpo.parquet").to_pylist() if row["loss"] is not None]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_reference_is_the_parent(tmp_path: Path, finished: Path, rows: Path, tuning: str) -> None:
    """Before the first update the model equals its reference, so the reward is 0 and the loss ln 2."""
    stage = DPO | {"tuning": tuning, "lora": {"r": 4, "alpha": 8}}
    steps = _train(tmp_path, finished / "sft" / "manifest.json", rows, stage)
    assert len(steps) == 3
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert steps[0]["rewards/margins"] == pytest.approx(0, abs=1e-3)
    assert steps[-1]["rewards/margins"] > 0.01 and steps[-1]["loss"] < steps[0]["loss"]

    folder = tmp_path / "dpo" / "model"
    names = {path.name for path in folder.iterdir()}
    assert not {name for name in names if name.startswith("adapter")}, "adapters are merged"
    before, after = (load_file(path / "model.safetensors") for path in (finished / "sft" / "model", folder))
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert any("q_proj" in name for name in changed)
    if tuning == "lora":
        assert all("_proj" in name for name in changed), "all-linear does not change embeddings and norms"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.generation_config.eos_token_id == [AutoTokenizer.from_pretrained(folder).eos_token_id]
    facts = read_json(tmp_path / "dpo" / "manifest.json")["facts"]
    assert (facts["trainable_parameters"] == facts["parameters"]) is (tuning == "full")


@pytest.mark.parametrize("tuning", TUNINGS)
def test_dpo_learns(tmp_path: Path, tiny_model: Path, rows: Path, tuning: str) -> None:
    steps = learn("dpo", tmp_path, tiny_model, rows, tuning, {"learning_rate": 2e-3, "per_device_train_batch_size": 4})
    assert steps[-1]["loss"] < steps[0]["loss"]
