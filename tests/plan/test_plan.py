"""The script prints tables, writes JSON and Markdown, and refuses wrong arguments with one line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.common.files import read_json
from scripts.common.paths import REPOSITORY
from scripts.plan.rendering import render_markdown, render_text
from tests.common.running import call_main, error_lines, run_script, script_environment
from tests.plan.stages import read_config


def options(folder: Path, **sections: Any) -> dict[str, Any]:
    config = read_config("recipes/smoke.yaml", folder, **sections)
    return {"config": config.as_dict(), "log": "plan.log"}


def test_the_plan_is_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_main("plan.plan", tmp_path, attempts=3, **options(tmp_path, resources={"train": {"hours": 2}}))
    plan = read_json(tmp_path / "results" / "smoke" / "plan.json")
    assert capsys.readouterr().err == render_text(plan) + "\n"
    assert plan["run"] == "smoke" and [stage["name"] for stage in plan["stages"]] == ["sft", "dpo"]
    assert [stage["hours_limit"] for stage in plan["stages"]] == [6, 6], "three attempts of two hours"
    assert (tmp_path / "results" / "smoke" / "plan.md").read_text() == render_markdown(plan)


BAD = [("max_steps", "many"), ("max_length", "long"), ("num_train_epochs", 0)]


@pytest.mark.parametrize(("argument", "value"), BAD)
def test_an_argument_that_is_not_a_number_gives_one_line(tmp_path: Path, argument: str, value: Any) -> None:
    stages = {"sft": {"method": "sft", "from": "base", "dataset": "sums", "args": {argument: value}}}
    datasets = read_config("recipes/smoke.yaml", tmp_path).as_dict()["datasets"]
    given = options(tmp_path, stages=stages, expectations={}, datasets=datasets)
    given["config"]["datasets"].pop("pairs")
    (line,) = error_lines(run_script("plan.plan", tmp_path, **given))
    assert line.startswith(f"error: stages.sft.args.{argument}: a ") and line.endswith(f"(given: {value!r})")


def test_no_timer_of_snakemake_delays_its_end(tmp_path: Path) -> None:
    """Snakemake's limit of jobs per second starts a timer thread for each check, which would run for a second."""
    arguments = ["snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(tmp_path), "plan"]
    arguments += ["--cores", "1", "--configfile", str(REPOSITORY / "recipes/smoke.yaml")]
    code = f"""
import sys, threading
from snakemake.cli import main
sys.argv = {arguments}
try:
    main()
except SystemExit as end:
    timers = [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
    sys.exit(str(timers) if end.code or not all(one.finished.is_set() for one in timers) else 0)
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=script_environment(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "results/smoke/plan.json").is_file()


def test_no_heavy_library_is_imported() -> None:
    heavy = "[m for m in ('torch', 'transformers', 'pyarrow', 'datasets', 'huggingface_hub') if m in sys.modules]"
    code = f"import sys, scripts.plan.plan; sys.exit(str({heavy}) if {heavy} else 0)"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=script_environment(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
