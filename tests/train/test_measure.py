"""What training costs is counted by the stated formula, without padding, and kept over attempts."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from scripts.common.manifest import find_model
from scripts.train.measure import count_attended, count_parameters, read_cost, summarise_steps, write_steps


@pytest.fixture
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(find_model(tiny_model))


def _one(value: float) -> torch.Tensor:
    return torch.tensor(float(value))


def test_full_training_costs_six_for_each_parameter_and_token(model: Any) -> None:
    """The tiny model's embedding is tied to its head, so every parameter multiplies; 2 layers of 64 attend."""
    config = model.config
    width = config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // 4)
    expected = 6 * model.num_parameters() * 100 + 3 * 2 * width * config.num_hidden_layers * 5000
    assert float(read_cost(model).of(_one(100), _one(5000), True)) == pytest.approx(expected)
    assert float(read_cost(model).of(_one(100), _one(5000), False)) == pytest.approx(expected / 3)


def test_adapters_cost_four(model: Any) -> None:
    parameters = model.num_parameters()
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    adapters = count_parameters(adapted, trained=True)
    assert 0 < adapters < parameters / 4 and count_parameters(adapted) == parameters + adapters
    cost = float(read_cost(adapted.get_base_model()).of(_one(100), _one(0), True))
    assert cost == pytest.approx(100 * (4 * parameters + 6 * adapters))


def test_padding_is_no_token() -> None:
    ids, mask = torch.zeros(2, 6, dtype=torch.long), torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    assert [float(x) for x in count_attended(ids, {"attention_mask": mask})] == [10, 16 + 36]
    assert [float(x) for x in count_attended(ids, {})] == [12, 72]


def test_packed_examples_attend_to_themselves() -> None:
    boundaries = torch.tensor([0, 4, 10], dtype=torch.int32)
    counted = count_attended(torch.zeros(1, 10, dtype=torch.long), {"cu_seq_lens_q": boundaries})
    assert [float(x) for x in counted] == [10, 16 + 36]


def test_one_token_behind_a_cache_attends_to_all() -> None:
    counted = count_attended(torch.zeros(2, 1, dtype=torch.long), {"attention_mask": torch.ones(2, 9)})
    assert [float(x) for x in counted] == [2, 36]


def test_totals_are_over_all_attempts() -> None:
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


def test_the_table_of_the_steps(tmp_path: Path) -> None:
    write_steps(tmp_path / "a.parquet", [{"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": float("nan")}])
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.to_pylist() == [
        {"step": 1, "loss": 2.0, "eval_loss": None},
        {"step": 2, "loss": None, "eval_loss": None},
    ]
