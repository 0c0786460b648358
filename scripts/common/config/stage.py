"""Section `stages`: which models are trained, on what, and how."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from scripts.common.config.dataset import RowType
from scripts.common.config.section import Arguments, Name, Section, check_function, check_pattern
from scripts.common.config.verification import ANSWER_PATTERN, VERIFY, Verify

USABLE_TIME = 0.95
"""Share of `time_limit` that the steps of a stage may use. The rest is for saving."""

Method = Literal["sft", "dpo", "orpo", "kto", "grpo"]

ROW_TYPE_BY_METHOD: dict[Method, RowType] = {
    "sft": "messages",
    "dpo": "preference",
    "orpo": "preference",
    "kto": "kto",
    "grpo": "prompt",
}
"""The kind of rows that each training method trains on."""


class Lora(Section):
    """Low-rank adapters. Used if `tuning` is `lora` or `qlora`."""

    r: int = Field(16, ge=1, description="Rank.")
    alpha: int = Field(32, ge=1, description="Scale: the update is multiplied by alpha / r.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout probability in the adapters.")
    target_modules: str | list[str] = Field(
        "all-linear", description="Modules that get an adapter, as in PEFT. Default: all linear layers but the head."
    )
    use_rslora: bool = Field(
        False, description="Rank-stabilised LoRA: the update is multiplied by alpha / sqrt(r) instead."
    )
    use_dora: bool = Field(False, description="DoRA: train magnitude and direction of each weight separately.")


class Rewards(Section):
    """Rewards of GRPO, between 0 and 1 each (your own functions may return any number).

    `args.reward_weights` weights them, in the order of the keys below.
    """

    answer: bool = Field(True, description="Reward 1 if the answer is right, that is, equal to the row's `answer`.")
    verify: Verify = Field("pattern", description=VERIFY)
    answer_pattern: str = Field(r"-?\d+", description=ANSWER_PATTERN)
    format: str | None = Field(
        None, description="Regular expression. Reward 1 if it matches the complete answer. Null: no such reward."
    )
    max_characters: int | None = Field(
        None,
        ge=1,
        description="Reward 1 up to this length, in characters, then falling linearly to 0 at twice the length. Null: "
        "no such reward.",
    )
    functions: dict[Name, str] = Field(
        {},
        description="Your own rewards as Python functions: a name, then `file.py:function`. The function receives the "
        "text of the answer and a row with `prompt` and `answer`, and returns a number.",
    )

    @model_validator(mode="after")
    def can_be_computed(self) -> Self:
        check_pattern("answer_pattern", self.answer_pattern)
        check_pattern("format", self.format or "")
        for name, function in self.functions.items():
            check_function(f"functions.{name}", function)
        if not (self.answer or self.format or self.max_characters or self.functions):
            raise ValueError("nothing is rewarded; set at least one of answer, format, max_characters, functions")
        return self


class Stage(Section):
    """One training of one model on one data set. Stages build on each other through `from`."""

    method: Method = Field(description="Training method.")
    parent: Name = Field(alias="from", description="Model to start from: `base` or another stage.")
    dataset: Name = Field(description="Data set to train on.")
    tuning: Literal["full", "lora", "qlora"] = Field(
        "full",
        description="What to train. `full`: all weights. `lora`: low-rank adapters. `qlora`: adapters on a model that "
        "is quantised to 4 bits (nf4, double quantisation). Adapters are merged into the model at the end.",
    )
    lora: Lora = Field(Lora(), description="Adapters, for `tuning: lora` and `tuning: qlora`.")
    strategy: Literal["ddp", "zero2", "zero3", "fsdp2"] = Field(
        "ddp",
        description="How several GPUs share the training. `ddp`: each has a copy of the model. `zero2`: gradients and "
        "optimiser states are sharded (DeepSpeed). `zero3`: the weights too (DeepSpeed). `fsdp2`: the same as `zero3`, "
        "with PyTorch.",
    )
    attention: Literal[
        "auto", "flash_attention_3", "flash_attention_2", "varlen_attention", "flex_attention", "sdpa", "eager"
    ] = Field(
        "auto",
        description="Implementation of attention. `auto`: with bfloat16 on a GPU, FlashAttention 3 or 2 if it is "
        "installed; otherwise, for packed examples, `varlen_attention` (PyTorch's variable-length attention, on a GPU "
        "only with bfloat16); otherwise `sdpa`.",
    )
    args: Arguments = Field(
        {},
        description="Fields of TRL's config of the method (`SFTConfig`, `DPOConfig`, ...), such as `learning_rate`. "
        "The defaults are TRL's, except `logging_steps: 1`, `save_steps: 200`, `save_total_limit: 1`, "
        "`gradient_checkpointing: false`, `report_to: [tensorboard]`, `bf16` by `model.dtype`, and `eval_strategy: "
        "epoch` if there are validation rows.",
    )
    seed: int | None = Field(
        None,
        ge=0,
        description="Seed of this training. Null: `run.seed`. Stages that differ only in their seeds count as "
        "repetitions of one training, and are compared over items and seeds.",
    )
    time_limit: float | None = Field(
        None,
        gt=0,
        description="Training time, in hours, for all attempts of the stage together. Null: no limit except that of "
        "the jobs.",
    )
    over_time: Literal["fit", "refuse"] = Field(
        "fit",
        description="What to do if the steps do not fit `time_limit`. `fit`: train fewer steps, and let the learning "
        "rate complete its schedule. `refuse`: stop with an error after the first steps.",
    )
    rewards: Rewards = Field(Rewards(), description="Rewards, for `method: grpo`.")

    @model_validator(mode="after")
    def can_be_trained(self) -> Self:
        if self.tuning == "qlora" and self.strategy in ("zero3", "fsdp2"):
            raise ValueError(f"strategy {self.strategy} cannot shard 4-bit weights; use ddp or zero2 with qlora")
        if self.method != "sft" and self.args.get("padding_free"):
            raise ValueError("args.padding_free works only with sft, since TRL pads the other methods; remove it")
        if self.attention == "varlen_attention" and not self.is_packed:
            raise ValueError("varlen_attention needs packed examples; set args.packing (sft only), or use auto")
        return self

    @property
    def is_packed(self) -> bool:
        """Whether several examples are concatenated into one row."""
        return self.method == "sft" and bool(self.args.get("packing") or self.args.get("padding_free"))

    def identity(self) -> dict[str, Any]:
        """The keys that the trained model depends on: without its time limits, and without settings that it ignores.

        The seed is left out as well; scripts receive it separately.
        """
        unused = {"time_limit", "over_time", "seed"}
        unused |= {"lora"} if self.tuning == "full" else set()
        unused |= set() if self.method == "grpo" else {"rewards"}
        return {key: value for key, value in self.as_dict().items() if key not in unused}

    @property
    def function_files(self) -> list[str]:
        """The files of the user's own rewards."""
        return [function.rpartition(":")[0] for function in self.rewards.functions.values()]
