"""Each method learns what can be learnt at once, with all weights and with adapters, and leaves a whole model."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.common.files import read_json
from scripts.train.model import read_logits
from tests.common.running import call_main
from tests.train.forked import METHODS
from tests.train.stages import method_options

pytestmark = pytest.mark.slow

REWARD = """
def share_of_e(text, row):
    assert row["answer"] == "yes" and row["prompt"][0]["role"] == "user"
    return text.count("e") / max(8, len(text))
"""

ARGS: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 5e-3, "max_steps": 8, "per_device_train_batch_size": 4},
    "dpo": {"learning_rate": 2e-3, "max_steps": 8, "per_device_train_batch_size": 4},
    "orpo": {"learning_rate": 5e-3, "max_steps": 8, "per_device_train_batch_size": 4},
    "kto": {"learning_rate": 2e-3, "max_steps": 8, "per_device_train_batch_size": 4},
    "grpo": {
        "learning_rate": 3e-3,
        "max_steps": 8,
        "per_device_train_batch_size": 32,
        "num_generations": 32,
        "max_completion_length": 8,
    },
}


@pytest.mark.parametrize("tuning", ["full", "lora", "qlora"])
@pytest.mark.parametrize("method", METHODS)
def test_learns(tmp_path: Path, tiny_model: Path, finished: Path, rows: Path, method: str, tuning: str) -> None:
    args = ARGS[method] | {"save_strategy": "no"}
    if tuning != "full":
        # Adapters around random weights learn slowly: half of their product begins at zero.
        args |= {"learning_rate": 4 * args["learning_rate"]}
    (tmp_path / "rewards.py").write_text(REWARD, encoding="utf-8")
    rewards = {"answer": False, "functions": {"letters": f"{tmp_path / 'rewards.py'}:share_of_e"}}
    section = {"tuning": tuning, "lora": {"r": 16, "alpha": 64}, "args": args, "rewards": rewards}
    # GRPO learns from what it happens to sample, so it starts from a model that has begun to learn.
    parent = finished / "sft" / "manifest.json" if method == "grpo" else tiny_model
    call_main(f"train.train_{method}", tmp_path, **method_options(method, parent, rows, section))

    steps = [row for row in pq.read_table(tmp_path / "stage.parquet").to_pylist() if row["loss"] is not None]
    assert len(steps) == args["max_steps"]
    assert all(row["seconds"] > 0 and row["tokens"] > 0 and row["memory_gb"] > 0.1 for row in steps)
    if method == "grpo":
        earned = [row["reward"] for row in steps]
        assert min(earned[-3:]) > earned[0] + 0.3
        assert any(key.startswith("rewards/letters_reward") for key in steps[0])
    else:
        assert steps[-1]["loss"] < steps[0]["loss"]

    folder = tmp_path / "stage" / "model"
    before, after = (load_file(path / "model.safetensors") for path in (parent.parent / "model", folder))
    assert before.keys() == after.keys(), "adapters are merged"
    assert any(not before[name].equal(after[name]) for name in before)
    assert {weights.dtype for weights in after.values()} == {weights.dtype for weights in before.values()}
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.generation_config.eos_token_id == [AutoTokenizer.from_pretrained(folder).eos_token_id]
    facts = read_json(tmp_path / "stage" / "manifest.json")["facts"]
    assert facts["attention"] == "sdpa", "nothing is packed"
    probe = torch.tensor([range(100)])
    untrained = read_logits(AutoModelForCausalLM.from_pretrained(parent.parent / "model"), probe)
    moved = torch.linalg.vector_norm(read_logits(model, probe) - untrained) / torch.linalg.vector_norm(untrained)
    assert moved > 4 * facts["reload_difference"] and moved > 0.02, "it is the trained model, not its parent"
    assert (facts["trainable_parameters"] == facts["parameters"]) is (tuning == "full")
    assert facts["reload_difference"] < 1e-4, "the saved model answers as the trained"


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_learns_in_bfloat16(tmp_path: Path, tiny_model: Path, rows: Path, tuning: str) -> None:
    """As GPUs do, and CPUs with such units: products in bfloat16, trained weights in float32 until they are saved."""
    args = {"learning_rate": 1e-2, "max_steps": 8, "padding_free": True, "max_length": None}
    section = {"tuning": tuning, "lora": {"r": 16, "alpha": 64}, "args": ARGS["sft"] | args}
    options = method_options("sft", tiny_model, rows, section) | {"dtype": "bfloat16"}
    call_main("train.train_sft", tmp_path, **options)
    losses = [row["loss"] for row in pq.read_table(tmp_path / "stage.parquet").to_pylist() if row["loss"] is not None]
    assert losses[-1] < 0.8 * losses[0]
    facts = read_json(tmp_path / "stage" / "manifest.json")["facts"]
    assert facts["attention"] == "varlen_attention" and facts["packing_difference"] < 0.05
    saved = load_file(tmp_path / "stage" / "model" / "model.safetensors")
    assert {weights.dtype for weights in saved.values()} == {torch.bfloat16}
