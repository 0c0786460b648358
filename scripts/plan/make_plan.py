"""Tell what a run takes before anything is submitted: rows, tokens, steps, memory, hours, energy, money; what fits."""

from pathlib import Path

from scripts.common.config import Config
from scripts.common.console import make_parser, run_script, say
from scripts.common.files import write_json, write_text
from scripts.plan.forecast import make_forecast
from scripts.plan.render import render_markdown, render_text


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="the whole configuration, as JSON")
    parser.add_argument("--work", type=Path, required=True, help="the run's folder of heavy files")
    parser.add_argument("--results", type=Path, required=True, help="the run's results; the plan goes there")
    parser.add_argument("--attempts", type=int, help="attempts at a job that its time limit ends, where they are known")
    options = parser.parse_args()

    config = Config.model_validate_json(options.config)
    plan = make_forecast(config, options.work, options.results, options.attempts)
    write_json(options.results / "plan.json", plan)
    write_text(options.results / "plan.md", render_markdown(plan))
    say(render_text(plan))


if __name__ == "__main__":
    run_script(main)
