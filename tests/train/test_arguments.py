"""TRL's config of a stage: arguments override our defaults, and wrong ones are refused."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.integrations.deepspeed import is_deepspeed_available
from trl import DPOConfig, GRPOConfig, SFTConfig

from scripts.common.errors import UserError
from scripts.common.manifest import find_model
from scripts.train.arguments import DEFAULTS, OURS, make_arguments
from tests.train.stages import make_job


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(find_model(tiny_model))


def test_arguments_override_our_defaults(tmp_path: Path, tokenizer: Any) -> None:
    job = make_job(tmp_path, args={"learning_rate": "1e-5", "save_steps": 7, "max_length": 99})
    args = make_arguments(SFTConfig, job, tokenizer, has_validation=False)
    assert (args.learning_rate, args.save_steps, args.max_length) == (1e-5, 7, 99)
    assert (args.logging_steps, args.save_total_limit) == (DEFAULTS["logging_steps"], DEFAULTS["save_total_limit"])
    assert (args.seed, args.data_seed, args.output_dir) == (11, 11, str(job.checkpoints))
    assert args.eos_token == "<|im_end|>" and args.report_to == ["tensorboard"] and args.use_cpu
    assert args.eval_strategy == "no"
    assert make_arguments(SFTConfig, job, tokenizer, has_validation=True).eval_strategy == "epoch"


@pytest.mark.parametrize(
    ("args", "length"),
    [
        ({}, 1_024),
        ({"packing": True}, 1_024),
        ({"packing": True, "padding_free": True}, 1_024),
        ({"padding_free": True}, None),
        ({"padding_free": True, "max_length": 99}, 99),
    ],
    ids=str,
)
def test_padding_free_rows_are_cut_only_if_max_length_is_set(
    tmp_path: Path, tokenizer: Any, args: dict[str, Any], length: int | None
) -> None:
    arguments = make_arguments(SFTConfig, make_job(tmp_path, args=args), tokenizer, False)
    assert arguments.max_length == length


def test_sft_trains_on_assistant_turns_and_hides_no_loss(tmp_path: Path, tokenizer: Any) -> None:
    sft = make_arguments(SFTConfig, make_job(tmp_path), tokenizer, False)
    assert sft.assistant_only_loss and not sft.logging_nan_inf_filter and sft.disable_tqdm


def test_a_gpu_is_used_if_there_is_one(tmp_path: Path, tokenizer: Any) -> None:
    job = make_job(tmp_path)
    job.__dict__["device"] = "cuda"
    assert not make_arguments(SFTConfig, job, tokenizer, False).use_cpu


def test_wrapped_packing_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    job = make_job(tmp_path, args={"packing": True, "packing_strategy": "wrapped"})
    with pytest.raises(
        UserError, match=r"^stages\.mine\.args\.packing_strategy: with wrapped, packed examples attend to each other"
    ):
        make_arguments(SFTConfig, job, tokenizer, False)


@pytest.mark.parametrize(
    ("dtype", "args", "bf16"),
    [
        ("float32", {}, False),
        ("bfloat16", {}, True),
        ("float32", {"bf16": True}, True),
        ("bfloat16", {"bf16": False}, False),
    ],
)
def test_products_have_the_precision_of_the_run_unless_bf16_is_set(
    tmp_path: Path, tokenizer: Any, dtype: str, args: dict[str, Any], bf16: bool
) -> None:
    job = make_job(tmp_path, args=args)
    job.__dict__["dtype"] = dtype
    assert make_arguments(SFTConfig, job, tokenizer, False).bf16 is bf16


def test_arguments_of_dpo(tmp_path: Path, tokenizer: Any) -> None:
    args = make_arguments(DPOConfig, make_job(tmp_path, method="dpo", args={"beta": 0.3}), tokenizer, False)
    assert args.beta == 0.3


@pytest.mark.parametrize("argument", OURS)
def test_arguments_that_the_pipeline_sets_are_refused(tmp_path: Path, tokenizer: Any, argument: str) -> None:
    with pytest.raises(UserError) as caught:
        make_arguments(SFTConfig, make_job(tmp_path, args={argument: 1}), tokenizer, False)
    remedy = "set the stage's strategy" if argument in ("deepspeed", "fsdp", "fsdp_config") else "remove it"
    assert str(caught.value) == f"stages.mine.args.{argument}: the pipeline sets this itself; {remedy}"


@pytest.mark.parametrize(
    ("config", "argument", "near"),
    [(SFTConfig, "learning_rat", "learning_rate"), (SFTConfig, "max_len", "max_length"), (DPOConfig, "betta", "beta")],
)
def test_an_unknown_argument_suggests_the_nearest(
    tmp_path: Path, tokenizer: Any, config: Any, argument: str, near: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_arguments(config, make_job(tmp_path, args={argument: 1}), tokenizer, False)
    assert str(caught.value) == f"stages.mine.args.{argument}: TRL's config has no such field; did you mean '{near}'?"


@pytest.mark.parametrize(
    "args",
    [{"lr_scheduler_type": "cosin"}, {"save_strategy": "sometimes"}, {"optim": "adamm"}],
    ids=str,
)
def test_a_bad_value_gives_one_line(tmp_path: Path, tokenizer: Any, args: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        make_arguments(SFTConfig, make_job(tmp_path, args=args), tokenizer, False)
    assert str(caught.value).startswith("stages.mine.args") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("save_steps", "saved"), [(1, 4), (5, 4), (6, 8), (7, 8), (40, 40)])
def test_grpo_saves_when_new_answers_are_sampled(tmp_path: Path, tokenizer: Any, save_steps: int, saved: int) -> None:
    args = {"num_generations": 2, "num_iterations": 2, "steps_per_generation": 4, "gradient_accumulation_steps": 2}
    job = make_job(tmp_path, method="grpo", args=args | {"save_steps": save_steps})
    assert make_arguments(GRPOConfig, job, tokenizer, False).save_steps == saved


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_zero_strategies_need_deepspeed(tmp_path: Path, tokenizer: Any, strategy: str) -> None:
    job = make_job(tmp_path, strategy=strategy)
    if is_deepspeed_available():
        args = make_arguments(SFTConfig, job, tokenizer, False)
        assert args.deepspeed["zero_optimization"]["stage"] == int(strategy[-1])
    else:
        with pytest.raises(UserError, match=r"(?i)deepspeed"):
            make_arguments(SFTConfig, job, tokenizer, False)
