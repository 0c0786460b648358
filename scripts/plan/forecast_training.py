"""Write down what each stage should take by the counted rows: the report holds it against what was used."""

from pathlib import Path

from scripts.common.config import Config
from scripts.common.console import make_parser, run_script, say
from scripts.common.files import write_json
from scripts.plan.forecast import forecast_stages
from scripts.plan.shape import find_shape

KEPT = ("name", "work_is", "tokens", "steps", "epochs", "parameters_trained", "flops", "memory_bytes", "hours", "pace")
"""What is written of each stage."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="the configuration but for what no stage depends on, as JSON")
    parser.add_argument("--base", type=Path, required=True, help="manifest of the base model; the rows stand beside it")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()

    config = Config.model_validate_json(options.config)
    shape, _ = find_shape(config.model.source, options.base, Path(config.run.cache))
    work = options.base.parents[2]
    stages = forecast_stages(config, shape, work)
    write_json(options.output, [{key: stage[key] for key in KEPT} for stage in stages])
    say(f"forecast_training: {options.output}")


if __name__ == "__main__":
    run_script(main)
