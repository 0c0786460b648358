"""The formulas of memory hold for real models, and the sum is near the memory of a real stage."""

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
    """Bytes that autograd keeps from a forward pass, without the weights."""
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
    kept: dict[int, torch.Tensor] = {}  # keeps the tensors, so that no address is reused

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
def test_activations_of_a_layer_agree_with_autograd(kind: str, tuning: str, mode: str, padded: bool) -> None:
    """Differences for one more layer and twice the tokens, since activations of a layer grow with both."""
    config = CONFIG | {"model_type": kind, "hidden_size": 256, "intermediate_size": 640, "head_dim": 32}
    layers = [
        count_saved(config, 2, length, tuning, mode, padded) - count_saved(config, 1, length, tuning, mode, padded)
        for length in (LENGTH, 2 * LENGTH)
    ]
    counted = (layers[1] - layers[0]) / (ROWS * LENGTH)
    # DeepSpeed computes in bfloat16 only, and its gradients do not matter here.
    strategy = {"float32": "ddp", "bfloat16": "zero2", "cast": "ddp"}[mode]
    stage = make_stage(tuning=tuning, strategy=strategy, lora={"r": 4})
    dtype = "float32" if mode == "float32" else "bfloat16"
    setup = Setup(on_gpu=mode != "float32", dtype=dtype, processes=1, adapters=1)
    # A mask grows with the square of the length: the difference from L to 2 L is 3 L for each further token.
    batch = Batch(ROWS * LENGTH, 3 * LENGTH, padded, sizes=1)
    assert layer_bytes(make_shape(**config), stage, setup, batch) == pytest.approx(counted, rel=0.03)


def test_zero2_shards_states_over_four_gpus() -> None:
    """4.0 B weights have 2 bytes each on every GPU, and a quarter of 2 (gradients) and 12 (states): 22 GB."""
    shape = qwen3_4b()
    batch = Batch(2_048, 2_048, False, sizes=1)
    stage = make_stage(strategy="zero2", args={"gradient_accumulation_steps": 2})
    parts = estimate_memory(shape, stage, Setup(True, "bfloat16", 4, 0), batch)
    states = parts["weights"] + parts["gradients"] + parts["optimiser"] - 2 * 2 * BUCKET
    assert states == pytest.approx(5.5 * shape.parameters) and states / 1e9 == pytest.approx(22, abs=0.3)


def held(part: str, stage: dict[str, Any], processes: int = 1, dtype: str = "bfloat16") -> float:
    """Bytes of a part per weight of the model, with accumulated gradients. Adapters have 1 % of the weights."""
    shape = qwen3_4b()
    section = make_stage(**stage | {"args": {"gradient_accumulation_steps": 2} | stage.get("args", {})})
    adapters = 0 if section.tuning == "full" else shape.parameters // 100
    setup = Setup(True, dtype, processes, adapters)
    return estimate_memory(shape, section, setup, Batch(64, 64, False, sizes=1))[part] / shape.parameters


HELD: list[tuple[str, dict[str, Any], int, float]] = [
    ("weights", {}, 1, 4 + 2),
    ("weights", {}, 2, 4 + 2),
    ("weights", {"args": {"bf16": False}}, 1, 4),
    ("weights", {"strategy": "zero2"}, 2, 2),
    ("weights", {"strategy": "zero2", "tuning": "lora"}, 2, 2 + 0.02),
    ("gradients", {}, 1, 4),
    ("gradients", {}, 2, 8),
    ("gradients", {"strategy": "fsdp2"}, 4, 1),
    ("gradients", {"tuning": "lora"}, 1, 0.04),
    ("gradients", {"tuning": "qlora"}, 1, 0.02),
    ("gradients", {"tuning": "qlora"}, 2, 0.04),
    ("optimiser", {}, 1, 8),
    ("optimiser", {"args": {"optim": "sgd"}}, 1, 0),
    ("optimiser", {"args": {"optim": "adamw_bnb_8bit"}}, 1, 2),
    ("optimiser", {"strategy": "fsdp2"}, 4, 2),
    ("optimiser", {"strategy": "zero3"}, 4, 3),
    ("weights", {"tuning": "lora"}, 1, 2 + 0.04),
    ("optimiser", {"tuning": "lora"}, 1, 0.08),
    ("optimiser", {"tuning": "qlora"}, 1, 0.04),
    ("reference", {"method": "dpo"}, 1, 4),
    ("reference", {"method": "kto"}, 1, 4),
    ("reference", {"method": "dpo", "strategy": "zero2"}, 2, 2),
    ("reference", {"method": "dpo", "strategy": "zero3"}, 2, 1),
    ("reference", {"method": "dpo", "strategy": "fsdp2"}, 4, 1),
    ("reference", {"method": "dpo", "tuning": "lora"}, 1, 0),
    ("reference", {"method": "dpo", "args": {"precompute_ref_log_probs": True}}, 1, 0),
    ("reference", {"method": "grpo"}, 1, 0),
    ("reference", {"method": "grpo", "args": {"beta": 0.04}}, 1, 4),
    ("reference", {"method": "orpo"}, 1, 0),
]


