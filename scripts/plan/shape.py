"""The shape of a model, from which parameters, memory and FLOPs are computed without loading it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.common.config import FileModel, HubModel, Lora, PackageModel, RandomModel, Stage
from scripts.common.files import read_json
from scripts.common.flops import Cost
from scripts.common.manifest import find_model
from scripts.common.paths import shared_model

SHAPES = Path(__file__).with_name("shapes.yaml")
"""Shapes of hub models that need not be downloaded."""

FAMILIES = ("gemma", "llama", "mistral", "qwen2", "qwen3", "smollm3")
"""Supported model types. A test compares the parameters of each with transformers."""


@dataclass(frozen=True)
class Shape:
    """A dense decoder with gated feed-forward layers, such as Llama or Qwen.

    Args:
        hidden: width of the residual stream.
        layers: number of layers.
        heads: query heads.
        kv_heads: key-value heads.
        head_size: width of a head.
        intermediate: width of the feed-forward layers.
        vocabulary: rows of the embedding.
        tied: the embedding is also the LM head.
        norms_heads: queries and keys are normalised per head, as in Qwen3.
        has_biases: queries, keys and values have biases, as in Qwen2.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool
    norms_heads: bool
    has_biases: bool

    @property
    def queries(self) -> int:
        """Total width of the queries."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Total width of the keys, and of the values."""
        return self.kv_heads * self.head_size

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Input and output width of the linear layers in a decoder layer, by name."""
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def linear_parameters(self) -> int:
        """Weights of all linear layers except the LM head, which QLoRA keeps in 4 bits."""
        return self.layers * sum(inner * outer for inner, outer in self.linears.values())

    @property
    def embedding(self) -> int:
        """Weights of the embedding."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All weights. A tied embedding counts once."""
        norms = self.layers * (2 * self.hidden + (2 * self.head_size if self.norms_heads else 0)) + self.hidden
        biases = self.layers * (self.queries + 2 * self.keys) if self.has_biases else 0
        return self.linear_parameters + norms + biases + self.embedding * (1 if self.tied else 2)

    def adapter_parameters(self, lora: Lora) -> int | None:
        """Weights of LoRA adapters: two factors of rank `r` for each target, and DoRA's magnitudes.

        None if `target_modules` is a regular expression, or has a module that is not one of `linears`.
        """
        targets = [*self.linears] if lora.target_modules == "all-linear" else lora.target_modules
        if isinstance(targets, str) or not {*targets} <= {*self.linears}:
            return None
        widths = [self.linears[target] for target in dict.fromkeys(targets)]
        magnitudes = sum(outer for _, outer in widths) if lora.use_dora else 0
        return self.layers * (lora.r * sum(inner + outer for inner, outer in widths) + magnitudes)

    def trained_parameters(self, stage: Stage) -> int | None:
        """Weights that a stage trains; None if unknown."""
        return self.parameters if stage.tuning == "full" else self.adapter_parameters(stage.lora)

    def cost(self, adapters: int) -> Cost:
        """The cost of a token, with this number of adapter parameters."""
        return Cost(
            multiplying=self.parameters - (0 if self.tied else self.embedding),
            adapters=adapters,
            attention=2 * self.queries * self.layers,
        )


def read_shape(config: Mapping[str, Any]) -> Shape | None:
    """The shape from a model's `config.json`; None for unsupported models, such as mixtures of experts."""
    text: Mapping[str, Any] = config.get("text_config", config)
    if text.get("model_type") not in FAMILIES or text.get("attention_bias") or text.get("mlp_bias"):
        return None
    try:
        heads, kind = text["num_attention_heads"], text["model_type"]
        return Shape(
            hidden=text["hidden_size"],
            layers=text["num_hidden_layers"],
            heads=heads,
            kv_heads=text["num_key_value_heads"],
            head_size=text.get("head_dim") or text["hidden_size"] // heads,
            intermediate=text["intermediate_size"],
            vocabulary=text["vocab_size"],
            tied=text.get("tie_word_embeddings", config.get("tie_word_embeddings", False)),
            norms_heads=kind == "qwen3",
            has_biases=kind == "qwen2",
        )
    except KeyError:
        return None


def find_shape(
    source: HubModel | FileModel | PackageModel | RandomModel, manifest: Path, cache: Path
) -> tuple[Shape | None, str]:
    """The shape of the run's base model, and where it was found.

    Args:
        source: section `model.source`.
        manifest: manifest of the base model, which need not exist.
        cache: cache folder that runs share.
    """
    places = {
        "the run's base model": find_model(manifest),
        "the shared cache": shared_model(cache, source),
    }
    match source:
        case RandomModel():
            return _random_shape(source), "the configuration"
        case FileModel():
            places[f"{source.path}"] = Path(source.path)
        case HubModel():
            places["the Hugging Face cache"] = find_snapshot(source)
        case PackageModel():
            pass
    for where, folder in places.items():
        if (folder / "config.json").is_file():
            return read_shape(read_json(folder / "config.json")), f"config.json of {where}"
    known = yaml.safe_load(SHAPES.read_text(encoding="utf-8"))
    if isinstance(source, HubModel) and source.repository in known:
        return read_shape(known[source.repository]), f"scripts/plan/{SHAPES.name}"
    return None, "nothing: the model is not downloaded yet; run `snakemake download_model`"


def find_snapshot(source: HubModel) -> Path:
    """The folder of this revision in the Hugging Face cache, which need not exist."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    repository = hub / f"models--{source.repository.replace('/', '--')}"
    reference = repository / "refs" / source.revision
    revision = reference.read_text(encoding="utf-8").strip() if reference.is_file() else source.revision
    return repository / "snapshots" / revision


def _random_shape(source: RandomModel) -> Shape:
    """The shape of the model that `download_model` creates. Its vocabulary is 256 bytes and three tokens of ChatML."""
    return Shape(
        hidden=source.hidden_size,
        layers=source.layers,
        heads=source.heads,
        kv_heads=max(1, source.heads // 2),
        head_size=source.hidden_size // source.heads,
        intermediate=3 * source.hidden_size,
        vocabulary=256 + 3,
        tied=True,
        norms_heads=True,
        has_biases=False,
    )
