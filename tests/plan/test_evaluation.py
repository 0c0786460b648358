"""Estimates of benchmarks, before and after their questions are downloaded."""

import copy
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from scripts.common.config import Config
from scripts.common.config.loader import load_config
from scripts.common.files import read_json_lines, write_json
from scripts.common.paths import OWN_TASKS, RunPaths
from scripts.evaluate.tasks import make_manager
from scripts.plan.evaluation import TABLE, count_items, plan_benchmark
from tests.plan.stages import qwen3_4b
from tests.workflow.running import read_recipe

KNOWN: dict[str, dict[str, Any]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))


def configure(task: str = "piqa", gpus: int = 1, gpu: str | None = "H100", **section: Any) -> Config:
    """The smoke recipe in bfloat16 with a single benchmark, `mine`, on a GPU."""
    recipe = copy.deepcopy(read_recipe("smoke"))
    recipe["expectations"] = {}
    recipe["benchmarks"] = {"mine": {"task": task, "source": {"kind": "hub"}, "metric": "acc"} | section}
    recipe["model"]["dtype"] = "bfloat16"
    return load_config(recipe | {"resources": {"evaluate": {"gpus": gpus, "hours": 1}}, "plan": {"gpu": gpu}})


def plan(folder: Path, config: Config) -> dict[str, Any]:
    """The plan of that benchmark for Qwen3-4B."""
    return dict(plan_benchmark(config, "mine", qwen3_4b(), RunPaths("smoke", folder)))


def read_task(task: str) -> dict[str, Any]:
    """The task file with its includes; for a group, that of one member."""
    name = "mmlu_anatomy" if task == "mmlu" else task
    entry: Any = make_manager(name, OWN_TASKS).task_index[name]
    config: dict[str, Any] = {}
    path: Path | None = Path(entry.yaml_path)
    while path:
        text = path.read_text(encoding="utf-8").replace("!function", "")
        read = yaml.safe_load(text)
        config = read | config
        path = path.parent / read["include"] if "include" in read else None
    return config


@pytest.mark.parametrize("task", KNOWN)
def test_the_table_agrees_with_the_task_files(task: str) -> None:
    known, documented = KNOWN[task], read_task(task)
    assert known["shots"] == documented.get("num_fewshot", 0)
    assert ("passes" in known) == (documented["output_type"] == "multiple_choice")
    if "passes" not in known:
        assert known["answer"] == documented["generation_kwargs"].get("max_gen_toks", 256)


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("gsm8k", "openai/gsm8k/main/test.parquet"),
        ("humaneval", "openai/openai_humaneval/openai_humaneval/test.parquet"),
        ("ifeval", "google/IFEval/default/train.parquet"),
    ],
)
def test_items_agree_with_the_data(real_hub: Path, task: str, file: str) -> None:
    assert pq.read_metadata(real_hub / file).num_rows == KNOWN[task]["items"]


def test_items_of_our_own_task_agree_with_its_file() -> None:
    assert KNOWN["traps"]["items"] == len(list(read_json_lines(OWN_TASKS / "traps.jsonl")))


def test_multiple_choice_tasks_have_one_pass_per_choice(tmp_path: Path) -> None:
    """PIQA: 1,838 questions with two choices of 40 tokens, at 15 % of 989.4 TFLOP/s after a minute of loading."""
    planned = plan(tmp_path, configure("piqa"))
    assert (planned["rows"], planned["rows_are"], planned["read_tokens"]) == (1_838, "expected", 1_838 * 2 * 40)
    assert planned["generated_tokens"] is None and not planned["answers"]
    assert planned["flops"] == pytest.approx(2 * qwen3_4b().parameters * 1_838 * 2 * 40, rel=0.01)
    seconds = 60 + planned["flops"] / (0.15 * 989.4e12)
    assert planned["job_hours"] == pytest.approx(seconds / 3600) and planned["work_is"] == "expected"
    assert planned["hours"] == planned["gpu_hours"] == pytest.approx(3 * planned["job_hours"]), "base, sft and dpo"
    assert planned["verdict"] == {"fits_memory": True, "fits_time": True, "over_time": "end"}


def test_prompts_include_few_shot_examples(tmp_path: Path) -> None:
    assert count_items(configure("gsm8k"), "mine", RunPaths("smoke", tmp_path)).length == 65 + 5 * 165
    assert count_items(configure("gsm8k", shots=0), "mine", RunPaths("smoke", tmp_path)).length == 65


def test_answers_are_bounded_by_their_greatest_length(tmp_path: Path) -> None:
    planned = plan(tmp_path, configure("ifeval", max_new_tokens=2048, batch_size=32))
    assert planned["generated_tokens"] == 541 * 2048
    assert planned["job_hours"] * 3600 == pytest.approx(60 + 541 * 2048 / 32 * 0.03, rel=0.01)
    assert planned["work_is"] == "at most" and planned["verdict"]["fits_time"] is True
    long = plan(tmp_path, configure("ifeval", max_new_tokens=8192, batch_size=1))
    assert long["verdict"]["fits_time"] is None, "only an upper bound is too long"
    assert plan(tmp_path, configure("ifeval"))["generated_tokens"] == 541 * 1280, "the task's own limit"


