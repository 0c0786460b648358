"""Finding tasks by name, and refusing unknown names with the closest known one."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.evaluate.tasks import check_tasks, make_manager
from tests.common.running import OWN_TASKS, script_environment


def test_stock_and_own_tasks_and_groups_are_known() -> None:
    """Some of them are defined in files with other names."""
    known = [
        "gsm8k",
        "hellaswag",
        "arc_challenge",
        "mmlu",
        "mmlu_anatomy",
        "humaneval_instruct",
        "ifeval",
        "winogrande",
        "commonsense_qa",
    ]
    check_tasks({task: task for task in [*known, "chain_sum", "mmlu_dev"]}, OWN_TASKS)


def test_known_tasks_are_found_without_reading_every_file() -> None:
    """Every job of Snakemake does this. Reading all 14,000 task files takes many seconds."""
    started = time.process_time()
    check_tasks({"a": "gsm8k", "b": "chain_sum"}, OWN_TASKS)
    assert time.process_time() - started < 3


def test_each_unknown_task_is_reported_in_one_line() -> None:
    with pytest.raises(UserError) as caught:
        check_tasks({"maths": "gsm8kk", "sums": "chain_sums", "fine": "gsm8k"}, OWN_TASKS)
    assert str(caught.value).splitlines() == [
        "benchmarks.maths.task: lm-eval knows no task 'gsm8kk'; did you mean 'gsm8k'?",
        "benchmarks.sums.task: lm-eval knows no task 'chain_sums'; did you mean 'chain_sum'?",
    ]


def test_a_manager_has_only_the_folder_of_its_task() -> None:
    manager = make_manager("gsm8k", OWN_TASKS)
    assert "gsm8k" in manager.all_tasks
    assert len(manager.all_tasks) < 100
    assert set(make_manager("chain_sum", OWN_TASKS).all_tasks) == {path.stem for path in OWN_TASKS.glob("*.yaml")}


def test_a_manager_of_a_group_has_its_members() -> None:
    manager = make_manager("mmlu", OWN_TASKS)
    assert {"mmlu", "mmlu_anatomy", "mmlu_stem"} <= set(manager.all_tasks)


def test_a_manager_of_a_group_has_members_from_other_folders() -> None:
    manager = make_manager("multimedqa", OWN_TASKS)
    assert {"multimedqa", "pubmedqa", "medmcqa", "mmlu_anatomy"} <= set(manager.all_tasks)
    assert len(manager.all_tasks) < 1000, "not all 14,000"


@pytest.mark.slow
def test_refuses_a_manager_for_an_unknown_task() -> None:
    with pytest.raises(UserError, match="lm-eval knows no task 'no_such_task'"):
        make_manager("no_such_task", OWN_TASKS)


def test_checking_tasks_does_not_import_lm_eval(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from scripts.evaluate.tasks import check_tasks; "
        f"check_tasks({{'a': 'gsm8k'}}, Path({str(OWN_TASKS)!r})); print('lm_eval' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=script_environment(), capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "False\n"
