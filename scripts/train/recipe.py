"""What all training methods share: arguments, model, resume, measuring, and saving what came out."""

import dataclasses
import fcntl
import math
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, TypeVar

import pyarrow.parquet as pq
import torch
from datasets import Dataset
from peft import LoraConfig
from pydantic import TypeAdapter
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from scripts.common.config import Stage
from scripts.common.console import Progress, make_parser, say
from scripts.common.errors import UserError, nearest
from scripts.common.files import hash_file, hash_json, read_json, write_json_lines
from scripts.common.manifest import find_model, write_manifest
from scripts.common.torch_setup import prepare_torch
from scripts.train.budget import Budget
from scripts.train.processes import largest

Arguments = TypeVar("Arguments", bound=TrainingArguments)

OURS = (
    "output_dir",
    "seed",
    "data_seed",
    "use_cpu",
    "report_to",
    "disable_tqdm",
    "eos_token",
    "assistant_only_loss",
    "bf16",
    "fp16",
    "save_only_model",
    "logging_nan_inf_filter",
)
"""Fields of the trainer's config that the pipeline sets itself; `args` may not."""

DEFAULTS: dict[str, Any] = {
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 200,
    "save_total_limit": 1,
    "gradient_checkpointing": False,
}
"""What we set where `args` does not: every step is logged, and a killed stage loses 200 steps at most."""


