"""Train a stage, resuming from its newest complete checkpoint, and save the model with its manifest."""

import fcntl
import math
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import IO, Any

from accelerate.utils import DistributedType
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from scripts.common.console import Progress, say
from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.common.manifest import describe
from scripts.common.records import FitFacts, PackedFacts, StrategyFacts, TrainedFacts
from scripts.train.arguments import steps_between_samples
from scripts.train.budget import Budget
from scripts.train.finished_training import keep_finished
from scripts.train.job import Job
from scripts.train.meter import Meter, count_parameters, summarise_steps, write_steps
from scripts.train.model import save_model
from scripts.train.processes import largest


def fit(trainer: Trainer, job: Job) -> FitFacts:
    """Train the stage to its end.

    If a signal stops training, the process saves a checkpoint and exits with 128 + the signal's number.

    Returns:
        Facts for the manifest: strategy, steps, cost, what the budget did, and the step it resumed from.

    Raises:
        UserError: the processes or the strategy are not the requested ones, another job trains this stage, the time
            limit is too short, or the loss is not a finite number.
    """
    used = check_processes(trainer, job)
    take_lock(job)
    checkpoint = newest_checkpoint(job.checkpoints)
    if checkpoint is not None:
        say(f"{job.label}: resuming from {checkpoint.name}")
    elif job.is_main:
        shutil.rmtree(job.tensorboard, ignore_errors=True)
        report_other_checkpoints(job)
    watch = Watch(job, steps_between_samples(trainer.args) if job.stage.method == "grpo" else 1)
    limit = 3600 * job.time_limit or None
    budget = Budget(f"stages.{job.name}", job.checkpoints / "ledger.json", limit, refuse=job.over_time == "refuse")
    # The meter must add its values to the log before other callbacks read them.
    trainer.callback_handler.callbacks[:0] = [Meter(trainer)]
    trainer.add_callback(watch)
    trainer.add_callback(budget)
    watch.listen()
    if checkpoint and is_finished(checkpoint):
        load_finished(trainer, checkpoint)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if job.is_main:
        budget.write()
    if watch.stopped_by is not None and trainer.state.global_step < trainer.state.max_steps:
        step = trainer.state.global_step
        say(f"{job.label}: stopped at step {step}; the next run resumes there")
        sys.exit(128 + watch.stopped_by)
    return {
        **used,
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        **summarise_steps(trainer.state.log_history, trainer.state.epoch),
        "effective_batch": trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps * job.processes,
        "budget": budget.describe(),
        "resumed_from": int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0,
        "parameters": count_parameters(trainer.model),
        "trainable_parameters": count_parameters(trainer.model, trained=True),
    }


def report_other_checkpoints(job: Job) -> None:
    """Report that training starts from the beginning, although other checkpoints of this stage exist."""
    others = [found for folder in job.checkpoints.parent.glob("*") if (found := newest_checkpoint(folder))]
    if others:
        say(
            f"{job.label}: starting from the beginning: {others[-1]} has another configuration, parent, seed, number "
            "of processes or training rows"
        )


def load_finished(trainer: Trainer, checkpoint: Path) -> None:
    """Load a checkpoint of the last step without training: `Trainer.train` would take one step more."""
    state = read_state(checkpoint)
    best = state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    if trainer.accelerator.distributed_type not in (DistributedType.DEEPSPEED, DistributedType.FSDP):
        trainer._load_from_checkpoint(best or str(checkpoint))
    trainer._prepare_for_training(state.max_steps, trainer.get_train_dataloader(), best or str(checkpoint))
    trainer.state = state


def save(trainer: Trainer, tokenizer: Any, job: Job, facts: TrainedFacts | PackedFacts) -> None:
    """Save the model, the table of steps and, last, the manifest. Then delete the checkpoints."""
    saved = save_model(trainer, tokenizer, job)
    if saved is None:
        return
    write_steps(job.steps, trainer.state.log_history)
    manifest = describe(
        artefact="model",
        name=job.name,
        config=job.stage.as_dict() | {"seed": job.seed, "dtype": job.dtype},
        inputs={"parent": job.parent, "train": job.train, "validation": job.validation},
        facts={**facts, **saved},
    )
    write_json(job.manifest, manifest)
    keep_finished(job)


