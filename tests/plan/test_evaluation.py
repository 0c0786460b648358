"""What benchmarks take, before their questions are here."""

import copy
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from lm_eval.tasks import TaskManager

from scripts.common.config import Config
from scripts.common.files import read_json_lines, write_json
from scripts.common.load_config import load_config
from scripts.evaluate.tasks import make_manager
from scripts.plan.evaluation import TABLE, count_items, plan_benchmark
from tests.common.running import OWN_TASKS
from tests.plan.stages import qwen3_4b
from tests.workflow.running import read_recipe

KNOWN: dict[str, dict[str, Any]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))


def configure(task: str = "piqa", gpus: int = 1, gpu: str | None = "H100", **section: Any) -> Config:
    """The smoke recipe in bfloat16 with one benchmark, `mine`, on a GPU."""
    recipe = copy.deepcopy(read_recipe("smoke"))
    recipe["benchmarks"] = {"mine": {"task": task, "source": {"kind": "hub"}, "metric": "acc"} | section}
    recipe["model"]["dtype"] = "bfloat16"
    return load_config(recipe | {"resources": {"evaluate": {"gpus": gpus, "hours": 1}}, "plan": {"gpu": gpu}})


def plan(folder: Path, config: Config) -> dict[str, Any]:
    """The plan of that benchmark, for a Qwen3-4B."""
    return plan_benchmark(config, "mine", qwen3_4b(), folder / "work", folder / "results")


def read_task(task: str) -> dict[str, Any]:
    """The file of a task, with those that it includes; of a group, that of its first member."""
    manager: Any = make_manager(task, OWN_TASKS) if task != "mmlu" else TaskManager()
    entry = manager.task_index["mmlu_anatomy" if task == "mmlu" else task]
    config: dict[str, Any] = {}
    path: Path | None = Path(entry.yaml_path)
    while path:
        text = path.read_text(encoding="utf-8").replace("!function", "")
        read = yaml.safe_load(text)
        config = read | config
        path = path.parent / read["include"] if "include" in read else None
    return config


@pytest.mark.parametrize("task", KNOWN)
def test_what_is_known_of_a_task_is_what_its_file_says(task: str) -> None:
    known, told = KNOWN[task], read_task(task)
    assert known["shots"] == told.get("num_fewshot", 0)
    assert ("passes" in known) == (told["output_type"] == "multiple_choice")
    if "passes" not in known:
        assert known["answer"] == told["generation_kwargs"].get("max_gen_toks", 256)


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("gsm8k", "openai/gsm8k/main/test.parquet"),
        ("humaneval", "openai/openai_humaneval/openai_humaneval/test.parquet"),
        ("ifeval", "google/IFEval/default/train.parquet"),
    ],
)
def test_items_are_those_of_the_data(real_hub: Path, task: str, file: str) -> None:
    assert pq.read_metadata(real_hub / file).num_rows == KNOWN[task]["items"]


def test_our_own_questions_are_counted() -> None:
    assert KNOWN["traps"]["items"] == len(list(read_json_lines(OWN_TASKS / "traps.jsonl")))


def test_choices_are_read_as_often_as_they_need_a_pass(tmp_path: Path) -> None:
    """PIQA: 1,838 questions of two choices, 40 tokens each, at 15 % of 989.4 TFLOP/s behind a minute of loading."""
    told = plan(tmp_path, configure("piqa"))
    assert (told["rows"], told["rows_are"], told["read_tokens"]) == (1_838, "expected", 1_838 * 2 * 40)
    assert told["generated_tokens"] is None and not told["answers"]
    assert told["flops"] == pytest.approx(2 * qwen3_4b().parameters * 1_838 * 2 * 40, rel=0.01)
    seconds = 60 + told["flops"] / (0.15 * 989.4e12)
    assert told["job_hours"] == pytest.approx(seconds / 3600) and told["work_is"] == "expected"
    assert told["hours"] == told["gpu_hours"] == pytest.approx(3 * told["job_hours"]), "base, sft and dpo"
    assert told["verdict"] == {"fits_memory": True, "fits_time": True, "over_time": "end"}


