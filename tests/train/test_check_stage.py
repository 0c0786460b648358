"""Wrong arguments are refused with one line before training, and right ones are accepted."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from trl import DPOTrainer, GRPOTrainer, KTOTrainer

from scripts.common.config import Stage
from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.train.check_stage import CONFIGS, LOSSES, check
from tests.common.running import call_main, error_lines, run_script


def _stage(method: str = "sft", **section: Any) -> Stage:
    return Stage.model_validate({"method": method, "from": "base", "dataset": "rows"} | section)


@pytest.mark.parametrize("method", CONFIGS)
def test_right_arguments_pass(method: str) -> None:
    args = {"learning_rate": 1e-5, "num_train_epochs": 2}
    check("mine", _stage(method, args=args))


def test_groups_of_grpo_are_distributed_over_the_processes() -> None:
    args = {"per_device_train_batch_size": 2, "num_generations": 8}
    check("mine", _stage("grpo", args=args), processes=4)
    with pytest.raises(UserError, match=r"stages\.mine\.args: .*num_generations"):
        check("mine", _stage("grpo", args=args), processes=1)


def test_the_best_model_needs_validation_rows() -> None:
    stage = _stage(args={"load_best_model_at_end": True, "save_strategy": "epoch"})
    check("mine", stage, validated=True)
    with pytest.raises(UserError, match=r"stages\.mine\.args: "):
        check("mine", stage, validated=False)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("dpo", {"args": {"bta": 0.1}}, "stages.mine.args.bta: TRL's config has no such field; did you mean 'beta'?"),
    ("sft", {"args": {"seed": 1}}, "stages.mine.args.seed: the pipeline sets this itself; remove it"),
    ("sft", {"args": {"eval_strategy": "stesp"}}, "stages.mine.args: stesp is not a valid IntervalStrategy"),
    ("sft", {"args": {"deepspeed": {}}}, "stages.mine.args.deepspeed: the pipeline sets this itself; set the stage's"),
    ("dpo", {"args": {"report_to": ["tensorbord"]}}, "stages.mine.args.report_to: tensorbord is not supported"),
    (
        "sft",
        {"strategy": "fsdp2"},
        "stages.mine.strategy: fsdp2 needs several GPUs; set resources.train.gpus, or use ddp",
    ),
    ("sft", {"strategy": "zero2"}, "stages.mine.strategy: zero2 needs several GPUs"),
    (
        "sft",
        {"args": {"packing_strategy": "wrapped"}},
        "stages.mine.args.packing_strategy: with wrapped, packed examples attend to each other; use bfd",
    ),
    (
        "dpo",
        {"args": {"loss_type": ["sigmoid", "sigmod"]}},
        "stages.mine.args.loss_type: TRL's dpo has no loss 'sigmod'; did you mean 'sigmoid'?",
    ),
    ("sft", {"args": {"loss_type": "nl"}}, "stages.mine.args.loss_type: TRL's sft has no loss 'nl'"),
    ("kto", {"args": {"lr_scheduler_type": "cosin"}}, "stages.mine.args: cosin is not a valid SchedulerType"),
    (
        "grpo",
        {"rewards": {"functions": {"own": "no_file.py:f"}}},
        "stages.mine.rewards.functions.own: file no_file.py not found",
    ),
]


@pytest.mark.parametrize(("method", "section", "line"), REFUSED, ids=[line for *_, line in REFUSED])
def test_wrong_stages_are_refused(method: str, section: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        check("mine", _stage(method, **section))
    assert str(caught.value).startswith(line), str(caught.value)


TRAINERS = {"dpo": DPOTrainer, "kto": KTOTrainer, "grpo": GRPOTrainer}


@pytest.mark.parametrize("method", TRAINERS)
def test_the_losses_are_those_of_the_trainer(method: str) -> None:
    source = inspect.getsource(TRAINERS[method])
    alone = re.findall(r'\bloss_type == "(\w+)"', source)
    several = re.findall(r"\w+", " ".join(re.findall(r"\bloss_type in \[([^]]*)\]", source)))
    assert set(LOSSES[method]) == {*alone, *several}


def test_script_refuses_with_one_line(tmp_path: Path) -> None:
    stage = _stage(args={"x1": 1}).as_dict()
    run = run_script("train.check_stage", tmp_path, name="a", config=stage, output="a.json", log="x.log")
    (line,) = error_lines(run)
    assert line.startswith("error: stages.a.args.x1: TRL's config has no such field")
    assert not (tmp_path / "a.json").exists()


def test_script_writes_the_checked_section(tmp_path: Path) -> None:
    stage = _stage().as_dict()
    call_main("train.check_stage", tmp_path, name="a", config=stage, output="a.json")
    assert read_json(tmp_path / "a.json") == stage
