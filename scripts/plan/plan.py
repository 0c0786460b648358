"""Estimate the rows, tokens, steps, memory, hours, energy and cost of a run before submitting it, and what fits."""

from scripts.common.config import Config
from scripts.common.console import make_parser, run_script, say
from scripts.common.files import write_json, write_text
from scripts.common.paths import RunPaths
from scripts.plan.forecast import make_plan
from scripts.plan.rendering import render_markdown, render_text


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="the complete configuration, as JSON")
    parser.add_argument("--attempts", type=int, help="attempts at a job that reaches its time limit, if known")
    options = parser.parse_args()

    config = Config.model_validate_json(options.config)
    paths = RunPaths(config.run.name)
    plan = make_plan(config, paths, options.attempts)
    write_json(paths.plan("json"), plan)
    write_text(paths.plan("md"), render_markdown(plan))
    say(render_text(plan))


if __name__ == "__main__":
    run_script(main)
