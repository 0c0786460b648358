"""The forecast of stages is written once, for the report."""

from pathlib import Path

from scripts.common.files import read_json
from tests.common.running import call_main
from tests.plan.stages import read_config
from tests.plan.test_forecast import finish_smoke


def test_each_stage_is_written_with_its_forecast(tmp_path: Path) -> None:
    finish_smoke(tmp_path)
    config = read_config("recipes/smoke.yaml", tmp_path)
    output = tmp_path / "forecast.json"
    call_main("plan.forecast_training", tmp_path, config=config.forecast_inputs(), output=output)
    sft, dpo = read_json(output)
    assert (sft["name"], sft["steps"], dpo["name"], dpo["steps"]) == ("sft", 8, "dpo", 4)
    assert sft["memory_bytes"] > 6e8 and sft["hours"] is None, "the stage's own use is no forecast"


def test_the_inputs_contain_only_what_stages_depend_on(tmp_path: Path) -> None:
    config = read_config("recipes/smoke.yaml", tmp_path)
    part = config.forecast_inputs()
    assert set(part) == {"run", "model", "datasets", "stages", "resources", "plan"}
    assert "time_limit" not in part["stages"]["sft"] and "expected" not in part["datasets"]["sums"]
    assert "hours" not in part["resources"]["train"] and "gpus" in part["resources"]["train"]
    assert "gpus" not in part["resources"], "the number of GPUs used at once affects no stage"