@pytest.mark.parametrize(("part", "stage", "processes", "bytes_a_weight"), HELD)
def test_bytes_per_weight(part: str, stage: dict[str, Any], processes: int, bytes_a_weight: float) -> None:
    assert held(part, stage, processes) == pytest.approx(bytes_a_weight, abs=1e-6)


def test_only_linear_layers_have_four_bits() -> None:
    shape = qwen3_4b()
    expected = (0.516 * shape.linear_parameters + 2 * (shape.parameters - shape.linear_parameters)) / shape.parameters
    assert held("weights", {"tuning": "qlora"}) == pytest.approx(expected + 0.02, abs=1e-3)


def estimate(
    stage: dict[str, Any], on_gpu: bool = True, dtype: str = "bfloat16", processes: int = 1, tokens: int = 64
) -> dict[str, float]:
    """The parts of a stage of Qwen3-4B on rows without padding. Adapters have 1 % of the weights."""
    shape, section = qwen3_4b(), make_stage(**stage)
    adapters = 0 if section.tuning == "full" else shape.parameters // 100
    batch = Batch(tokens, tokens, False, sizes=3)
    return estimate_memory(shape, section, Setup(on_gpu, dtype, processes, adapters), batch)


HIDDEN, LAYERS, WORDS = 2_560, 36, 151_936
"""Sizes of Qwen3-4B, from which its linear layers are counted by hand below."""

QUERIES, KEYS, FORWARD = 4_096, 1_024, 9_728
LINEAR = 2 * HIDDEN * QUERIES + 2 * HIDDEN * KEYS + 3 * HIDDEN * FORWARD


def test_memory_of_sharded_weights() -> None:
    """ZeRO-3 has a quarter of 2 bytes per weight, and up to a billion gathered weights (all of a small model).

    FSDP2 has a quarter of 4 bytes, and the embedding and two layers gathered in bfloat16.
    """
    n = qwen3_4b().parameters
    assert estimate({"strategy": "zero3"}, processes=4)["weights"] == n / 2 + 2e9
    assert estimate({"strategy": "fsdp2"}, processes=4)["weights"] == n + 2 * (WORDS * HIDDEN + 2 * LINEAR)
    small = make_shape()
    parts = estimate_memory(
        small, make_stage(strategy="zero3"), Setup(True, "bfloat16", 4, 0), Batch(64, 64, False, sizes=1)
    )
    assert parts["weights"] == small.parameters / 2 + 2 * small.parameters


def test_checkpointing_keeps_the_inputs_of_layers() -> None:
    again, kept = (estimate({"args": {"gradient_checkpointing": on}})["activations"] for on in (True, False))
    # Inputs are float32 under autocast, and bfloat16 if the weights are.
    assert again == 64 * LAYERS * 4 * HIDDEN + kept / LAYERS
    lora = {"tuning": "lora", "args": {"gradient_checkpointing": True}}
    of_a_layer = estimate({"tuning": "lora"})["activations"] / LAYERS
    assert estimate(lora)["activations"] == 64 * LAYERS * 2 * HIDDEN + of_a_layer


def test_activations_use_more_memory_on_a_cpu() -> None:
    cpu, gpu = (estimate({}, on_gpu, "float32")["activations"] for on_gpu in (False, True))
    assert cpu == pytest.approx(1.6 * gpu)


@pytest.mark.parametrize(("sizes", "kept"), [(1, 1), (24, 24), (40, 40), (500, 40)])
def test_a_cpu_keeps_kernels_for_at_most_40_batch_sizes(sizes: int, kept: int) -> None:
    stage, batch = make_stage(), Batch(64, 64, False, sizes)
    cpu, gpu = (estimate_memory(make_shape(), stage, Setup(on, "float32", 1, 0), batch) for on in (False, True))
    assert (cpu["framework"], gpu["framework"]) == (0.62e9, 2e9)
    assert (cpu["kernels"], gpu["kernels"]) == (kept * 19e6, 0)


