"""What every method must show: it learns from rows that repeat one answer, and saves a complete model."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.common.config.stage import Method
from scripts.common.files import read_json
from scripts.common.manifest import find_model
from scripts.train.model import read_logits
from tests.common.running import call_main
from tests.train.stages import method_options

TUNINGS = ("full", "lora", "qlora")

STEPS = 8


def learn(
    method: Method, folder: Path, parent: Path, rows: Path, tuning: str, args: dict[str, Any], **section: Any
) -> list[dict[str, Any]]:
    """Train a stage for eight steps, and check its log and the model that it saves.

    Args:
        method: of the stage, which runs in this process.
        folder: where it writes.
        parent: manifest of the model to start from.
        rows: folder of the fixture `rows`.
        tuning: all weights, or adapters.
        args: what differs from the defaults; adapters learn at four times its learning rate.
        section: other keys of the stage.

    Returns:
        The logged steps.
    """
    args = args | {"max_steps": STEPS, "save_strategy": "no"}
    if tuning != "full":
        # Adapters around random weights learn slowly: one of their two factors starts at zero.
        args |= {"learning_rate": 4 * args["learning_rate"]}
    section |= {"tuning": tuning, "lora": {"r": 16, "alpha": 64}, "args": args}
    call_main(f"train.train_{method}", folder, **method_options(method, parent, rows, section))
    steps = [row for row in pq.read_table(folder / "stage.parquet").to_pylist() if row["loss"] is not None]
    assert len(steps) == STEPS
    assert all(row["seconds"] > 0 and row["tokens"] > 0 and row["memory_gb"] > 0.1 for row in steps)
    check_model(folder / "stage" / "manifest.json", parent, tuning)
    return steps


def check_model(manifest: Path, parent: Path, tuning: str) -> None:
    """Check that the saved model has the tensors of its parent, and the weights of the trained model."""
    folder, before_folder = find_model(manifest), find_model(parent)
    before, after = (load_file(path / "model.safetensors") for path in (before_folder, folder))
    assert before.keys() == after.keys(), "adapters are merged"
    assert any(not before[name].equal(after[name]) for name in before)
    assert {weights.dtype for weights in after.values()} == {weights.dtype for weights in before.values()}
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.generation_config.eos_token_id == [AutoTokenizer.from_pretrained(folder).eos_token_id]
    facts = read_json(manifest)["facts"]
    assert facts["attention"] == "sdpa", "nothing is packed"
    assert (facts["trainable_parameters"] == facts["parameters"]) is (tuning == "full")
    probe = torch.tensor([range(100)])
    untrained = read_logits(AutoModelForCausalLM.from_pretrained(before_folder), probe)
    moved = torch.linalg.vector_norm(read_logits(model, probe) - untrained) / torch.linalg.vector_norm(untrained)
    assert moved > 4 * facts["reload_difference"] and moved > 0.02, "it is the trained model, not its parent"
    assert facts["reload_difference"] < 1e-4, "the saved model gives the logits of the trained one"
