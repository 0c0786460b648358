"""Memory is counted by formulas that hold for real models, and comes near what a real stage took."""

import contextlib
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from scripts.common.files import read_json
from scripts.common.manifest import find_model
from scripts.plan.memory import BUCKET, Batch, Setup, estimate_memory, layer_bytes
from scripts.plan.rows import Rows
from scripts.plan.shape import read_shape
from scripts.plan.steps import count_steps
from scripts.plan.work import make_batch
from tests.common.running import script_command, script_environment
from tests.plan.stages import CONFIG, make_shape, make_stage, qwen3_4b
from tests.train.stages import SFT, chat, sft_options, with_args, write_rows

ROWS, LENGTH = 2, 64


def count_saved(config: dict[str, Any], layers: int, length: int, tuning: str, mode: str, padded: bool) -> int:
    """Bytes that autograd keeps of a forward pass beside the weights."""
    fields = {key: value for key, value in config.items() if key != "model_type"} | {"num_hidden_layers": layers}
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **fields))
    if mode == "bfloat16" or (mode == "cast" and tuning == "lora"):
        model = model.to(torch.bfloat16)
    base = model
    if tuning == "lora":
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        model = model.to(torch.bfloat16) if mode == "bfloat16" else model
    add_fused_lm_head(base)
    model.train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}  # holds them, so that no address is used again

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    ids = torch.randint(0, 300, (ROWS, length))
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0
    cast = torch.autocast("cpu", torch.bfloat16) if mode == "cast" else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), cast:
        model(input_ids=ids, labels=ids, attention_mask=mask if padded else None, fused_lm_head=True)
    return sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in weights)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("mode", ["float32", "bfloat16", "cast"])
@pytest.mark.parametrize("padded", [False, True])
def test_what_a_layer_keeps_is_what_autograd_keeps(kind: str, tuning: str, mode: str, padded: bool) -> None:
    """Of one layer more, and of twice the tokens: what does not grow with both is no activation of a layer."""
    config = CONFIG | {"model_type": kind, "hidden_size": 256, "intermediate_size": 640, "head_dim": 32}
    layers = [
        count_saved(config, 2, length, tuning, mode, padded) - count_saved(config, 1, length, tuning, mode, padded)
        for length in (LENGTH, 2 * LENGTH)
    ]
    counted = (layers[1] - layers[0]) / (ROWS * LENGTH)
    # DeepSpeed computes in bfloat16 alone, and its gradients do not matter here.
    strategy = {"float32": "ddp", "bfloat16": "zero2", "cast": "ddp"}[mode]
    stage = make_stage(tuning=tuning, strategy=strategy, lora={"r": 4})
    dtype = "float32" if mode == "float32" else "bfloat16"
    setup = Setup(on_gpu=mode != "float32", dtype=dtype, processes=1, adapters=1)
    # A mask grows with the square: from L to 2 L tokens by as much as 3 L would give each.
    batch = Batch(ROWS * LENGTH, 3 * LENGTH, padded, sizes=1)
    assert layer_bytes(make_shape(**config), stage, setup, batch) == pytest.approx(counted, rel=0.03)


def test_zero2_spreads_states_over_four() -> None:
    """Of 4.0 B weights, 2 bytes each on every GPU, and a quarter of 2 (gradients) and 12 (states): 22 GB."""
    shape = qwen3_4b()
    batch = Batch(2_048, 2_048, False, sizes=1)
    stage = make_stage(strategy="zero2", args={"gradient_accumulation_steps": 2})
    parts = estimate_memory(shape, stage, Setup(True, "bfloat16", 4, 0), batch)
    states = parts["weights"] + parts["gradients"] + parts["optimiser"] - 2 * 2 * BUCKET
    assert states == pytest.approx(5.5 * shape.parameters) and states / 1e9 == pytest.approx(22, abs=0.3)


def held(part: str, stage: dict[str, Any], processes: int = 1, dtype: str = "bfloat16") -> float:
    """Bytes of a part for each weight of the model, with gradients that accumulate; adapters have a hundredth of it."""
    shape = qwen3_4b()
    section = make_stage(**stage | {"args": {"gradient_accumulation_steps": 2} | stage.get("args", {})})
    adapters = 0 if section.tuning == "full" else shape.parameters // 100
    setup = Setup(True, dtype, processes, adapters)
    return estimate_memory(shape, section, setup, Batch(64, 64, False, sizes=1))[part] / shape.parameters


