"""The whole plan of a run: from what the configuration tells, and from what stands in its folders."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.common.config import Config
from scripts.common.files import write_json
from scripts.common.load_config import load_config
from scripts.plan.forecast import make_forecast
from scripts.plan.render import quantity, render_text
from tests.common.running import REPOSITORY
from tests.plan.stages import CONFIG, read_config

SMOKE: dict[str, Any] = yaml.safe_load((REPOSITORY / "recipes" / "smoke.yaml").read_text(encoding="utf-8"))


def forecast(config: Config, folder: Path) -> dict[str, Any]:
    """The plan of a run in a folder, its stages and benchmarks by name."""
    plan = make_forecast(config, folder / "work" / config.run.name, folder / "results" / config.run.name)
    for group in ("stages", "benchmarks"):
        plan[group] = {entry["name"]: entry for entry in plan[group]}
    return plan


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model lies in the Hugging Face cache."""
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
def test_a_run_that_is_repeated_keeps_its_rows(tmp_path: Path, recipe: str) -> None:
    """What is expected is what the filters leave: all rows that can be trained on."""
    for dataset in read_config(f"recipes/{recipe}.yaml", tmp_path).datasets.values():
        filters = dataset.filters
        assert (filters.duplicates, filters.benchmark_overlap, filters.near_duplicates) == (False, "flag", None)
        assert (filters.min_tokens, filters.max_tokens) == (None, None)


def finish_smoke(folder: Path) -> None:
    """What a finished run of the smoke recipe leaves for the plan to read."""
    work, results = folder / "work" / "smoke", folder / "results" / "smoke"
    splits = {
        "train": {"rows": 80, "counted": 40, "max": 60, "counts": [30, 10]},
        "validation": {"rows": 8, "counted": 0},
    }
    write_json(work / "datasets" / "sums" / "summary.json", {"tokens": {"edges": [40, 50, 60], "splits": splits}})
    write_json(work / "datasets" / "sums" / "manifest.json", {})
    facts = {"steps": 8, "epochs": 0.8, "tokens": 2_900, "flops": 1.5e10, "train_seconds": 30.0, "processes": 1}
    facts |= {"parameters": 820_992, "trainable_parameters": 820_992}
    config = {"method": "sft", "tuning": "full", "args": SMOKE["stages"]["sft"]["args"]}
    manifest: dict[str, Any] = {"name": "sft", "config": config, "facts": facts, "device": "CPU (x86_64)"}
    manifest |= {"created": "2026-11-22T10:00:00", "peak_memory_bytes": 9 * 10**8, "peak_gpu_memory_bytes": None}
    write_json(work / "models" / "sft" / "manifest.json", manifest)
    write_json(work / "benchmarks" / "traps" / "manifest.json", {"facts": {"questions": 50}})
    write_json(results / "scores" / "base" / "traps.json", {"provenance": {"seconds": 36.0}})


def test_what_was_measured_goes_before_what_is_expected(tmp_path: Path) -> None:
    finish_smoke(tmp_path)
    plan = forecast(read_config("recipes/smoke.yaml", tmp_path), tmp_path)
    sft = plan["stages"]["sft"]
    assert (sft["rows"], sft["rows_are"], sft["tokens_are"], sft["work_is"]) == (80, *3 * ["measured"])
    # Eight steps of eight rows: the middles of the bars are 44 and 54.
    assert sft["tokens"] == pytest.approx(64 * (0.75 * 44 + 0.25 * 54))
    assert sft["epochs"] == 0.8
    assert sft["hours"] is None, "what the stage itself used is no forecast of it"
    assert sft["used"]["steps"] == 8 and sft["used"]["memory_bytes"] == 9 * 10**8
    assert sft["gpu_hours"] is None and plan["totals"]["gpu_hours"] is None, "there is no GPU"
    traps = plan["benchmarks"]["traps"]
    assert (traps["rows"], traps["rows_are"], traps["generated_tokens"]) == (6, "measured", 48)
    assert traps["verdict"] == {"fits_memory": None, "fits_time": True, "over_time": "end"}
    assert traps["hours"] == pytest.approx(0.03) and traps["hours_are"] == "measured on 1 of 3 models"
    assert traps["used_job_hours"] == pytest.approx(0.01) and traps["estimated_job_hours"] is None, "of CPUs nothing"


def test_another_run_gives_the_pace(tmp_path: Path) -> None:
    finish_smoke(tmp_path)
    run = SMOKE["run"] | {"name": "again"}
    sft = forecast(read_config("recipes/smoke.yaml", tmp_path, run=run), tmp_path)["stages"]["sft"]
    assert sft["pace"] == "measured by sft, 2026-11-22, CPU (x86_64)"
    assert sft["hours"] == pytest.approx(sft["flops"] / (1.5e10 / 30) / 3600)
    assert sft["used"] is None


def test_what_nobody_knows_is_null(tmp_path: Path) -> None:
    """The pairs that a model will answer wrongly can only be bounded, and no CPU is like another."""
    plan = forecast(read_config("recipes/smoke.yaml", tmp_path), tmp_path)
    dpo = plan["stages"]["dpo"]
    assert (dpo["rows"], dpo["rows_are"]) == (24 - 4 - 8, "at most")
    assert dpo["hours"] is None and dpo["verdict"]["fits_time"] is None
    assert dpo["pace"].startswith("unknown")
    assert dpo["used"] is None


