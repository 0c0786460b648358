"""Each method learns what can be learnt at once, with all weights and with adapters, and leaves a whole model."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.common.files import read_json, read_json_lines
from scripts.data.schemas import SCHEMAS
from tests.common.running import call_main
from tests.train.stages import chat

pytestmark = pytest.mark.slow

REWARD = """
def share_of_letters(text, row):
    assert row["answer"] == "yes" and row["prompt"][0]["role"] == "user"
    return sum(letter.isalpha() and letter.isascii() for letter in text) / max(1, len(text))
"""

STAGES: dict[str, dict[str, Any]] = {
    "orpo": {"learning_rate": 5e-3, "max_steps": 8, "per_device_train_batch_size": 4},
    "kto": {"learning_rate": 2e-3, "max_steps": 8, "per_device_train_batch_size": 4},
    "grpo": {
        "learning_rate": 5e-3,
        "max_steps": 24,
        "per_device_train_batch_size": 16,
        "num_generations": 16,
        "max_completion_length": 8,
    },
}


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of each kind in a folder, and the reward of one's own."""
    folder = tmp_path_factory.mktemp("answered")
    asked = [{"source_index": i, "prompt": chat(i)["messages"][:1]} for i in range(16)]
    right = chat(0)["messages"][1:]
    wrong = [{"role": "assistant", "content": "no no no"}]
    rows: dict[str, list[dict[str, Any]]] = {
        "preference": [row | {"chosen": right, "rejected": wrong} for row in asked],
        "kto": [row | {"completion": (wrong, right)[i % 2], "label": bool(i % 2)} for i, row in enumerate(asked)],
        "prompt": [row | {"answer": "yes"} for row in asked],
    }
    for form, given in rows.items():
        pq.write_table(pa.Table.from_pylist(given, schema=SCHEMAS[form]), folder / f"{form}.parquet")  # type: ignore[index]
        pq.write_table(pa.Table.from_pylist([], schema=SCHEMAS[form]), folder / f"no_{form}.parquet")  # type: ignore[index]
    (folder / "rewards.py").write_text(REWARD, encoding="utf-8")
    return folder


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize(("method", "form"), [("orpo", "preference"), ("kto", "kto"), ("grpo", "prompt")])
def test_learns(tmp_path: Path, tiny_model: Path, answered: Path, method: str, form: str, tuning: str) -> None:
    args = STAGES[method] | {"save_strategy": "no"}
    if tuning == "lora":
        args |= {"learning_rate": 4 * args["learning_rate"]}
    stage = {"method": method, "from": "base", "dataset": "rows", "tuning": tuning, "lora": {"r": 16, "alpha": 64}}
    rewards = {"answer": False, "functions": {"letters": f"{answered / 'rewards.py'}:share_of_letters"}}
    call_main(
        f"train.train_{method}",
        tmp_path,
        name="stage",
        config=stage | {"args": args, "rewards": rewards},
        parent=tiny_model,
        seed=7,
        dtype="float32",
        cpus=1,
        train=answered / f"{form}.parquet",
        validation=answered / f"no_{form}.parquet",
        steps="steps.jsonl",
        manifest="stage/manifest.json",
        log="stage.log",
    )
    steps = [row for row in read_json_lines(tmp_path / "steps.jsonl") if "loss" in row]
    assert len(steps) == args["max_steps"]
    if method == "grpo":
        earned = [row["reward"] for row in steps]
        # Adapters around random weights change what is sampled too slowly to be seen over the noise of a few steps.
        assert tuning == "lora" or sum(earned[-5:]) / 5 > sum(earned[:5]) / 5 + 0.08
        assert any(key.startswith("rewards/letters_reward") for key in steps[0])
    else:
        assert steps[-1]["loss"] < steps[0]["loss"]

    folder = tmp_path / "stage" / "model"
    before, after = (load_file(path / "model.safetensors") for path in (tiny_model.parent / "model", folder))
    assert before.keys() == after.keys(), "adapters are merged"
    assert any(not before[name].equal(after[name]) for name in before)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.generation_config.eos_token_id == [AutoTokenizer.from_pretrained(folder).eos_token_id]
    facts = read_json(tmp_path / "stage" / "manifest.json")["facts"]
    assert (facts["trainable_parameters"] == facts["parameters"]) is (tuning == "full")