HELD: list[tuple[str, dict[str, Any], int, float]] = [
    ("weights", {}, 1, 4 + 2),
    ("gradients", {}, 1, 4),
    ("gradients", {}, 2, 8),
    ("optimiser", {}, 1, 8),
    ("optimiser", {"args": {"optim": "sgd"}}, 1, 0),
    ("optimiser", {"args": {"optim": "adamw_bnb_8bit"}}, 1, 2),
    ("optimiser", {"strategy": "fsdp2"}, 4, 2),
    ("optimiser", {"strategy": "zero3"}, 4, 3),
    ("weights", {"tuning": "lora"}, 1, 2 + 0.04),
    ("optimiser", {"tuning": "lora"}, 1, 0.08),
    ("optimiser", {"tuning": "qlora"}, 1, 0.04),
    ("reference", {"method": "dpo"}, 1, 4),
    ("reference", {"method": "dpo", "strategy": "zero2"}, 2, 2),
    ("reference", {"method": "dpo", "tuning": "lora"}, 1, 0),
    ("reference", {"method": "dpo", "args": {"precompute_ref_log_probs": True}}, 1, 0),
    ("reference", {"method": "grpo"}, 1, 0),
    ("reference", {"method": "grpo", "args": {"beta": 0.04}}, 1, 4),
    ("reference", {"method": "orpo"}, 1, 0),
]


@pytest.mark.parametrize(("part", "stage", "processes", "bytes_a_weight"), HELD)
def test_what_is_held_for_each_weight(part: str, stage: dict[str, Any], processes: int, bytes_a_weight: float) -> None:
    assert held(part, stage, processes) == pytest.approx(bytes_a_weight, abs=1e-6)


def test_four_bits_are_held_for_linear_layers_alone() -> None:
    shape = qwen3_4b()
    expected = (0.516 * shape.linear_parameters + 2 * (shape.parameters - shape.linear_parameters)) / shape.parameters
    assert held("weights", {"tuning": "qlora"}) == pytest.approx(expected + 0.02, abs=1e-3)


def test_checkpointing_keeps_the_inputs_of_layers() -> None:
    again, kept = (held("activations", {"args": {"gradient_checkpointing": on}}) for on in (True, False))
    assert again < kept / 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "spread", "steps"),
    [pytest.param(8, 0, 3, id="small"), pytest.param(24, 0, 3, id="large"), pytest.param(1, 3, 24, id="of many sizes")],
)
def test_a_tiny_stage_takes_what_was_planned(
    tmp_path: Path, tiny_model: Path, batch: int, spread: int, steps: int
) -> None:
    """Within 15 %: most of it is what the libraries take, and what they compile for each size of batch."""
    write_rows(tmp_path / "messages.parquet", "messages", [chat(10 + i, "!" * spread * i) for i in range(24)])
    write_rows(tmp_path / "no_messages.parquet", "messages", [])
    stage = with_args(SFT, max_steps=steps, per_device_train_batch_size=batch)
    script = script_command("train.train_sft", sft_options(tiny_model, tmp_path, stage))
    # Linux counts what the starter of a process held as that process' own peak: a shell holds little.
    command = ["sh", "-c", '"$@"; exit $?', "sh", *script]
    run = subprocess.run(command, cwd=tmp_path, env=script_environment(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    manifest = read_json(tmp_path / "sft" / "manifest.json")
    shape = read_shape(read_json(find_model(tiny_model) / "config.json"))
    assert shape is not None
    lengths = [38 + spread * i for i in range(24)]  # bytes, and four tokens of the template
    rows = Rows(24, 0, "measured", Counter(lengths), max(lengths), "measured")
    section = make_stage(args=stage["args"])
    planned_batch = make_batch(section, rows, count_steps("sft", section, 24, 1))
    assert planned_batch is not None
    planned = sum(estimate_memory(shape, section, Setup(False, "float32", 1, 0), planned_batch).values())
    assert planned == pytest.approx(manifest["peak_memory_bytes"], rel=0.15)
