"""Build the trainer's configuration of a stage: a wrong argument is refused before anything is submitted."""

from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import TrainingArguments
from trl import DPOConfig, GRPOConfig, KTOConfig, SFTConfig
from trl.experimental.orpo import ORPOConfig

from scripts.common.config import Stage
from scripts.common.console import make_parser, run_script, say
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
    parser.add_argument("--name", required=True, help="name of the stage")
    parser.add_argument("--config", required=True, help="the stage's section, as JSON")
    parser.add_argument("--validated", action="store_true", help="its data set has validation rows")
    parser.add_argument("--processes", type=int, default=1, help="processes that it trains with")
    parser.add_argument("--output", type=Path, required=True, help="the stage as it was checked, JSON")
    options = parser.parse_args()
    stage = Stage.model_validate_json(options.config)

    check(options.name, stage, options.validated, options.processes)
    write_json(options.output, stage.part())
    say(f"check_stage {options.name}: {len(stage.args)} arguments")


def check(name: str, stage: Stage, validated: bool = False, processes: int = 1) -> None:
    """Build what the stage will build when it trains. Raises UserError when its arguments or rewards are wrong."""
    # DeepSpeed looks for GPUs when its section is read, and here there need be none.
    args = {key: value for key, value in stage.args.items() if key != "deepspeed"}
    settings = DEFAULTS | ({"eval_strategy": "epoch"} if validated else {}) | args
    settings |= {"use_cpu": True, "bf16": False, "report_to": []}
    if stage.method == "grpo":  # its groups are spread over the processes, and here there is one
        for key in ("per_device_train_batch_size", "per_device_eval_batch_size"):
            settings[key] = processes * args.get(key, 8)
    with TemporaryDirectory() as folder:
        build_arguments(CONFIGS[stage.method], args, settings | {"output_dir": folder}, f"stages.{name}.args")
    for function, path in stage.rewards.functions.items():
        load_function(path, f"stages.{name}.rewards.functions.{function}")


if __name__ == "__main__":
    run_script(main)
