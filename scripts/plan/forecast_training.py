"""Write the forecast of each stage from the counted rows, which the report compares with actual use."""

from pathlib import Path

from scripts.common.config import BASE, Config
from scripts.common.console import make_parser, run_script, say
from scripts.common.files import write_json
from scripts.common.paths import RunPaths
from scripts.common.records import StageForecast, StagePlan
from scripts.plan.forecast import plan_stages
from scripts.plan.shape import find_shape


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="the parts of the configuration that stages depend on, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()

    config = Config.model_validate_json(options.config)
    paths = RunPaths(config.run.name)
    shape, _ = find_shape(config.model.source, paths.model(BASE), Path(config.run.cache))
    write_json(options.output, [keep_forecast(stage) for stage in plan_stages(config, shape, paths)])
    say(f"forecast_training: {options.output}")


def keep_forecast(stage: StagePlan) -> StageForecast:
    """The part of a stage's plan that is kept as its forecast."""
    return {
        "name": stage["name"],
        "work_is": stage["work_is"],
        "tokens": stage["tokens"],
        "steps": stage["steps"],
        "epochs": stage["epochs"],
        "trainable_parameters": stage["trainable_parameters"],
        "flops": stage["flops"],
        "memory_bytes": stage["memory_bytes"],
        "memory_is": stage["memory_is"],
        "hours": stage["hours"],
        "pace": stage["pace"],
    }


if __name__ == "__main__":
    run_script(main)