def test_examples_are_read_with_each_question(tmp_path: Path) -> None:
    assert count_items(configure("gsm8k"), "mine", tmp_path).length == 65 + 5 * 165
    assert count_items(configure("gsm8k", shots=0), "mine", tmp_path).length == 65


def test_answers_are_bounded_by_their_longest(tmp_path: Path) -> None:
    told = plan(tmp_path, configure("ifeval", max_new_tokens=2048, batch_size=32))
    assert told["generated_tokens"] == 541 * 2048
    assert told["job_hours"] * 3600 == pytest.approx(60 + 541 * 2048 / 32 * 0.03, rel=0.01)
    assert told["work_is"] == "at most" and told["verdict"]["fits_time"] is True
    long = plan(tmp_path, configure("ifeval", max_new_tokens=8192, batch_size=1))
    assert long["verdict"]["fits_time"] is None, "only a bound is too long"
    assert plan(tmp_path, configure("ifeval"))["generated_tokens"] == 541 * 1280, "the task's own"


def test_processes_share_the_questions_and_each_has_a_gpu(tmp_path: Path) -> None:
    alone, four = (plan(tmp_path, configure("hellaswag", processes=processes)) for processes in (1, 4))
    loading = 60 / 3600
    assert four["job_hours"] - loading == pytest.approx((alone["job_hours"] - loading) / 4)
    assert four["gpu_hours"] == pytest.approx(3 * 4 * four["job_hours"])


def test_a_limit_is_of_each_task_of_a_group(tmp_path: Path) -> None:
    assert count_items(configure("mmlu", limit=10), "mine", tmp_path).number == 570
    assert count_items(configure("piqa", limit=10), "mine", tmp_path).number == 10


def test_downloaded_questions_go_before_published_numbers(tmp_path: Path) -> None:
    write_json(tmp_path / "work/benchmarks/mine/manifest.json", {"facts": {"questions": 7}})
    told = plan(tmp_path, configure("piqa"))
    assert (told["rows"], told["rows_are"]) == (7, "measured")


def test_memory_is_that_of_weights_a_batch_and_libraries(tmp_path: Path) -> None:
    memory = plan(tmp_path, configure("ifeval", max_new_tokens=945, batch_size=8))["memory"]
    # 36 layers, eight heads of 128 for keys and as many for values, two bytes each.
    assert memory["batch"] == 8 * (55 + 945) * 36 * 2 * 1024 * 2
    assert memory["weights"] == 2 * qwen3_4b().parameters and memory["framework"] == 2e9
    spread = plan(tmp_path, configure("ifeval", engine="vllm", processes=4))["memory"]
    assert spread["weights"] == memory["weights"] / 4
    logits = plan(tmp_path, configure("piqa", batch_size=8))["memory"]["batch"]
    assert logits == 8 * 40 * 151_936 * 2 * 2


def test_a_model_that_does_not_fit_is_told(tmp_path: Path) -> None:
    config = configure("piqa")
    small = config.model_copy(update={"plan": config.plan.model_copy(update={"gpu_memory_gb": 8})})
    assert plan(tmp_path, small)["verdict"]["fits_memory"] is False


@pytest.mark.parametrize(
    "config",
    [configure("piqa", gpus=0), configure("piqa", gpu=None), configure("xnli_en"), configure("piqa", gpu="Radeon")],
    ids=["CPU", "GPU not named", "task not known", "GPU not known"],
)
def test_what_nobody_knows_is_null(tmp_path: Path, config: Config) -> None:
    told = plan(tmp_path, config)
    assert told["job_hours"] is None and told["verdict"]["fits_time"] is None
    assert told["gpu_hours"] is None and told["work_is"] == "unknown"


def test_answers_alone_are_no_bound(tmp_path: Path) -> None:
    """Of a task whose prompts nobody knows, how long its answers may be is not all that a job does."""
    write_json(tmp_path / "work/benchmarks/mine/manifest.json", {"facts": {"questions": 7}})
    told = plan(tmp_path, configure("drop", max_new_tokens=64, filter="none"))
    assert told["generated_tokens"] == 7 * 64 and told["job_hours"] is None and told["work_is"] == "unknown"