def check_processes(trainer: Trainer, job: Job) -> StrategyFacts:
    """Check the processes and the strategy in use, since libraries silently fall back to others.

    Raises:
        UserError: they are not the requested ones.
    """
    accelerator = trainer.accelerator
    if accelerator.num_processes != job.processes:
        raise UserError(
            f"stages.{job.name}: {accelerator.num_processes} processes train together, but resources.train requests "
            f"{job.processes}; each would train its own model"
        )
    if trainer.args.n_gpu > 1:
        raise UserError(
            f"stages.{job.name}: one process sees {trainer.args.n_gpu} GPUs and would split each batch over them; set "
            "resources.train.gpus to their number, or CUDA_VISIBLE_DEVICES to one of them"
        )
    strategy = "ddp"
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        strategy = f"zero{accelerator.state.deepspeed_plugin.zero_stage}"
    elif accelerator.distributed_type == DistributedType.FSDP:
        strategy = f"fsdp{accelerator.state.fsdp_plugin.fsdp_version}"
    if strategy != job.stage.strategy:
        raise UserError(
            f"stages.{job.name}.strategy: {job.stage.strategy} was requested, but {strategy} would run"
            + ("; FSDP needs GPUs" if job.stage.strategy == "fsdp2" and job.device == "cpu" else "")
        )
    attention = accelerator.unwrap_model(trainer.model).config._attn_implementation
    return {"processes": accelerator.num_processes, "strategy": strategy, "attention": attention}


class Watch(TrainerCallback):
    """Reports the progress of training, and saves a checkpoint on SIGTERM and Ctrl-C.

    Args:
        job: the stage.
        every: number of steps between points at which training can be resumed exactly.
    """

    def __init__(self, job: Job, every: int) -> None:
        self.job, self.every = job, every
        self.progress = Progress(job.label, 0, "steps")
        self.stopped_by: int | None = None
        self.pace = ""

    def listen(self) -> None:
        """Handle the signals that end the process."""
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
            # A gradient that is not finite corrupts the weights before the next loss shows it.
            for name in ("loss", "grad_norm"):
                if not math.isfinite(float(logs.get(name, 0.0))):
                    raise UserError(
                        f"stages.{self.job.name}: the {name} of step {state.global_step} is not a finite number; lower "
                        "learning_rate, or check the rows. The last checkpoint is kept"
                    )
            pace = logs["tokens"] / logs["seconds"]
            self.pace = f"loss {float(logs['loss']):.3f}, {pace:,.0f} tokens/s"

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Logging comes before saving and checks the loss, so no corrupt checkpoint is saved.
        control.should_log |= control.should_save

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.progress.total = state.max_steps  # the budget may have cut it
        if state.is_world_process_zero:
            self.progress.update(state.global_step, self.pace)
        # If any process got a signal, all must stop after the same step, or one would wait forever.
        self.stopped_by = int(largest(self.stopped_by or 0, args.device)) or None
        if self.stopped_by is not None and state.global_step % self.every == 0:
            control.should_save = control.should_training_stop = True
        control.should_log |= control.should_save


_held: dict[Path, IO[str]] = {}
"""Locks that this process holds until it ends."""


def take_lock(job: Job) -> None:
    """Lock the stage's checkpoint folder until this process ends, if the file system supports locks.

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
            f"stages.{job.name}: another job is training this stage in {job.checkpoints.parent}; wait for it or stop it"
        ) from None
    except OSError:
        say(f"{job.label}: {lock.name} cannot be locked here; make sure that no second job trains this stage")
    _held[path] = lock


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint. The trainer writes its state last, so an incomplete one has none."""
    numbered = [(int(path.name.removeprefix("checkpoint-")), path) for path in folder.glob("checkpoint-*")]
    for _, path in sorted(numbered, reverse=True):
        try:
            read_state(path)
            return path
        except (OSError, ValueError):
            continue
    return None


def read_state(checkpoint: Path) -> TrainerState:
    """The trainer's state in a checkpoint: its step and the log."""
    return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))


def is_finished(checkpoint: Path) -> bool:
    """Whether the checkpoint is at the last step."""
    state = read_state(checkpoint)
    return bool(state.global_step >= state.max_steps)
