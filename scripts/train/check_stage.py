"""Build TRL's config of a stage, so that a wrong argument is refused before anything is submitted."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks
from transformers.integrations.deepspeed import is_deepspeed_available
from transformers.utils import is_bitsandbytes_available
from trl import DPOConfig, GRPOConfig, KTOConfig, SFTConfig
from trl.experimental.orpo import ORPOConfig

from scripts.common.config import Stage
from scripts.common.console import make_parser, run_script, say
from scripts.common.errors import UserError, nearest
from scripts.common.files import write_json
from scripts.common.user_function import load_function
from scripts.train.arguments import DEFAULTS, build_arguments

CONFIGS: dict[str, type[TrainingArguments]] = {
    "sft": SFTConfig,
    "dpo": DPOConfig,
    "orpo": ORPOConfig,
    "kto": KTOConfig,
    "grpo": GRPOConfig,
}
"""TRL's config of each method."""

LOSSES = {
    "sft": ["nll", "dft"],
    "dpo": [
        *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
        *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
    ],
    "kto": ["kto", "apo_zero_unpaired"],
    "grpo": ["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"],
}
"""Values of `loss_type` that the trainers of TRL 1.16 implement. Its configs accept any value."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the stage")
    parser.add_argument("--config", required=True, help="the stage's section, as JSON")
    parser.add_argument("--validated", action="store_true", help="its data set has validation rows")
    parser.add_argument("--processes", type=int, default=1, help="number of training processes")
    parser.add_argument("--nodes", type=int, default=1, help="number of machines")
    parser.add_argument("--output", type=Path, required=True, help="checked section of the stage to write, JSON")
    options = parser.parse_args()
    stage = Stage.model_validate_json(options.config)

    if options.nodes > 1 and not shutil.which("srun"):
        raise UserError(
            f"resources.train.nodes: {options.nodes} machines need SLURM's srun, which is not installed here; run with "
            "--profile slurm on a login node, or set 1"
        )
    check(options.name, stage, options.validated, options.processes)
    write_json(options.output, stage.as_dict())
    say(f"check_stage {options.name}: {len(stage.args)} arguments")


def check(name: str, stage: Stage, validated: bool = False, processes: int = 1) -> None:
    """Build the same config as the training script. Raises UserError if arguments or rewards are wrong."""
    args = stage.args
    settings = DEFAULTS | ({"eval_strategy": "epoch"} if validated else {}) | args
    settings |= {"use_cpu": True, "bf16": False}
    if stage.method == "grpo":  # groups are distributed over the processes, and here is only one
        for key in ("per_device_train_batch_size", "per_device_eval_batch_size"):
            settings[key] = processes * args.get(key, 8)
    if stage.strategy != "ddp" and processes == 1:
        raise UserError(
            f"stages.{name}.strategy: {stage.strategy} needs several GPUs; set resources.train.gpus, or use ddp"
        )
    if stage.tuning == "qlora" and not is_bitsandbytes_available():
        raise UserError(f"stages.{name}.tuning: qlora needs bitsandbytes; pip install -r envs/requirements-gpu.txt")
    if stage.strategy.startswith("zero") and not is_deepspeed_available():
        raise UserError(
            f"stages.{name}.strategy: {stage.strategy} needs DeepSpeed; pip install -r envs/requirements-gpu.txt"
        )
    with TemporaryDirectory() as folder:
        where = f"stages.{name}.args"
        arguments = build_arguments(CONFIGS[stage.method], args, settings | {"output_dir": folder}, where)
    chosen = getattr(arguments, "loss_type", [])
    for loss in chosen if isinstance(chosen, list) else [chosen]:
        if loss not in LOSSES[stage.method]:
            raise UserError(
                f"{where}.loss_type: TRL's {stage.method} has no loss '{loss}'{nearest(loss, LOSSES[stage.method])}"
            )
    try:
        get_reporting_integration_callbacks(arguments.report_to)
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"{where}.report_to: {str(error).splitlines()[0]}") from error
    for function, path in stage.rewards.functions.items():
        load_function(path, f"stages.{name}.rewards.functions.{function}")


if __name__ == "__main__":
    run_script(main)