def test_flops_include_prompts_and_answers(tmp_path: Path) -> None:
    """2 FLOPs per weight and token, and for each pair of tokens twice the width of the queries in 36 layers."""
    attention = 2 * 4_096 * 36
    asked = plan(tmp_path, configure("piqa"))["flops"]
    assert asked == 2 * qwen3_4b().parameters * 1_838 * 2 * 40 + attention * 1_838 * 2 * 40**2
    written = plan(tmp_path, configure("ifeval", max_new_tokens=945))["flops"]
    assert written == 2 * qwen3_4b().parameters * 541 * 1_000 + attention * 541 * 1_000**2


def test_a_batch_of_answers_grows_by_one_token_at_a_time(tmp_path: Path) -> None:
    """Prompts reach 15 % of the peak, `auto` assumes 16 answers, and processes share all but the minute of loading."""
    reading = 541 * (2 * qwen3_4b().parameters * 55 + 2 * 4_096 * 36 * 55**2) / (0.15 * 989.4e12)
    cases: list[tuple[dict[str, Any], int, int]] = [({"batch_size": 32}, 32, 1), ({}, 16, 1), ({"processes": 3}, 16, 3)]
    for section, at_once, processes in cases:
        planned = plan(tmp_path, configure("ifeval", max_new_tokens=100, **section))
        writing = -(-541 * 100 // at_once) * 0.03
        assert planned["job_hours"] * 3600 == pytest.approx(60 + (reading + writing) / processes)
        assert planned["gpu_hours"] == pytest.approx(3 * processes * planned["job_hours"])


def test_hours_are_the_mean_of_finished_jobs(tmp_path: Path) -> None:
    """Two of three models are scored."""
    for model, seconds in (("base", 360.0), ("sft", 720.0)):
        write_json(RunPaths("smoke", tmp_path).score(model, "mine"), {"provenance": {"seconds": seconds}})
    planned = plan(tmp_path, configure("piqa"))
    assert planned["used_job_hours"] == planned["job_hours"] == pytest.approx(0.15)
    assert planned["hours"] == pytest.approx(0.45) and planned["hours_are"] == "measured on 2 of 3 models"
    assert planned["work_is"] == "measured" and planned["estimated_job_hours"] != planned["job_hours"]


def test_a_benchmark_on_cpus_has_no_gpu_memory_limit(tmp_path: Path) -> None:
    assert plan(tmp_path, configure("piqa", gpus=0))["memory_limit_bytes"] is None
    assert plan(tmp_path, configure("piqa"))["memory_limit_bytes"] == 80e9


def test_processes_share_the_questions_and_each_uses_a_gpu(tmp_path: Path) -> None:
    alone, four = (plan(tmp_path, configure("hellaswag", processes=processes)) for processes in (1, 4))
    loading = 60 / 3600
    assert four["job_hours"] - loading == pytest.approx((alone["job_hours"] - loading) / 4)
    assert four["gpu_hours"] == pytest.approx(3 * 4 * four["job_hours"])


def test_a_limit_applies_to_each_task_of_a_group(tmp_path: Path) -> None:
    assert count_items(configure("mmlu", limit=10), "mine", RunPaths("smoke", tmp_path)).number == 570
    assert count_items(configure("piqa", limit=10), "mine", RunPaths("smoke", tmp_path)).number == 10


def test_downloaded_questions_override_published_numbers(tmp_path: Path) -> None:
    write_json(RunPaths("smoke", tmp_path).benchmark("mine"), {"facts": {"questions": 7}})
    planned = plan(tmp_path, configure("piqa"))
    assert (planned["rows"], planned["rows_are"]) == (7, "measured")


def test_memory_includes_weights_a_batch_and_libraries(tmp_path: Path) -> None:
    memory = plan(tmp_path, configure("ifeval", max_new_tokens=945, batch_size=8))["memory"]
    # 36 layers, eight heads of 128 for keys and eight for values, two bytes per number.
    assert memory["batch"] == 8 * (55 + 945) * 36 * 2 * 1024 * 2
    assert memory["weights"] == 2 * qwen3_4b().parameters and memory["framework"] == 2e9
    spread = plan(tmp_path, configure("ifeval", engine="vllm", processes=4))["memory"]
    assert spread["weights"] == memory["weights"] / 4
    logits = plan(tmp_path, configure("piqa", batch_size=8))["memory"]["batch"]
    assert logits == 8 * 40 * 151_936 * 2 * 2


def test_a_model_that_does_not_fit_is_reported(tmp_path: Path) -> None:
    config = configure("piqa")
    small = config.model_copy(update={"plan": config.plan.model_copy(update={"gpu_memory_gb": 8})})
    assert plan(tmp_path, small)["verdict"]["fits_memory"] is False


@pytest.mark.parametrize(
    "config",
    [configure("piqa", gpus=0), configure("piqa", gpu=None), configure("xnli_en"), configure("piqa", gpu="Radeon")],
    ids=["CPU", "no GPU in plan.gpu", "unknown task", "unknown GPU"],
)
def test_unknown_values_are_null(tmp_path: Path, config: Config) -> None:
    planned = plan(tmp_path, config)
    assert planned["job_hours"] is None and planned["verdict"]["fits_time"] is None
    assert planned["gpu_hours"] is None and planned["work_is"] == "unknown"


def test_answers_alone_do_not_bound_the_hours(tmp_path: Path) -> None:
    """If the prompts of a task are unknown, the length of its answers does not bound the hours."""
    write_json(RunPaths("smoke", tmp_path).benchmark("mine"), {"facts": {"questions": 7}})
    planned = plan(tmp_path, configure("drop", max_new_tokens=64, filter="none"))
    assert planned["generated_tokens"] == 7 * 64 and planned["job_hours"] is None and planned["work_is"] == "unknown"