def test_gradients_replace_activations_without_accumulation() -> None:
    """Gradients use 4 bytes per weight, 16 GB. Without accumulation, only their excess over activations counts."""
    n = qwen3_4b().parameters
    few, many = estimate({}, tokens=64), estimate({}, tokens=100_000)
    assert 0 < few["activations"] < 4 * n < many["activations"]
    assert (few["gradients"], many["gradients"]) == (4 * n - few["activations"], 0)
    accumulating = {"args": {"gradient_accumulation_steps": 2}}
    assert estimate(accumulating, tokens=100_000)["gradients"] == 4 * n


@pytest.mark.parametrize(("tokens", "at_once"), [(64, 64), (10_000, 4_096)])
def test_the_head_computes_tiles(tokens: int, at_once: int) -> None:
    """A tile, and float32 gradients of the last hidden states and of a trained head."""
    states, head = 4 * tokens * HIDDEN, 4 * WORDS * HIDDEN
    assert estimate({}, tokens=tokens)["head"] == at_once * 32_768 * 2 + states + head
    assert estimate({"tuning": "lora"}, tokens=tokens)["head"] == at_once * 32_768 * 2 + states
    on_cpu = estimate({}, False, "float32", tokens=tokens)["head"]
    assert on_cpu == at_once * 2_048 * (4 + 24) + states + head


@pytest.mark.parametrize(("dtype", "size"), [("bfloat16", 2), ("float32", 4)])
def test_orpo_keeps_all_logits(dtype: str, size: int) -> None:
    """The logits, and in float32 their log-softmax and its gradient."""
    expected = 64 * WORDS * (size + 4 + 4) + 4 * 64 * HIDDEN + 4 * WORDS * HIDDEN
    assert estimate({"method": "orpo"}, dtype=dtype)["head"] == expected


def test_dropout_keeps_adapter_inputs_and_its_mask() -> None:
    """The inputs of five linear layers have the stream's width, of one the queries', and of one the feed-forward's."""
    inputs = 5 * HIDDEN + QUERIES + FORWARD
    for on_gpu, dtype, size in ((True, "bfloat16", 2 + 1), (False, "float32", 4 + 4)):
        setup, batch = Setup(on_gpu, dtype, 1, 1), Batch(64, 64, False, sizes=1)
        plain, dropped = (
            layer_bytes(qwen3_4b(), make_stage(tuning="lora", lora={"dropout": share}), setup, batch)
            for share in (0, 0.1)
        )
        assert dropped - plain == inputs * size


def test_memory_of_checking_the_saved_model() -> None:
    """4 bytes per weight, minus memory that training has freed: in main memory, and for QLoRA on the GPU."""
    n = qwen3_4b().parameters
    cpu = estimate({}, False, "float32")
    assert cpu["saving"] == 4 * n - cpu["head"] > 0
    assert estimate({})["saving"] == estimate({"tuning": "lora"})["saving"] == 0
    qlora = estimate({"tuning": "qlora"})
    assert qlora["saving"] == 4 * n - qlora["head"] - qlora["gradients"] - qlora["activations"] > 0
    assert estimate({"tuning": "qlora"}, tokens=100_000)["saving"] == 0


@pytest.mark.slow
def test_a_tiny_stage_uses_the_planned_memory(tmp_path: Path, tiny_model: Path) -> None:
    """Libraries use most of the memory, and depend on the processor, so the bounds are generous."""
    write_rows(tmp_path / "messages.parquet", "messages", [chat(10 + i, "!" * 3 * i) for i in range(24)])
    write_rows(tmp_path / "no_messages.parquet", "messages", [])
    stage = with_args(SFT, max_steps=24, per_device_train_batch_size=1)
    script = script_command("train.train_sft", sft_options(tiny_model, tmp_path, stage))
    # Linux counts the memory of the parent process into the peak of its child, and a shell uses little.
    command = ["sh", "-c", '"$@"; exit $?', "sh", *script]
    run = subprocess.run(command, cwd=tmp_path, env=script_environment(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    used = read_json(tmp_path / "sft" / "manifest.json")["peak_memory_bytes"]
    shape = read_shape(read_json(find_model(tiny_model) / "config.json"))
    assert shape is not None
    lengths = [38 + 3 * i for i in range(24)]  # one token per byte, and four marks of the template
    rows = Rows(24, 0, "measured", Counter(lengths), max(lengths), "measured")
    section = make_stage(args=stage["args"])
    batch = make_batch(section, rows, count_steps("sft", section, 24, 1))
    assert batch is not None and batch.sizes > 10
    memory = estimate_memory(shape, section, Setup(False, "float32", 1, 0), batch)
    most = sum(memory.values())
    assert 0.7 * (most - memory["kernels"]) < used < 1.4 * most
