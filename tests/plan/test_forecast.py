"""The plan of a run, from its configuration and the files in its folders."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.common.config import Config, Lora
from scripts.common.config.loader import load_config
from scripts.common.files import read_json, write_json
from scripts.common.paths import REPOSITORY, RunPaths
from scripts.plan.forecast import _fits_memory, describe_device, make_plan
from scripts.plan.rendering import quantity, render_text
from tests.plan.stages import CONFIG, make_manifest, make_shape, read_config

SMOKE: dict[str, Any] = yaml.safe_load((REPOSITORY / "recipes" / "smoke.yaml").read_text(encoding="utf-8"))


def forecast(config: Config, folder: Path) -> dict[str, Any]:
    """The plan of a run in a folder, with stages and benchmarks by name."""
    plan: dict[str, Any] = dict(make_plan(config, RunPaths(config.run.name, folder)))
    for group in ("stages", "benchmarks"):
        plan[group] = {entry["name"]: entry for entry in plan[group]}
    return plan


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an empty Hugging Face cache."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.mark.usefixtures("no_cache")
def test_personas_lora_has_the_steps_of_the_run_that_it_repeats(tmp_path: Path) -> None:
    plan = forecast(read_config("recipes/personas-lora.yaml", tmp_path), tmp_path)
    sft, dpo = plan["stages"]["sft"], plan["stages"]["dpo"]
    assert (sft["rows"], sft["effective_batch"], sft["epochs"], sft["steps"]) == (26_982, 32, 3, 2_532)
    assert (dpo["rows"], dpo["effective_batch"], dpo["epochs"], dpo["steps"]) == (20_000, 16, 1.5, 1_875)
    assert (sft["rows_are"], sft["tokens_are"], sft["work_is"]) == ("expected", "at most", "at most")
    assert sft["tokens"] == 3 * 26_982 * 2_048
    for stage in (sft, dpo):
        assert stage["verdict"] == {"fits_memory": True, "fits_time": True, "over_time": "fit"}
        assert stage["gpu_hours"] == 2 * stage["hours"]
        assert stage["energy_kwh"] == pytest.approx(0.7 * stage["gpu_hours"])
        assert stage["money"] is None, "no price was given"


@pytest.mark.usefixtures("no_cache")
def test_alpaca_qlora_has_the_steps_of_the_run_that_it_repeats(tmp_path: Path) -> None:
    plan = forecast(read_config("recipes/alpaca-qlora.yaml", tmp_path), tmp_path)
    sft, dpo = plan["stages"]["sft"], plan["stages"]["dpo"]
    assert (sft["effective_batch"], sft["epochs"], sft["steps"]) == (128, 3, 1_221)
    assert (dpo["effective_batch"], dpo["steps"], dpo["steps_are"]) == (128, 2_000, "measured")
    assert dpo["epochs"] == pytest.approx(4.18, abs=0.01)


@pytest.mark.parametrize("recipe", ["personas-lora", "alpaca-qlora"])
def test_repeated_runs_keep_their_rows(tmp_path: Path, recipe: str) -> None:
    """The filters keep all rows, so the expected rows are those of the repeated run."""
    for dataset in read_config(f"recipes/{recipe}.yaml", tmp_path).datasets.values():
        filters = dataset.filters
        assert (filters.duplicates, filters.benchmark_overlap, filters.near_duplicates) == (False, "flag", None)
        assert (filters.min_tokens, filters.max_tokens) == (None, None)


def finish_smoke(folder: Path) -> None:
    """Write the files of a finished smoke run that the plan reads."""
    paths = RunPaths("smoke", folder)
    splits = {
        "train": {"rows": 80, "counted": 40, "max": 60, "counts": [30, 10]},
        "validation": {"rows": 8, "counted": 0},
    }
    write_json(paths.summary("sums"), {"tokens": {"edges": [40, 50, 60], "splits": splits}})
    write_json(paths.filtered("sums"), {})
    facts = {"parameters": 820_992, "trainable_parameters": 820_992}
    write_json(paths.model("sft"), make_manifest(config={"args": SMOKE["stages"]["sft"]["args"]}, facts=facts))
    write_json(paths.benchmark("traps"), {"facts": {"questions": 50}})
    write_json(paths.score("base", "traps"), {"provenance": {"seconds": 36.0}})


def test_measured_values_override_expected_ones(tmp_path: Path) -> None:
    finish_smoke(tmp_path)
    plan = forecast(read_config("recipes/smoke.yaml", tmp_path), tmp_path)
    sft = plan["stages"]["sft"]
    assert (sft["rows"], sft["rows_are"], sft["tokens_are"], sft["work_is"]) == (80, *3 * ["measured"])
    # Eight steps of eight rows: the middles of the bars are 44 and 54.
    assert sft["tokens"] == pytest.approx(64 * (0.75 * 44 + 0.25 * 54))
    assert sft["epochs"] == 0.8
    assert sft["hours"] is None, "the stage's own use is no forecast"
    assert sft["used"] == {
        **{"steps": 8, "epochs": 0.8, "tokens": 2_900, "flops": 1.5e10, "hours": pytest.approx(30 / 3600)},
        **{"memory_bytes": 9 * 10**8, "energy_kwh": None, "trainable_parameters": 820_992, "device": "CPU (x86_64)"},
    }
    # A batch of eight is 44 long with probability 0.75^8, else 54. Eight batches have six of the ten lengths per bar.
    assert sft["memory"]["kernels"] == pytest.approx(19e6 * (10 * 0.0773 + 10 * 0.5297), rel=1e-3)
    assert sft["gpu_hours"] is None and plan["totals"]["gpu_hours"] is None, "there is no GPU"
    traps = plan["benchmarks"]["traps"]
    assert (traps["rows"], traps["rows_are"], traps["generated_tokens"]) == (6, "measured", 48)
    assert traps["verdict"] == {"fits_memory": None, "fits_time": True, "over_time": "end"}
    assert traps["hours"] == pytest.approx(0.03) and traps["hours_are"] == "measured on 1 of 3 models"
    assert traps["used_job_hours"] == pytest.approx(0.01) and traps["estimated_job_hours"] is None, (
        "there is no estimate for CPUs"
    )


def test_used_memory_is_gpu_memory_on_a_gpu(tmp_path: Path) -> None:
    finish_smoke(tmp_path)
    path = RunPaths("smoke", tmp_path).model("sft")
    write_json(path, read_json(path) | {"peak_gpu_memory_bytes": 5 * 10**9})
    plan = forecast(read_config("recipes/smoke.yaml", tmp_path), tmp_path)
    assert plan["stages"]["sft"]["used"]["memory_bytes"] == 5 * 10**9


def test_the_pace_comes_from_another_run(tmp_path: Path) -> None:
    finish_smoke(tmp_path)
    run = SMOKE["run"] | {"name": "again"}
    sft = forecast(read_config("recipes/smoke.yaml", tmp_path, run=run), tmp_path)["stages"]["sft"]
    assert sft["pace"] == "measured by sft, 2026-11-22, CPU (x86_64)"
    assert sft["hours"] == pytest.approx(sft["flops"] / (1.5e10 / 30) / 3600)
    assert sft["used"] is None


def test_unknown_values_are_null(tmp_path: Path) -> None:
    """The number of wrong answers of a model is only bounded, and the throughput on a CPU is unknown."""
    plan = forecast(read_config("recipes/smoke.yaml", tmp_path), tmp_path)
    dpo = plan["stages"]["dpo"]
    assert (dpo["rows"], dpo["rows_are"]) == (24 - 4 - 8, "at most")
    assert dpo["hours"] is None and dpo["verdict"]["fits_time"] is None
    assert dpo["pace"].startswith("unknown")
    assert dpo["used"] is None


def test_max_steps_needs_no_rows(tmp_path: Path) -> None:
    datasets = {"sums": {"source": {"kind": "hub", "repository": "some/rows", "revision": "main", "split": "train"}}}
    stages = {"sft": SMOKE["stages"]["sft"]}
    plan = forecast(
        read_config("recipes/smoke.yaml", tmp_path, datasets=datasets, stages=stages, expectations={}), tmp_path
    )
    sft = plan["stages"]["sft"]
    assert (sft["rows"], sft["steps"], sft["steps_are"], sft["epochs"]) == (None, 8, "measured", None)


def test_the_plan_of_a_benchmark_is_shown_with_its_use(tmp_path: Path) -> None:
    write_json(RunPaths("smoke", tmp_path).score("base", "traps"), {"provenance": {"seconds": 36.0}})
    config = read_config("recipes/smoke.yaml", tmp_path, resources={"evaluate": {"gpus": 1}}, plan={"gpu": "H100"})
    plan = make_plan(config, RunPaths("smoke", tmp_path))
    (traps,) = [one for one in plan["benchmarks"] if one["name"] == "traps"]
    assert traps["estimated_job_hours"] is not None and traps["estimated_job_hours"] > 60 / 3600
    assert traps["work_is"] == "measured"
    lines = render_text(plan).split("Planned against used: hours of a benchmark's job\n")[1].splitlines()
    assert lines[1].split() == ["traps", quantity(traps["estimated_job_hours"]), "0.01"]


def test_unknown_architectures_are_not_guessed(tmp_path: Path) -> None:
    write_json(tmp_path / "gpt" / "config.json", {"model_type": "gpt2", "n_embd": 64})
    model = {"source": {"kind": "file", "path": str(tmp_path / "gpt")}}
    plan = forecast(read_config("recipes/smoke.yaml", tmp_path, model=model), tmp_path)
    assert plan["model"]["parameters"] is None and plan["model"]["found_in"].endswith("its architecture is unknown")
    assert plan["stages"]["sft"]["steps"] == 8 and plan["stages"]["sft"]["memory_bytes"] is None


def known_stage(folder: Path, stage: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """The plan of a stage with 1,000 rows of 80 tokens on two H100s.

    Args:
        stage: changes of its section and its `args`.
        sections: changes of other sections.
    """
    raw = copy.deepcopy(SMOKE)
    raw["run"]["cache"] = str(folder)
    raw["model"] = {"source": {"kind": "file", "path": str(folder / "model")}, "dtype": "bfloat16"}
    write_json(folder / "model" / "config.json", CONFIG)
    sums = raw["datasets"]["sums"] | {"expected": {"rows": 1_000, "tokens": 100}, "filters": {}, "validation": 0}
    raw["datasets"] = {"sums": sums | sections.pop("sums", {})}
    args = {"num_train_epochs": 1, "per_device_train_batch_size": 5, "max_length": 80}
    section = {"method": "sft", "from": "base", "dataset": "sums"} | (stage or {})
    raw["stages"] = {"sft": section | {"args": args | section.get("args", {})}}
    raw |= {"expectations": {}, "resources": {"train": {"gpus": 2}}, "plan": {"gpu": "H100"}} | sections
    return dict(forecast(load_config(raw), folder)["stages"]["sft"])


def finish_other(folder: Path, **facts: Any) -> None:
    """Write the manifest of a similar stage in another run: two processes with 500 FLOP/s each."""
    config = {"tuning": facts.pop("tuning", "full"), "args": facts.pop("args", {})}
    facts = {"flops": 1e5, "train_seconds": 100.0, "processes": 2} | facts
    manifest = make_manifest("other", config, facts, device="2 x NVIDIA H100")
    write_json(RunPaths("other", folder).model("sft"), manifest)


PEAK = 989.4e12


@pytest.mark.parametrize(("share", "fits"), [(0.94, True), (0.96, False), (1.1, False)])
def test_steps_may_take_95_percent_of_the_limit(tmp_path: Path, share: float, fits: bool) -> None:
    """The budget reserves the rest of the time for saving."""
    hours = known_stage(tmp_path)["hours"]
    planned = known_stage(tmp_path, {"time_limit": hours / share, "over_time": "refuse"})
    assert planned["hours"] == hours and planned["hours_limit"] == pytest.approx(hours / share)
    assert planned["verdict"] == {"fits_memory": True, "fits_time": fits, "over_time": "refuse"}


def test_hours_of_grpo_are_an_upper_bound(tmp_path: Path) -> None:
    """Answers may be short, so it is unknown whether the stage fits if only the longest ones would take too long."""
    args = {"num_generations": 5, "max_completion_length": 50, "max_length": None}
    planned = known_stage(tmp_path, {"method": "grpo", "args": args, "time_limit": 1e-9})
    assert (planned["rows_are"], planned["tokens_are"], planned["work_is"]) == ("expected", "expected", "at most")
    assert planned["verdict"]["fits_time"] is None
    assert known_stage(tmp_path, {"time_limit": 1e-9})["verdict"]["fits_time"] is False


def test_recomputed_activations_add_time_only_to_an_assumed_pace(tmp_path: Path) -> None:
    """They cost one forward pass, a third of training. A measured throughput already includes them."""
    again = {"args": {"gradient_checkpointing": True}}
    assumed = known_stage(tmp_path, again)
    assert assumed["hours"] == pytest.approx(assumed["flops"] * 4 / 3 / (2 * 0.105 * PEAK) / 3600)
    finish_other(tmp_path, args={"gradient_checkpointing": True})
    measured = known_stage(tmp_path, again)
    assert measured["pace"].startswith("measured by other") and measured["flops"] == assumed["flops"]
    assert measured["hours"] == pytest.approx(measured["flops"] / (2 * 500) / 3600)


def test_a_lora_stage_trains_its_adapters_only(tmp_path: Path) -> None:
    """Similar runs are found by the size of the model without adapters."""
    shape = make_shape()
    adapters = shape.adapter_parameters(Lora(r=4)) or 0
    assert 0 < adapters < shape.parameters
    finish_other(tmp_path, tuning="lora", parameters=4 * shape.parameters + adapters, trainable_parameters=adapters)
    planned = known_stage(tmp_path, {"tuning": "lora", "lora": {"r": 4}})
    tokens, attended = 80_000, 1_000 * 80**2
    passes = 3 * 2 * shape.queries * shape.layers * attended
    assert planned["flops"] == (4 * shape.parameters + 6 * adapters) * tokens + passes
    assert planned["trainable_parameters"] == adapters and planned["memory"]["optimiser"] == 8 * adapters
    assert planned["pace"].startswith("measured by other")


def test_gpu_hours_count_the_gpus_of_all_machines(tmp_path: Path) -> None:
    one, two = (known_stage(tmp_path, resources={"train": {"gpus": 2, "nodes": nodes}}) for nodes in (1, 2))
    assert (one["effective_batch"], two["effective_batch"]) == (10, 20)
    assert two["hours"] == pytest.approx(one["hours"] / 2) and two["gpu_hours"] == 4 * two["hours"]


def test_limits_are_those_of_training_jobs(tmp_path: Path) -> None:
    """On CPUs the memory limit is that of the job, and the throughput is unknown."""
    resources = {"train": {"memory_gb": 3, "hours": 5}, "evaluate": {"memory_gb": 7, "hours": 9}}
    planned = known_stage(tmp_path, resources=resources)
    assert (planned["memory_limit_bytes"], planned["hours_limit"], planned["hours"]) == (3e9, 5, None)
    # All rows have one length, and so all batches one size.
    assert (planned["memory"]["framework"], planned["memory"]["kernels"]) == (0.62e9, pytest.approx(19e6))
    on_gpu = known_stage(tmp_path, plan={"gpu": "H100", "gpu_memory_gb": 60})
    assert (on_gpu["memory_limit_bytes"], on_gpu["memory"]["framework"], on_gpu["memory"]["kernels"]) == (60e9, 2e9, 0)


@pytest.mark.parametrize(
    ("memory", "limit", "fits"),
    [
        ({"weights": 3.0, "kernels": 2.0}, 5.0, True),
        ({"weights": 3.0, "kernels": 2.0}, 4.0, None),
        ({"weights": 3.0, "kernels": 2.0}, 3.0, None),
        ({"weights": 3.0, "kernels": 2.0}, 2.9, False),
        ({"weights": 3.0, "kernels": 0.0}, 2.9, False),
        ({"weights": 3.0, "kernels": 2.0}, None, None),
        (None, 5.0, None),
    ],
    ids=str,
)
def test_only_memory_besides_the_kernels_is_certain(
    memory: dict[str, float] | None, limit: float | None, fits: bool | None
) -> None:
    """Every processor needs all other memory. The bytes of kernels are an upper bound."""
    assert _fits_memory(memory, limit) is fits


def test_kernels_that_may_not_fit_leave_the_verdict_open(tmp_path: Path) -> None:
    """Kernels for 40 batch sizes use up to 0.76 GB, all else 0.6 to 0.7. The sum exceeds 1 GB, and fits 2 GB."""
    stage = {"args": {"padding_free": True}}
    planned = known_stage(tmp_path, stage, resources={"train": {"memory_gb": 1}})
    assert planned["memory"]["kernels"] == 40 * 19e6 and planned["memory_is"] == "at most"
    assert planned["verdict"]["fits_memory"] is None
    assert known_stage(tmp_path, stage, resources={"train": {"memory_gb": 2}})["verdict"]["fits_memory"] is True


def test_memory_of_a_gpu_is_not_an_upper_bound(tmp_path: Path) -> None:
    planned = known_stage(tmp_path)
    assert (planned["memory"]["kernels"], planned["memory_is"]) == (0, "expected")
    plan = {"gpu": "H100", "gpu_memory_gb": 2}
    assert known_stage(tmp_path, plan=plan)["verdict"]["fits_memory"] is False


def test_unknown_memory_is_not_judged(tmp_path: Path) -> None:
    """Adapters selected by a regular expression are not counted, and unknown GPUs have no known memory."""
    adapters = {"tuning": "lora", "lora": {"target_modules": ".*proj"}}
    planned = known_stage(tmp_path, adapters)
    assert (planned["memory_is"], planned["memory"], planned["verdict"]["fits_memory"]) == ("unknown", None, None)
    assert known_stage(tmp_path, plan={"gpu": "Radeon"})["verdict"]["fits_memory"] is None


@pytest.mark.parametrize(
    ("sums", "args", "steps_are"),
    [
        ({}, {}, "expected"),
        ({}, {"packing": True}, "expected"),
        ({"expected": {"rows": 1_000}}, {}, "expected"),
        ({"expected": {"rows": 1_000}}, {"packing": True}, "at most"),
        ({"expected": {"tokens": 100}}, {}, "at most"),
        ({"expected": {"tokens": 100}}, {"max_steps": 5}, "measured"),
    ],
    ids=str,
)
def test_certainty_of_the_number_of_steps(
    tmp_path: Path, sums: dict[str, Any], args: dict[str, Any], steps_are: str
) -> None:
    """It is as certain as the number of rows and, with packing, the number of tokens."""
    assert known_stage(tmp_path, {"args": args}, sums=sums)["steps_are"] == steps_are


def test_rates_give_energy_and_money(tmp_path: Path) -> None:
    plan = {"gpu": "H100", "watts_per_gpu": 500, "pue": 1.2, "per_gpu_hour": 2.0, "per_kwh": 0.25}
    sft = known_stage(tmp_path, plan=plan)
    assert (sft["rows"], sft["steps"], sft["tokens"]) == (1_000, 100, 80_000)
    assert sft["pace"] == "MFU 10.5%: as packed, by torchtune's ratio of 0.3"
    assert sft["hours"] == pytest.approx(sft["flops"] / (2 * 0.105 * 989.4e12) / 3600)
    assert sft["energy_kwh"] == pytest.approx(sft["gpu_hours"] * 0.6)
    assert sft["money"] == pytest.approx(sft["gpu_hours"] * 2 + sft["energy_kwh"] * 0.25)
    assert sft["memory_limit_bytes"] == 80e9


def test_without_prices_there_is_no_money(tmp_path: Path) -> None:
    plain = known_stage(tmp_path)
    assert plain["energy_kwh"] == pytest.approx(0.7 * plain["gpu_hours"]) and plain["money"] is None
    free = known_stage(tmp_path, plan={"gpu": "H100", "per_gpu_hour": 0})
    assert free["money"] == 0
    by_energy = known_stage(tmp_path, plan={"gpu": "H100", "per_kwh": 0.5})
    assert by_energy["money"] == pytest.approx(0.5 * by_energy["energy_kwh"])


@pytest.mark.usefixtures("no_cache")
def test_training_and_evaluation_add_up(tmp_path: Path) -> None:
    plan = forecast(read_config("config.yaml", tmp_path), tmp_path)
    totals = plan["totals"]
    assert totals["training_gpu_hours"] == pytest.approx(sum(s["gpu_hours"] for s in plan["stages"].values()))
    assert totals["evaluation_gpu_hours"] == pytest.approx(sum(b["gpu_hours"] for b in plan["benchmarks"].values()))
    assert totals["gpu_hours"] == pytest.approx(totals["training_gpu_hours"] + totals["evaluation_gpu_hours"])


@pytest.mark.usefixtures("no_cache")
def test_a_stage_can_use_the_time_of_all_attempts(tmp_path: Path) -> None:
    """The upper bound of 5.4 hours exceeds one job of two hours, and fits three."""
    resources = {"train": {"gpus": 2, "hours": 2}}
    config = read_config("recipes/personas-lora.yaml", tmp_path, resources=resources)
    once, thrice = (make_plan(config, RunPaths("x", tmp_path), attempts)["stages"][0] for attempts in (1, 3))
    assert (once["hours_limit"], once["verdict"]["fits_time"]) == (2, None), "only an upper bound is too long"
    assert (thrice["hours_limit"], thrice["verdict"]["fits_time"]) == (6, True)


def test_the_device_in_words(tmp_path: Path) -> None:
    def describe(gpu: str | None, **train: int) -> str:
        sections = {"resources": {"train": train}, "plan": {"gpu": gpu}}
        return describe_device(read_config("recipes/smoke.yaml", tmp_path, **sections))

    assert describe("H100", gpus=2) == "2 x H100"
    assert describe(None, gpus=1) == "1 x GPU (model not set in plan.gpu)"
    assert describe("H100", gpus=0, cpus=3) == "1 x CPU, 3 threads"


def test_the_reason_of_an_unknown_throughput(tmp_path: Path) -> None:
    def explain(gpu: str | None, gpus: int) -> Any:
        return known_stage(tmp_path, resources={"train": {"gpus": gpus}}, plan={"gpu": gpu})["pace"]

    assert explain("H100", 0) == "unknown: no similar stage was measured on a CPU, and none is assumed"
    assert explain(None, 1) == "unknown: plan.gpu is not set"
    unlisted = "unknown: no similar stage was measured on Radeon, and scripts/common/gpus.py does not list it"
    assert explain("Radeon", 1) == unlisted