@dataclass(frozen=True)
class Job:
    """One training stage, as its rule asks for it."""

    name: str
    stage: Stage
    seed: int
    dtype: str
    parent: Path
    train: Path
    validation: Path
    log: Path
    manifest: Path
    checkpoints: Path
    time_limit: float
    over_time: str
    device: str

    @property
    def folder(self) -> Path:
        """Where the trained model goes."""
        return find_model(self.manifest)

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files."""
        return int(os.environ.get("RANK", "0")) == 0


def parse_job(description: str | None) -> Job:
    """Read the command line of a training script, and prepare torch."""
    parser = make_parser(description)
    parser.add_argument("--name", required=True, help="name of the stage")
    parser.add_argument("--config", required=True, help="the stage's section, as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the run")
    parser.add_argument("--dtype", required=True, help="precision of the model")
    parser.add_argument("--cpus", type=int, required=True, help="arithmetic threads")
    parser.add_argument("--time-limit", type=float, default=0, help="hours for all attempts together; 0 for no limit")
    parser.add_argument("--over-time", choices=["fit", "refuse"], default="fit", help="what to do beyond it")
    parser.add_argument("--parent", type=Path, required=True, help="manifest of the model to start from")
    parser.add_argument("--train", type=Path, required=True, help="rows to train on, Parquet")
    parser.add_argument("--validation", type=Path, required=True, help="rows held out, Parquet")
    parser.add_argument("--steps", type=Path, required=True, help="log of the training steps to write, JSON lines")
    parser.add_argument(
        "--manifest", type=Path, required=True, help="manifest to write; the model folder stands beside it"
    )
    options = parser.parse_args()
    stage = TypeAdapter(Stage).validate_json(options.config)
    # Checkpoints of another configuration, another parent or other rows live in another folder: they never mix.
    parent = read_json(options.parent)
    origin = [parent["config"], *(parent["facts"].get(fact) for fact in ("weights_sha256", "sha256", "revision"))]
    processes = os.environ.get("WORLD_SIZE", "1")
    functions = [hash_file(Path(path)) for path in stage.function_files]
    made_by = [stage.part(), options.seed, options.dtype, hash_file(options.train), origin, processes, functions]
    fingerprint = hash_json(made_by)[:16]
    return Job(
        name=options.name,
        stage=stage,
        seed=options.seed,
        dtype=options.dtype,
        parent=options.parent,
        train=options.train,
        validation=options.validation,
        log=options.steps,
        manifest=options.manifest,
        checkpoints=options.manifest.parent / "checkpoints" / fingerprint,
        time_limit=options.time_limit,
        over_time=options.over_time,
        device=prepare_torch(options.seed, options.cpus),
    )


def load_model(job: Job) -> tuple[PreTrainedModel, Any]:
    """The parent model and its tokenizer.

    Weights that are trained stay float32: an update of a small learning rate is lost in bfloat16. Adapters and
    DeepSpeed keep float32 copies of their own, so there the model takes the run's precision.
    """
    tokenizer = AutoTokenizer.from_pretrained(find_model(job.parent))
    keeps_copies = job.stage.tuning == "lora" or "deepspeed" in job.stage.args
    model = AutoModelForCausalLM.from_pretrained(find_model(job.parent), dtype=job.dtype if keeps_copies else "float32")
    return model, tokenizer


def load_rows(job: Job, columns: list[str]) -> tuple[Dataset, Dataset | None]:
    """Training rows, and held-out rows or None when there are none."""
    train = Dataset.from_parquet(str(job.train)).select_columns(columns)
    if not pq.read_metadata(job.validation).num_rows:
        return train, None  # datasets cannot read a Parquet file without rows
    return train, Dataset.from_parquet(str(job.validation)).select_columns(columns)


def make_arguments(config: type[Arguments], job: Job, tokenizer: Any, has_validation: bool) -> Arguments:
    """TRL's config of the method: the stage's `args`, over our defaults, under what the pipeline must set itself."""
    args = job.stage.args
    on_gpu = job.device == "cuda"
    settings = DEFAULTS | ({"eval_strategy": "epoch"} if has_validation else {}) | args
    settings |= {
        "output_dir": str(job.checkpoints),
        "seed": job.seed,
        "data_seed": job.seed,
        "use_cpu": not on_gpu,
        "bf16": on_gpu and job.dtype == "bfloat16",
        "report_to": [],
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,  # it would hide a loss that is not a number
    }
    if job.stage.method == "sft":
        # It learns the assistant's turns, up to the end of the turn.
        settings |= {"eos_token": tokenizer.eos_token, "assistant_only_loss": True}
    return build_arguments(config, args, settings, f"stages.{job.name}.args")


def build_arguments(config: type[Arguments], args: dict[str, Any], settings: dict[str, Any], where: str) -> Arguments:
    """TRL's config from `settings`, of which `args` are the user's.

    Raises:
        UserError: an argument that TRL does not know, one that is ours to set, or a value that TRL refuses.
    """
    known = [field.name for field in dataclasses.fields(config)]
    for argument in args:
        if argument in OURS:
            raise UserError(f"{where}.{argument}: the pipeline sets this itself; remove it")
        if argument not in known:
            raise UserError(f"{where}.{argument}: TRL's config has no such field{nearest(argument, known)}")
    try:
        return config(**settings)
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error


def make_adapters(job: Job) -> LoraConfig | None:
    """The adapters to train, or None when all weights are trained."""
    if job.stage.tuning == "full":
        return None
    lora = job.stage.lora
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
    )


def prove_mask(rows: Dataset, tokenizer: Any, job: Job, max_length: int | None) -> dict[str, Any]:
    """Prove, before any step, that training sees what it should.

    Args:
        rows: conversations in a column `messages`.
        max_length: tokens after which TRL cuts a row; None for no cut.

    Returns:
        `trained_token_share`, the share of the tokens that are trained on, and `cut_rows`, how many rows lose some.

    Raises:
        UserError: a row trains no token, or its end of turn is not trained, so that the model would never stop.
    """
    trained = total = cut = 0
    for number, row in enumerate(rows):
        encoded = tokenizer.apply_chat_template(
            row["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        tokens, mask = encoded["input_ids"][:max_length], encoded["assistant_masks"][:max_length]
        kept = [token for token, is_trained in zip(tokens, mask, strict=True) if is_trained]
        is_cut = any(encoded["assistant_masks"][len(tokens) :])
        if not kept or (kept[-1] != tokenizer.eos_token_id and not is_cut):
            what = "no token would be trained" if not kept else "the end of the turn would not be trained"
            where = f"row {number} of the training rows" + (f", cut at max_length {max_length}" if is_cut else "")
            raise UserError(f"stages.{job.name}: {where}: {what}; mend the row, or filter such rows out")
        trained, total, cut = trained + len(kept), total + len(tokens), cut + is_cut
    if cut:
        say(f"train_sft {job.name}: {cut} of {len(rows)} rows are longer than max_length {max_length} and are cut")
    return {"trained_token_share": round(trained / total, 4), "cut_rows": cut}


class Watch(TrainerCallback):
    """Says how far training is, and turns SIGTERM and Ctrl-C into a checkpoint."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.progress = Progress(f"train_{job.stage.method} {job.name}", 0, "steps")
        self.stopped_by: int | None = None
        self.loss = ""

    def listen(self) -> None:
        """Take over the signals that ask us to end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = number

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.progress.total = state.max_steps
        self.progress.start_from(state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if logs and "loss" in logs:
            if not math.isfinite(float(logs["loss"])):
                raise UserError(
                    f"stages.{self.job.name}: the loss of step {state.global_step} is not a finite number; lower "
                    "learning_rate, or look at the rows. The last checkpoint is kept"
                )
            self.loss = f"loss {float(logs['loss']):.3f}"

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.progress.update(state.global_step, self.loss)
        # The signal that any of the processes got: they must stop after the same step, or one waits for ever.
        self.stopped_by = int(largest(self.stopped_by or 0, args.device)) or None
        if self.stopped_by is not None:
            control.should_save = control.should_training_stop = True


def fit(trainer: Trainer, job: Job) -> dict[str, Any]:
    """Train to the end, from the newest whole checkpoint when there is one.

    Returns:
        Facts for the manifest: steps, seconds of this attempt, the step it resumed from.

    Ends the process with 128 + the signal's number when a signal asked for it, after a checkpoint was written.
    """
    take_lock(job)
    watch = Watch(job)
    limit = 3600 * job.time_limit or None
    ledger = job.checkpoints / "ledger.json"
    budget = Budget(f"stages.{job.name}", ledger, limit, refuse=job.over_time == "refuse")
    trainer.add_callback(watch)
    trainer.add_callback(budget)
    checkpoint = newest_checkpoint(job.checkpoints)
    if checkpoint is not None:
        say(f"train_{job.stage.method} {job.name}: going on from {checkpoint.name}")
    watch.listen()
    started = time.monotonic()
    if checkpoint and is_finished(checkpoint):
        # Trainer.train would go one step too far from here.
        trainer._load_from_checkpoint(str(checkpoint))
        trainer.state = read_state(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if job.is_main:
        budget.write()
    if watch.stopped_by is not None and trainer.state.global_step < trainer.state.max_steps:
        step = trainer.state.global_step
        say(f"train_{job.stage.method} {job.name}: stopped at step {step}; the next run goes on from there")
        sys.exit(128 + watch.stopped_by)
    history = trainer.state.log_history
    seconds = time.monotonic() - started
    tokens = next((row["num_tokens"] for row in reversed(history) if "num_tokens" in row), None)
    return {
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "train_seconds": round(seconds, 1),
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 1) if tokens and checkpoint is None else None,
        "budget": budget.describe(),
        "resumed_from": int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0,
        "parameters": trainer.model.num_parameters(),
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
    }


_held: dict[Path, IO[str]] = {}
"""Locks of this process; they end with it."""


def take_lock(job: Job) -> None:
    """Hold the stage's folder for this job until its process ends, where files can be locked.

    Raises:
        UserError: another job trains this stage.
    """
    path = job.checkpoints.parent.resolve() / "lock"
    if not job.is_main or path in _held:
        return
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"stages.{job.name}: another job is training this stage in {job.checkpoints.parent}; wait for it, or end it"
        ) from None
    except OSError:
        say(f"train_{job.stage.method} {job.name}: {lock.name} cannot be locked here; see that no second job trains")
    _held[path] = lock


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the log with null for what is not a number, such as the mean of no reward."""
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end. The trainer writes its state last, so a torn one has none."""
    numbered = [(int(path.name.removeprefix("checkpoint-")), path) for path in folder.glob("checkpoint-*")]
    for _, path in sorted(numbered, reverse=True):
        try:
            read_state(path)
            return path
        except (OSError, ValueError):
            continue
    return None


def read_state(checkpoint: Path) -> TrainerState:
    """How far a checkpoint is, and what was logged on the way."""
    return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))


def is_finished(checkpoint: Path) -> bool:
    """The checkpoint stands at the last step."""
    state = read_state(checkpoint)
    return bool(state.global_step >= state.max_steps)


def save(trainer: Trainer, tokenizer: Any, job: Job, facts: dict[str, Any]) -> None:
    """Write the merged model, the log of the steps, and last the manifest; then the checkpoints have served."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if job.stage.tuning == "lora":
        model = model.merge_and_unload()
    if not job.is_main:
        return
    shutil.rmtree(job.folder, ignore_errors=True)
    model.to(getattr(torch, job.dtype)).save_pretrained(job.folder)
    tokenizer.save_pretrained(job.folder)
    shutil.copyfile(find_model(job.parent) / "generation_config.json", job.folder / "generation_config.json")
    for path in job.folder.iterdir():
        path.chmod(0o664)  # the writer of safetensors leaves 0600, and a group shares the results
    write_json_lines(job.log, [finite(row) for row in trainer.state.log_history])
    facts["weights_sha256"] = hash_json({p.name: hash_file(p) for p in sorted(job.folder.glob("*.safetensors"))})
    write_manifest(
        job.manifest,
        artefact="model",
        name=job.name,
        config=job.stage.part() | {"seed": job.seed, "dtype": job.dtype},
        inputs={"parent": job.parent, "train": job.train, "validation": job.validation},
        facts=facts,
    )
    shutil.rmtree(job.checkpoints.parent, ignore_errors=True)
