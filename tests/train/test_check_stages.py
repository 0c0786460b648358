"""Arguments of all stages are refused together, each with one line, before anything is trained."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.common.config import Stage
from scripts.common.files import read_json
from scripts.train.check_stages import CONFIGS, find_problem
from tests.common.running import error_lines, run_script


def _stage(method: str = "sft", **section: Any) -> Stage:
    return Stage.model_validate({"method": method, "from": "base", "dataset": "rows"} | section)


@pytest.mark.parametrize("method", CONFIGS)
def test_good_arguments_pass(method: str) -> None:
    args = {"learning_rate": 1e-5, "num_train_epochs": 2, "deepspeed": {"zero_optimization": {"stage": 2}}}
    assert find_problem("mine", _stage(method, args=args)) is None


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("dpo", {"args": {"bta": 0.1}}, "stages.mine.args.bta: TRL's config has no such field; did you mean 'beta'?"),
    ("sft", {"args": {"seed": 1}}, "stages.mine.args.seed: the pipeline sets this itself; remove it"),
    ("sft", {"args": {"eval_strategy": "stesp"}}, "stages.mine.args: stesp is not a valid IntervalStrategy"),
    ("kto", {"args": {"lr_scheduler_type": "cosin"}}, "stages.mine.args: cosin is not a valid SchedulerType"),
    (
        "grpo",
        {"rewards": {"functions": {"own": "no_file.py:f"}}},
        "stages.mine.rewards.functions.own: there is no file no_file.py",
    ),
]


@pytest.mark.parametrize(("method", "section", "line"), REFUSED, ids=[line for *_, line in REFUSED])
def test_refuses(method: str, section: dict[str, Any], line: str) -> None:
    problem = find_problem("mine", _stage(method, **section))
    assert problem is not None and problem.startswith(line), problem


def test_script_tells_all_problems_at_once(tmp_path: Path) -> None:
    stages = {
        name: _stage(args=args).part() for name, args in (("a", {"x1": 1}), ("b", {}), ("c", {"output_dir": "x"}))
    }
    run = run_script("train.check_stages", tmp_path, config=stages, output="stages.json", log="x.log")
    assert [line.split(": ")[1] for line in error_lines(run)] == ["stages.a.args.x1", "stages.c.args.output_dir"]
    assert not (tmp_path / "stages.json").exists()


def test_script_writes_what_it_checked(tmp_path: Path) -> None:
    stages = {"a": _stage().part()}
    run = run_script("train.check_stages", tmp_path, config=stages, output="stages.json", log="x.log")
    assert run.returncode == 0, run.stderr
    assert read_json(tmp_path / "stages.json") == json.loads(json.dumps(stages))
