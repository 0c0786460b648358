"""What stages should take is written down once, for the report."""

from pathlib import Path

from scripts.common.files import read_json
from tests.common.running import call_main
from tests.plan.stages import read_config
from tests.plan.test_forecast import finish_smoke


def test_each_stage_is_written_with_what_it_should_take(tmp_path: Path) -> None:
    finish_smoke(tmp_path)
    config = read_config("recipes/smoke.yaml", tmp_path)
    output, base = tmp_path / "forecast.json", tmp_path / "work/smoke/models/base/manifest.json"
    call_main("plan.forecast_training", tmp_path, config=config.training_part(), base=base, output=output)
    sft, dpo = read_json(output)
    assert (sft["name"], sft["steps"], dpo["name"], dpo["steps"]) == ("sft", 8, "dpo", 4)
    assert sft["memory_bytes"] > 6e8 and sft["hours"] is None, "what the stage itself took is no forecast of it"


def test_what_no_stage_depends_on_is_no_part_of_it(tmp_path: Path) -> None:
    config = read_config("recipes/smoke.yaml", tmp_path)
    part = config.training_part()
    assert set(part) == {"run", "model", "datasets", "stages", "resources", "plan"}
    assert "time_limit" not in part["stages"]["sft"] and "expected" not in part["datasets"]["sums"]
    assert "hours" not in part["resources"]["train"] and "gpus" in part["resources"]["train"]
    assert "gpus" not in part["resources"], "how many GPUs are used at once decides on nothing"
