"""The cost of training follows the documented formula, excludes padding, and is summed over attempts."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerControl, TrainerState
from trl import DPOConfig, DPOTrainer

from scripts.common.manifest import describe, find_model
from scripts.common.records import AnyManifest
from scripts.train.meter import (
    Meter,
    count,
    count_attended,
    count_parameters,
    peak_memory,
    read_cost,
    summarise_steps,
    write_steps,
)


@pytest.fixture
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(find_model(tiny_model))


def make_model(kind: str = "llama", **fields: Any) -> Any:
    """A model with a few weights."""
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 4}
    sizes |= {"vocab_size": 20, "num_key_value_heads": 2} | fields
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, pad_token_id=None, **sizes))


def _meter(model: Any) -> Meter:
    """The meter of a trainer that only has a model."""
    accelerator = SimpleNamespace(unwrap_model=lambda model: model)
    trainer: Any = SimpleNamespace(
        accelerator=accelerator, model=model, args=SimpleNamespace(device=torch.device("cpu"))
    )
    return Meter(trainer)


def _log(meter: Meter, processes: int = 1) -> dict[str, Any]:
    """The values that the meter adds to a log line with a loss."""
    logs: dict[str, Any] = {"loss": 1.0}
    args: Any = SimpleNamespace(world_size=processes)
    state = TrainerState(log_history=[{"step": 1}])
    meter.on_log(args, state, TrainerControl(), logs=logs)
    assert state.log_history == [{"step": 1} | {key: value for key, value in logs.items() if key != "loss"}]
    return logs


def _one(value: float) -> torch.Tensor:
    return torch.tensor(float(value))


def test_full_training_costs_six_flops_per_parameter_and_token(model: Any) -> None:
    """The embedding is tied, so every parameter is multiplied. Attention has two layers of width 64."""
    config = model.config
    width = config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // 4)
    expected = 6 * model.num_parameters() * 100 + 3 * 2 * width * config.num_hidden_layers * 5000
    assert float(read_cost(model).of(_one(100), _one(5000), True)) == pytest.approx(expected)
    assert float(read_cost(model).of(_one(100), _one(5000), False)) == pytest.approx(expected / 3)


def test_lora_costs_four_flops_per_frozen_parameter(model: Any) -> None:
    parameters = model.num_parameters()
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    adapters = count_parameters(adapted, trained=True)
    assert 0 < adapters < parameters / 4 and count_parameters(adapted) == parameters + adapters
    cost = float(read_cost(adapted.get_base_model()).of(_one(100), _one(0), True))
    assert cost == pytest.approx(100 * (4 * parameters + 6 * adapters))


def test_padding_is_not_counted() -> None:
    ids, mask = torch.zeros(2, 6, dtype=torch.long), torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    assert [float(x) for x in count_attended(ids, {"attention_mask": mask})] == [10, 16 + 36]
    assert [float(x) for x in count_attended(ids, {})] == [12, 72]


def test_packed_examples_attend_only_to_themselves() -> None:
    boundaries = torch.tensor([0, 4, 10], dtype=torch.int32)
    counted = count_attended(torch.zeros(1, 10, dtype=torch.long), {"cu_seq_lens_q": boundaries})
    assert [float(x) for x in counted] == [10, 16 + 36]


def test_a_token_after_a_cache_attends_to_all() -> None:
    counted = count_attended(torch.zeros(2, 1, dtype=torch.long), {"attention_mask": torch.ones(2, 9)})
    assert [float(x) for x in counted] == [2, 36]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_cost_of_dpo(tmp_path: Path, model: Any, tiny_model: Path, tuning: str) -> None:
    """Two pairs in TRL's trainer. The pass of the reference model adds FLOPs but no tokens.

    A token is a byte or a mark. The questions "say 1" and "say" have 13 and 11, an answer 13 and its letters.
    """

    def answer(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    pairs = [("say 1", "one", "none"), ("say", "yes", "no")]
    rows = [
        {"prompt": [{"role": "user", "content": asked}], "chosen": answer(chosen), "rejected": answer(rejected)}
        for asked, chosen, rejected in pairs
    ]
    sides = (13 + 16, 13 + 17, 11 + 16, 11 + 15)
    tokens, attended = sum(sides), sum(side**2 for side in sides)
    all_weights, width = model.num_parameters(), 2 * 64 * 2
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], per_device_train_batch_size=2),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(find_model(tiny_model)),
        peft_config=LoraConfig(r=4, target_modules="all-linear") if tuning == "lora" else None,
    )
    meter = Meter(trainer)
    trainer.model.train()
    trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    adapters = count_parameters(trainer.model, trained=True) if tuning == "lora" else 0
    trained = (4 * all_weights + 6 * adapters if adapters else 6 * all_weights) * tokens + 3 * width * attended
    reference = 2 * (all_weights + adapters) * tokens + width * attended
    assert float(meter.tokens) == tokens == 112
    assert float(meter.flops) == pytest.approx(trained + reference)


def test_each_log_line_has_the_cost_since_the_previous_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes on GPUs with 1 MFLOP/s. The driver reports 100, then 130, then 180 joules."""
    now, joules = [1000.0], [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr("scripts.train.meter.read_energy", lambda device: joules[0])
    model = make_model()
    meter = _meter(model)
    meter.peak = 1e6
    now[0] += 50  # time before training belongs to no step
    args: Any = None
    meter.on_train_begin(args, TrainerState(), TrainerControl())
    for seconds, rows, used in ((2.0, 2, 30.0), (4.0, 1, 50.0)):
        now[0] += seconds
        joules[0] += used
        model.train()
        model(input_ids=torch.zeros(rows, 5, dtype=torch.long))
        meter.on_log(args, TrainerState(), TrainerControl(), logs={"eval_loss": 1.0})  # not a step
        # Twice the sum of attended tokens is the squared length; attention has a width of 8 in two layers.
        flops = 6 * (model.num_parameters() - 20 * 8) * 5 * rows + 3 * 2 * 8 * 2 * 25 * rows
        logged = _log(meter, processes=2)
        assert logged["memory_gb"] > 0.1
        assert logged == {
            **{"loss": 1.0, "seconds": seconds, "tokens": 5.0 * rows, "flops": flops, "joules": used},
            **{"mfu": pytest.approx(flops / seconds / 2e6), "memory_gb": logged["memory_gb"]},
        }


def test_a_pass_without_gradient_trains_no_token() -> None:
    """As in sampling. For a mixture of experts, tokens are counted but FLOPs are not."""
    model = make_model()
    meter = _meter(model)
    model.train()
    with torch.no_grad():
        model(torch.zeros(3, 4, dtype=torch.long))
    logged = _log(meter)
    assert logged["tokens"] == 0 and logged["flops"] == 2 * (model.num_parameters() - 160) * 12 + 2 * 8 * 2 * 48
    experts = make_model("qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8)
    meter = _meter(experts)
    experts.train()
    experts(input_ids=torch.zeros(3, 4, dtype=torch.long))
    logged = _log(meter)
    assert logged["tokens"] == 12 and "flops" not in logged and "mfu" not in logged


def test_all_weights_of_quantised_and_sharded_parameters_count() -> None:
    packed = torch.zeros(10, 1, dtype=torch.uint8)
    spread = torch.zeros(3)
    spread.ds_numel = 12
    assert [count(torch.zeros(4, 5)), count(packed), count(spread)] == [20, 20, 12]


def test_memory_agrees_with_the_manifest() -> None:
    described: AnyManifest = describe(artefact="model", name="x", config={}, inputs={}, facts={})
    assert peak_memory(torch.device("cpu")) == pytest.approx(described["peak_memory_bytes"] / 1e9, rel=0.01)


def test_totals_include_all_attempts() -> None:
    log = [
        {"step": 1, "loss": 1.0, "seconds": 2.0, "tokens": 100.0, "memory_gb": 1.5, "mfu": 0.4, "joules": 3.6e6},
        {"step": 1, "eval_loss": 1.0},
        {"step": 2, "loss": 1.0, "seconds": 6.0, "tokens": 300.0, "memory_gb": 2.0, "flops": 7e9, "mfu": 0.2},
        {"step": 2, "train_runtime": 3.0},
    ]
    assert summarise_steps(log, 2.0) == {
        **{"train_seconds": 8.0, "seconds_per_epoch": 4.0, "tokens": 400, "tokens_per_second": 50.0},
        **{"flops": 7e9, "mfu": pytest.approx(0.25), "energy_kwh": pytest.approx(1.0), "peak_train_memory_gb": 2.0},
    }
    assert summarise_steps([], None)["tokens_per_second"] is None
    short = summarise_steps([{"step": 1, "loss": 1.0, "seconds": 2.26, "tokens": 9.0, "memory_gb": 1.2345}], None)
    assert (short["train_seconds"], short["peak_train_memory_gb"]) == (2.3, 1.23)


def test_the_table_of_the_steps(tmp_path: Path) -> None:
    write_steps(tmp_path / "a.parquet", [{"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": float("nan")}])
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.to_pylist() == [
        {"step": 1, "loss": 2.0, "eval_loss": None},
        {"step": 2, "loss": None, "eval_loss": None},
    ]