def test_steps_that_are_set_need_no_rows(tmp_path: Path) -> None:
    datasets = {"sums": {"source": {"kind": "hub", "repository": "some/rows", "revision": "main", "split": "train"}}}
    stages = {"sft": SMOKE["stages"]["sft"]}
    plan = forecast(read_config("recipes/smoke.yaml", tmp_path, datasets=datasets, stages=stages), tmp_path)
    sft = plan["stages"]["sft"]
    assert (sft["rows"], sft["steps"], sft["steps_are"], sft["epochs"]) == (None, 8, "measured", None)


def test_a_benchmark_is_planned_beside_what_it_used(tmp_path: Path) -> None:
    write_json(tmp_path / "results/smoke/scores/base/traps.json", {"provenance": {"seconds": 36.0}})
    config = read_config("recipes/smoke.yaml", tmp_path, resources={"evaluate": {"gpus": 1}}, plan={"gpu": "H100"})
    plan = make_forecast(config, tmp_path / "work/smoke", tmp_path / "results/smoke")
    (traps,) = [one for one in plan["benchmarks"] if one["name"] == "traps"]
    assert traps["estimated_job_hours"] > 60 / 3600 and traps["work_is"] == "measured"
    told = render_text(plan).split("Planned against used: hours of a benchmark's job\n")[1].splitlines()
    assert told[1].split() == ["traps", quantity(traps["estimated_job_hours"]), "0.01"]


def test_a_model_of_another_kind_is_not_guessed(tmp_path: Path) -> None:
    write_json(tmp_path / "gpt" / "config.json", {"model_type": "gpt2", "n_embd": 64})
    model = {"source": {"kind": "file", "path": str(tmp_path / "gpt")}}
    plan = forecast(read_config("recipes/smoke.yaml", tmp_path, model=model), tmp_path)
    assert plan["model"]["parameters"] is None and plan["model"]["found_in"].endswith("of a kind unknown here")
    assert plan["stages"]["sft"]["steps"] == 8 and plan["stages"]["sft"]["memory_bytes"] is None


def test_rates_make_energy_and_money(tmp_path: Path) -> None:
    """A data set of known size on two GPUs of known speed."""
    raw = copy.deepcopy(SMOKE)
    raw["run"]["cache"] = str(tmp_path)
    raw["model"] = {"source": {"kind": "file", "path": str(tmp_path / "model")}, "dtype": "bfloat16"}
    write_json(tmp_path / "model" / "config.json", CONFIG)
    raw["datasets"]["sums"] |= {"expected": {"rows": 1_008, "tokens": 100}, "filters": {}}
    raw["stages"]["sft"]["args"] = {"num_train_epochs": 1, "per_device_train_batch_size": 5, "max_length": 80}
    raw["resources"] = {"train": {"gpus": 2}}
    raw["plan"] = {"gpu": "H100", "watts_per_gpu": 500, "pue": 1.2, "per_gpu_hour": 2.0, "per_kwh": 0.25}
    sft = forecast(load_config(raw), tmp_path)["stages"]["sft"]
    assert (sft["rows"], sft["steps"], sft["tokens"]) == (1_000, 100, 80_000)
    assert sft["pace"] == "MFU 10.5%: as packed, by torchtune's ratio of 0.3"
    assert sft["hours"] == pytest.approx(sft["flops"] / (2 * 0.105 * 989.4e12) / 3600)
    assert sft["energy_kwh"] == pytest.approx(sft["gpu_hours"] * 0.6)
    assert sft["money"] == pytest.approx(sft["gpu_hours"] * 2 + sft["energy_kwh"] * 0.25)
    assert sft["memory_limit_bytes"] == 80e9


@pytest.mark.usefixtures("no_cache")
def test_training_and_evaluation_add_up(tmp_path: Path) -> None:
    plan = forecast(read_config("config.yaml", tmp_path), tmp_path)
    totals = plan["totals"]
    assert totals["training_gpu_hours"] == pytest.approx(sum(s["gpu_hours"] for s in plan["stages"].values()))
    assert totals["evaluation_gpu_hours"] == pytest.approx(sum(b["gpu_hours"] for b in plan["benchmarks"].values()))
    assert totals["gpu_hours"] == pytest.approx(totals["training_gpu_hours"] + totals["evaluation_gpu_hours"])


@pytest.mark.usefixtures("no_cache")
def test_a_stage_has_the_time_of_all_its_attempts(tmp_path: Path) -> None:
    """Its bound of 5.4 hours does not fit one job of two hours, and three of them."""
    resources = {"train": {"gpus": 2, "hours": 2}}
    config = read_config("recipes/personas-lora.yaml", tmp_path, resources=resources)
    folders = tmp_path / "work" / "x", tmp_path / "results" / "x"
    once, thrice = (make_forecast(config, *folders, attempts)["stages"][0] for attempts in (1, 3))
    assert (once["hours_limit"], once["verdict"]["fits_time"]) == (2, None), "only a bound is too long"
    assert (thrice["hours_limit"], thrice["verdict"]["fits_time"]) == (6, True)
