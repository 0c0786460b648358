"""What training methods share: arguments refused in time, masks that are proven, checkpoints that are whole."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer, TrainerState
from trl import DPOConfig, SFTConfig

from scripts.common.config import Stage
from scripts.common.errors import UserError
from scripts.common.manifest import find_model
from scripts.train.recipe import (
    DEFAULTS,
    OURS,
    Job,
    is_finished,
    make_adapters,
    make_arguments,
    newest_checkpoint,
    prove_mask,
)
from tests.train.stages import chat


def _job(folder: Path, **stage: Any) -> Job:
    fields = {"method": "sft", "from": "base", "dataset": "rows"} | stage
    return Job(
        name="mine",
        stage=Stage.model_validate(fields),
        seed=11,
        dtype="float32",
        parent=folder / "base.json",
        train=folder / "train.parquet",
        validation=folder / "validation.parquet",
        log=folder / "steps.jsonl",
        manifest=folder / "mine" / "manifest.json",
        checkpoints=folder / "mine" / "checkpoints" / "x",
        time_limit=0.0,
        over_time="fit",
        device="cpu",
    )


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(find_model(tiny_model))


def test_arguments_go_over_our_defaults(tmp_path: Path, tokenizer: Any) -> None:
    job = _job(tmp_path, args={"learning_rate": "1e-5", "save_steps": 7, "max_length": 99})
    args = make_arguments(SFTConfig, job, tokenizer, has_validation=False)
    assert (args.learning_rate, args.save_steps, args.max_length) == (1e-5, 7, 99)
    assert (args.logging_steps, args.save_total_limit) == (DEFAULTS["logging_steps"], DEFAULTS["save_total_limit"])
    assert (args.seed, args.data_seed, args.output_dir) == (11, 11, str(job.checkpoints))
    assert args.eos_token == "<|im_end|>" and args.report_to == [] and args.use_cpu
    assert args.eval_strategy == "no"
    assert make_arguments(SFTConfig, job, tokenizer, has_validation=True).eval_strategy == "epoch"


def test_arguments_of_dpo(tmp_path: Path, tokenizer: Any) -> None:
    args = make_arguments(DPOConfig, _job(tmp_path, method="dpo", args={"beta": 0.3}), tokenizer, False)
    assert args.beta == 0.3


@pytest.mark.parametrize("argument", OURS)
def test_what_is_ours_is_refused(tmp_path: Path, tokenizer: Any, argument: str) -> None:
    with pytest.raises(UserError) as caught:
        make_arguments(SFTConfig, _job(tmp_path, args={argument: 1}), tokenizer, False)
    assert str(caught.value) == f"stages.mine.args.{argument}: the pipeline sets this itself; remove it"


@pytest.mark.parametrize(
    ("config", "argument", "near"),
    [(SFTConfig, "learning_rat", "learning_rate"), (SFTConfig, "max_len", "max_length"), (DPOConfig, "betta", "beta")],
)
def test_an_unknown_argument_names_the_nearest(
    tmp_path: Path, tokenizer: Any, config: Any, argument: str, near: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_arguments(config, _job(tmp_path, args={argument: 1}), tokenizer, False)
    assert str(caught.value) == f"stages.mine.args.{argument}: TRL's config has no such field; did you mean '{near}'?"


@pytest.mark.parametrize(
    "args",
    [{"lr_scheduler_type": "cosin"}, {"save_strategy": "sometimes"}, {"optim": "adamm"}],
    ids=str,
)
def test_a_bad_value_is_one_line(tmp_path: Path, tokenizer: Any, args: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        make_arguments(SFTConfig, _job(tmp_path, args=args), tokenizer, False)
    assert str(caught.value).startswith("stages.mine.args") and "\n" not in str(caught.value)


def test_adapters_are_those_of_the_stage(tmp_path: Path) -> None:
    assert make_adapters(_job(tmp_path)) is None
    lora = make_adapters(_job(tmp_path, tuning="lora", lora={"r": 3, "alpha": 5, "target_modules": ["q_proj"]}))
    assert lora is not None
    assert (lora.r, lora.lora_alpha, lora.target_modules) == (3, 5, {"q_proj"})


def test_the_share_of_trained_tokens(tmp_path: Path, tokenizer: Any) -> None:
    rows = Dataset.from_list([{"messages": chat(1)["messages"]}, {"messages": chat(22)["messages"]}])
    texts = [
        tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=True)["input_ids"] for row in rows
    ]
    trained = 2 * (len("yes yes yes") + 1)  # a token a byte, and the end of the turn
    proof = prove_mask(rows, tokenizer, _job(tmp_path), max_length=None)
    assert proof == {"trained_token_share": round(trained / sum(map(len, texts)), 4), "cut_rows": 0}


def test_rows_that_are_cut_are_counted(tmp_path: Path, tokenizer: Any) -> None:
    """A row whose answer is cut still teaches something; one whose answer is cut away teaches nothing."""
    rows = Dataset.from_list([{"messages": chat(1)["messages"]}, {"messages": chat(22)["messages"]}])
    encoded = tokenizer.apply_chat_template(rows[1]["messages"], tokenize=True, return_dict=True)["input_ids"]
    # The line feed behind the end of the turn is no loss.
    assert prove_mask(rows, tokenizer, _job(tmp_path), max_length=len(encoded) - 2)["cut_rows"] == 1
    with pytest.raises(UserError, match=r"row 0 of the training rows, cut at max_length 8: no token would be trained"):
        prove_mask(rows, tokenizer, _job(tmp_path), max_length=8)


def test_a_row_that_trains_nothing_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    rows = Dataset.from_list([{"messages": chat(1)["messages"]}, {"messages": chat(2)["messages"][:1]}])
    with pytest.raises(UserError, match=r"^stages.mine: row 1 of the training rows: no token would be trained; mend"):
        prove_mask(rows, tokenizer, _job(tmp_path), max_length=None)


def test_a_template_that_does_not_train_the_end_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(find_model(tiny_model))
    inside = "{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}"
    outside = "{{- message['content'] -}}{%- endgeneration -%}{{- '<|im_end|>' -}}"
    assert inside in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(inside, outside)
    with pytest.raises(UserError, match="row 0 of the training rows: the end of the turn would not be trained"):
        prove_mask(Dataset.from_list([{"messages": chat(1)["messages"]}]), tokenizer, _job(tmp_path), None)


def _checkpoint(folder: Path, step: int, text: str | None = None, max_steps: int = 30) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    TrainerState(global_step=step, max_steps=max_steps).save_to_json(str(path / "trainer_state.json"))
    if text is not None:
        (path / "trainer_state.json").write_text(text)
    return path


def test_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None
    _checkpoint(tmp_path, 9)
    whole = _checkpoint(tmp_path, 10)  # by number, not by name
    _checkpoint(tmp_path, 20, '{"global_step": 20, "max_st')
    _checkpoint(tmp_path, 25, "")
    (tmp_path / "checkpoint-30").mkdir()
    assert newest_checkpoint(tmp_path) == whole


def test_a_folder_with_torn_checkpoints_only_starts_anew(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 20, "{")
    assert newest_checkpoint(tmp_path) is None


def test_the_last_step_is_the_end(tmp_path: Path) -> None:
    assert not is_finished(_checkpoint(tmp_path, 29))
    assert is_finished(_checkpoint(tmp_path, 30))
