"""Tasks are found by name, and a wrong name is refused with the nearest right one."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.data.download_benchmark import write_sentence_tables
from scripts.evaluate.tasks import check_tasks, enter_mirror, make_manager
from tests.common.running import OWN_TASKS, script_environment


def test_stock_and_own_tasks_and_groups_are_known() -> None:
    """Among them tasks whose file has another name (`ai2_arc` stands for a tag, `mmlu` for a group)."""
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


def test_known_tasks_are_checked_without_reading_every_file() -> None:
    """This runs in each job of Snakemake; reading all 14,000 task files takes many seconds."""
    started = time.process_time()
    check_tasks({"a": "gsm8k", "b": "chain_sum"}, OWN_TASKS)
    assert time.process_time() - started < 3


def test_unknown_tasks_are_one_line_each() -> None:
    with pytest.raises(UserError) as caught:
        check_tasks({"maths": "gsm8kk", "sums": "chain_sums", "fine": "gsm8k"}, OWN_TASKS)
    assert str(caught.value).splitlines() == [
        "benchmarks.maths.task: lm-eval knows no task 'gsm8kk'; did you mean 'gsm8k'?",
        "benchmarks.sums.task: lm-eval knows no task 'chain_sums'; did you mean 'chain_sum'?",
    ]


def test_a_manager_knows_a_task_and_its_neighbours_only() -> None:
    manager = make_manager("gsm8k", OWN_TASKS)
    assert "gsm8k" in manager.all_tasks
    assert len(manager.all_tasks) < 100
    assert set(make_manager("chain_sum", OWN_TASKS).all_tasks) == {path.stem for path in OWN_TASKS.glob("*.yaml")}


def test_a_manager_for_a_group_knows_its_members() -> None:
    manager = make_manager("mmlu", OWN_TASKS)
    assert {"mmlu", "mmlu_anatomy", "mmlu_stem"} <= set(manager.all_tasks)


def test_a_manager_for_a_group_knows_members_that_stand_elsewhere() -> None:
    manager = make_manager("multimedqa", OWN_TASKS)
    assert {"multimedqa", "pubmedqa", "medmcqa", "mmlu_anatomy"} <= set(manager.all_tasks)
    assert len(manager.all_tasks) < 1000, "not all 14,000"


@pytest.mark.slow
def test_no_manager_for_an_unknown_task() -> None:
    with pytest.raises(UserError, match="lm-eval knows no task 'no_such_task'"):
        make_manager("no_such_task", OWN_TASKS)


def test_checking_does_not_import_lm_eval(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from scripts.evaluate.tasks import check_tasks; "
        f"check_tasks({{'a': 'gsm8k'}}, Path({str(OWN_TASKS)!r})); print('lm_eval' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=script_environment(), capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "False\n"


def test_sentence_tables_are_read_from_a_folder_that_others_see() -> None:
    """nltk refuses tables that others may write to; a folder of tests is always private, and would not show it."""
    import nltk

    with tempfile.TemporaryDirectory() as folder:
        mirror = Path(folder)
        mirror.chmod(0o755)
        before = list(nltk.data.path)
        write_sentence_tables(mirror / "nltk_data")
        nltk.data.path[:] = before
        assert not any(path.stat().st_mode & 0o022 for path in mirror.rglob("*"))
        with enter_mirror(mirror, unsafe_code=False):
            assert nltk.sent_tokenize("Dr. Smith came. He left.") == ["Dr. Smith came.", "He left."]
        nltk.data.path[:] = before
