"""Numbers computed from a config.json agree with transformers and PEFT."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from scripts.common.config import HubModel, Lora, RandomModel
from scripts.common.files import write_json
from scripts.common.manifest import find_model
from scripts.plan.shape import FAMILIES, find_shape, read_shape
from scripts.train.meter import read_cost
from tests.plan.stages import CONFIG, make_shape, qwen3_4b


def build(**fields: Any) -> Any:
    config = CONFIG | fields
    kind = config.pop("model_type")
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config))


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_and_costs_agree_with_the_model(kind: str, tied: bool) -> None:
    fields: dict[str, Any] = {"model_type": kind, "tie_word_embeddings": tied, "pad_token_id": None}
    # Qwen2 has no head_dim.
    fields |= {"head_dim": 8} if kind == "qwen2" else {}
    model, shape = build(**fields), make_shape(**fields)
    assert shape.parameters == model.num_parameters()
    assert shape.cost(0) == read_cost(model)


@pytest.mark.parametrize("lora", [{}, {"r": 3, "use_dora": True}, {"target_modules": ["q_proj", "down_proj"]}], ids=str)
def test_adapters_agree_with_peft(lora: dict[str, Any]) -> None:
    section = Lora.model_validate(lora)
    wanted = LoraConfig(r=section.r, target_modules=section.target_modules, use_dora=section.use_dora)
    wanted.task_type = "CAUSAL_LM"
    model = get_peft_model(build(), wanted)
    assert make_shape().adapter_parameters(section) == model.get_nb_trainable_parameters()[0]


def test_adapters_of_unknown_modules_are_not_guessed() -> None:
    assert make_shape().adapter_parameters(Lora(target_modules=".*proj")) is None
    assert make_shape().adapter_parameters(Lora(target_modules=["lm_head"])) is None


def test_qwen3_4b_is_known_before_its_download() -> None:
    """Its model card states 4.0 B parameters, 3.6 B of them without the embedding."""
    shape = qwen3_4b()
    assert round((shape.parameters - shape.embedding) / 1e9, 1) == 3.6
    assert round(shape.parameters / 1e9, 1) == 4.0


def test_other_architectures_are_not_guessed() -> None:
    assert read_shape({"model_type": "gpt2", "n_embd": 64}) is None
    for fields in (
        {"model_type": "qwen3_moe", "num_experts": 8},
        {"model_type": "deepseek_v3", "n_routed_experts": 8},
        {"model_type": "starcoder2"},  # feed-forward layers without a gate
        {"model_type": "llama", "attention_bias": True},
    ):
        assert read_shape(CONFIG | fields) is None


def test_multimodal_models_are_counted_by_their_text_model() -> None:
    text = {key: value for key, value in CONFIG.items() if key != "tie_word_embeddings"}
    assert read_shape({"model_type": "gemma3", "text_config": text, "tie_word_embeddings": True}) == make_shape()


def test_the_shape_of_a_random_model_agrees_with_download_model(tiny_model: Path) -> None:
    source = RandomModel(kind="random", hidden_size=64, layers=2, heads=4)
    shape, where = find_shape(source, tiny_model, Path("nowhere"))
    made = AutoModelForCausalLM.from_pretrained(find_model(tiny_model))
    assert where == "the configuration" and shape is not None
    assert shape.parameters == made.num_parameters()


def test_the_shape_is_searched_for_in_all_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    manifest, cache = tmp_path / "models" / "base" / "manifest.json", tmp_path / "cache"
    source = HubModel(kind="hub", repository="some/model", revision="main")
    shape, where = find_shape(source, manifest, cache)
    assert shape is None and where.startswith("nothing: the model is not downloaded yet")

    repository = tmp_path / "hf" / "hub" / "models--some--model"
    write_json(repository / "snapshots" / "abc" / "config.json", CONFIG)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert find_shape(source, manifest, cache) == (make_shape(), "config.json of the Hugging Face cache")
    write_json(find_model(manifest) / "config.json", CONFIG | {"num_hidden_layers": 5})
    shape, where = find_shape(source, manifest, cache)
    assert shape is not None and (shape.layers, where) == (5, "config.json of the run's base model")
