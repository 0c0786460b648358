"""Build the trainer's configuration of every stage: a wrong argument is refused before anything is submitted."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import TrainingArguments
from trl import DPOConfig, GRPOConfig, KTOConfig, SFTConfig
from trl.experimental.orpo import ORPOConfig

from scripts.common.config import Stage
from scripts.common.console import make_parser, run_script, say
from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.common.user_function import load_function
from scripts.train.recipe import DEFAULTS, build_arguments

CONFIGS: dict[str, type[TrainingArguments]] = {
    "sft": SFTConfig,
    "dpo": DPOConfig,
    "orpo": ORPOConfig,
    "kto": KTOConfig,
    "grpo": GRPOConfig,
}
"""TRL's config of each method."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="section `stages` of the configuration, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="the stages that were checked, JSON")
    options = parser.parse_args()
    stages = {name: Stage.model_validate(section) for name, section in json.loads(options.config).items()}

    problems = [problem for name, stage in stages.items() if (problem := find_problem(name, stage))]
    if problems:
        raise UserError("\n".join(problems))
    write_json(options.output, {name: stage.part() for name, stage in stages.items()})
    say(f"check_stages: {len(stages)} stages")


def find_problem(name: str, stage: Stage) -> str | None:
    """What is wrong with a stage's arguments or rewards; None when nothing is."""
    # DeepSpeed looks for GPUs when its section is read, and here there need be none.
    args = {key: value for key, value in stage.args.items() if key != "deepspeed"}
    try:
        with TemporaryDirectory() as folder:
            settings = DEFAULTS | args | {"output_dir": folder, "use_cpu": True, "bf16": False, "report_to": []}
            build_arguments(CONFIGS[stage.method], args, settings, f"stages.{name}.args")
        for function, path in stage.rewards.functions.items():
            load_function(path, f"stages.{name}.rewards.functions.{function}")
    except UserError as error:
        return str(error)
    return None


if __name__ == "__main__":
    run_script(main)
