"""The shape of a model: what its parameters, its memory and its FLOPs are counted from, without loading it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.common.config import FileModel, HubModel, Lora, PackageModel, RandomModel, Stage
from scripts.common.files import hash_json, read_json
from scripts.common.flops import Cost
from scripts.common.manifest import find_model

SHAPES = Path(__file__).with_name("shapes.yaml")
"""Shapes of hub models that need not be here yet."""

FAMILIES = ("gemma", "llama", "mistral", "qwen2", "qwen3", "smollm3")
"""Kinds of models that are counted; a test holds the count of each against transformers."""


@dataclass(frozen=True)
class Shape:
    """A dense decoder with gated feed-forward layers, as Llama's and Qwen's families are.

    Args:
        hidden: width of the residual stream.
        layers: number of layers.
        heads: query heads.
        kv_heads: key-value heads.
        head_size: width of a head.
        intermediate: width of the feed-forward layers.
        vocabulary: rows of the embedding.
        tied: the embedding is the LM head as well.
        norms_heads: queries and keys are normed, head by head, as in Qwen3.
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
        """Width of all queries."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of all keys, and of all values."""
        return self.kv_heads * self.head_size

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Linear layers of a layer: width of what comes in and goes out, by name."""
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
        """Weights of all linear layers but the LM head: those that QLoRA holds in 4 bits."""
        return self.layers * sum(inner * outer for inner, outer in self.linears.values())

    @property
    def embedding(self) -> int:
        """Weights of the embedding."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All weights; a tied embedding counts once."""
        norms = self.layers * (2 * self.hidden + (2 * self.head_size if self.norms_heads else 0)) + self.hidden
        biases = self.layers * (self.queries + 2 * self.keys) if self.has_biases else 0
        return self.linear_parameters + norms + biases + self.embedding * (1 if self.tied else 2)

    def adapter_parameters(self, lora: Lora) -> int | None:
        """Weights of LoRA's adapters: `r` rows and `r` columns around each target, and DoRA's magnitudes.

        None where `target_modules` is a regular expression, or names a module that is no linear layer of ours.
        """
        targets = [*self.linears] if lora.target_modules == "all-linear" else lora.target_modules
        if isinstance(targets, str) or not {*targets} <= {*self.linears}:
            return None
        widths = [self.linears[target] for target in dict.fromkeys(targets)]
        magnitudes = sum(outer for _, outer in widths) if lora.use_dora else 0
        return self.layers * (lora.r * sum(inner + outer for inner, outer in widths) + magnitudes)

    def trained_parameters(self, stage: Stage) -> int | None:
        """Weights that a stage trains; None where that is not known."""
        return self.parameters if stage.tuning == "full" else self.adapter_parameters(stage.lora)

    def cost(self, adapters: int) -> Cost:
        """What a token costs, with so many parameters in adapters."""
        return Cost(
            multiplying=self.parameters - (0 if self.tied else self.embedding),
            adapters=adapters,
            attention=2 * self.queries * self.layers,
        )


def read_shape(config: Mapping[str, Any]) -> Shape | None:
    """The shape that a model's `config.json` tells; None for another kind of model, such as a mixture of experts."""
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
        manifest: manifest of the base model, which need not be there.
        cache: folder of downloads that runs share.
    """
    places = {
        "the run's base model": find_model(manifest),
        "a model that runs share": cache / "models" / hash_json(source.part())[:16],
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
    return None, "nothing: the model is not here yet; `snakemake download_model` brings it"


def find_snapshot(source: HubModel) -> Path:
    """Where the Hugging Face cache has this revision of a repository, if it has it."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    repository = hub / f"models--{source.repository.replace('/', '--')}"
    reference = repository / "refs" / source.revision
    revision = reference.read_text(encoding="utf-8").strip() if reference.is_file() else source.revision
    return repository / "snapshots" / revision


def _random_shape(source: RandomModel) -> Shape:
    """What `download_model` makes of the section: bytes and three tokens of ChatML are its vocabulary."""
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
