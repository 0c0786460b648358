"""Train a stage to its end, from the newest whole checkpoint when there is one, and account for it."""

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
from scripts.common.manifest import write_manifest
from scripts.train.arguments import steps_between_samples
from scripts.train.budget import Budget
from scripts.train.finished import keep_finished
from scripts.train.job import Job
from scripts.train.measure import Meter, count_parameters, summarise_steps, write_steps
from scripts.train.model import save_model
from scripts.train.processes import largest


def fit(trainer: Trainer, job: Job) -> dict[str, Any]:
    """Train.

    Returns:
        Facts for the manifest: what was really used, steps, times, what the budget did, the step it resumed from.

    Ends the process with 128 + the signal's number when a signal asked for it, after a checkpoint was written.

    Raises:
        UserError: the processes are not those that were asked for, another job trains this stage, the time does not
            do, or the loss is not a number.
    """
    used = check_processes(trainer, job)
    take_lock(job)
    checkpoint = newest_checkpoint(job.checkpoints)
    if checkpoint is not None:
        say(f"{job.label}: going on from {checkpoint.name}")
    elif job.is_main:
        shutil.rmtree(job.tensorboard, ignore_errors=True)
        tell_other_checkpoints(job)
    watch = Watch(job, steps_between_samples(trainer.args) if job.stage.method == "grpo" else 1)
    limit = 3600 * job.time_limit or None
    budget = Budget(f"stages.{job.name}", job.checkpoints / "ledger.json", limit, refuse=job.over_time == "refuse")
    # What is measured stands in the log before the others read it.
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
        say(f"{job.label}: stopped at step {step}; the next run goes on from there")
        sys.exit(128 + watch.stopped_by)
    return used | {
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        **summarise_steps(trainer.state.log_history, trainer.state.epoch),
        "effective_batch": trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps * job.processes,
        "budget": budget.describe(),
        "resumed_from": int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0,
        "parameters": count_parameters(trainer.model),
        "trainable_parameters": count_parameters(trainer.model, trained=True),
    }


def tell_other_checkpoints(job: Job) -> None:
    """Say that training begins anew although this stage has checkpoints: they are of something else."""
    others = [found for folder in job.checkpoints.parent.glob("*") if (found := newest_checkpoint(folder))]
    if others:
        say(
            f"{job.label}: begins anew: {others[-1]} was made with another configuration, parent, seed, number of "
            "processes or other rows"
        )


def load_finished(trainer: Trainer, checkpoint: Path) -> None:
    """Bring a checkpoint of the last step back without training: `Trainer.train` would go one step too far from it."""
    state = read_state(checkpoint)
    best = state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    if trainer.accelerator.distributed_type not in (DistributedType.DEEPSPEED, DistributedType.FSDP):
        trainer._load_from_checkpoint(best or str(checkpoint))
    trainer._prepare_for_training(state.max_steps, trainer.get_train_dataloader(), best or str(checkpoint))
    trainer.state = state


def save(trainer: Trainer, tokenizer: Any, job: Job, facts: dict[str, Any]) -> None:
    """Write the model, the table of the steps, and last the manifest; then the checkpoints have served."""
    facts |= save_model(trainer, tokenizer, job)
    if not job.is_main:
        return
    write_steps(job.steps, trainer.state.log_history)
    write_manifest(
        job.manifest,
        artefact="model",
        name=job.name,
        config=job.stage.part() | {"seed": job.seed, "dtype": job.dtype},
        inputs={"parent": job.parent, "train": job.train, "validation": job.validation},
        facts=facts,
    )
    keep_finished(job)


def check_processes(trainer: Trainer, job: Job) -> dict[str, Any]:
    """What training really uses: processes, strategy, attention. Libraries fall back to other ones in silence.

    Raises:
        UserError: they are not what was asked for.
    """
    accelerator = trainer.accelerator
    if accelerator.num_processes != job.processes:
        raise UserError(
            f"stages.{job.name}: {accelerator.num_processes} processes train together where {job.processes} were asked "
            "for; each would train a model of its own. See resources.train"
        )
    if trainer.args.n_gpu > 1:
        raise UserError(
            f"stages.{job.name}: one process sees {trainer.args.n_gpu} GPUs and would spread each batch over them; set "
            "resources.train.gpus to their number, or CUDA_VISIBLE_DEVICES to one of them"
        )
    strategy = "ddp"
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        strategy = f"zero{accelerator.state.deepspeed_plugin.zero_stage}"
    elif accelerator.distributed_type == DistributedType.FSDP:
        strategy = f"fsdp{accelerator.state.fsdp_plugin.fsdp_version}"
    if strategy != job.stage.strategy:
        raise UserError(
            f"stages.{job.name}.strategy: {job.stage.strategy} was asked for, and what would run is {strategy}"
            + ("; FSDP needs GPUs" if job.stage.strategy == "fsdp2" and job.device == "cpu" else "")
        )
    attention = accelerator.unwrap_model(trainer.model).config._attn_implementation
    return {"processes": accelerator.num_processes, "strategy": strategy, "attention": attention}


class Watch(TrainerCallback):
    """Says how far training is, and turns SIGTERM and Ctrl-C into a checkpoint.

    Args:
        job: the stage.
        every: steps after which a checkpoint may stand, or one between would not go on as it was.
    """

    def __init__(self, job: Job, every: int) -> None:
        self.job, self.every = job, every
        self.progress = Progress(job.label, 0, "steps")
        self.stopped_by: int | None = None
        self.pace = ""

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
            # A gradient that is not a number spoils the weights before the next loss shows it.
            for name in ("loss", "grad_norm"):
                if not math.isfinite(float(logs.get(name, 0.0))):
                    raise UserError(
                        f"stages.{self.job.name}: the {name} of step {state.global_step} is not a finite number; lower "
                        "learning_rate, or look at the rows. The last checkpoint is kept"
                    )
            pace = logs["tokens"] / logs["seconds"]
            self.pace = f"loss {float(logs['loss']):.3f}, {pace:,.0f} tokens/s"

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # What is not a number is found when it is logged, which comes before saving: no spoiled checkpoint is kept.
        control.should_log |= control.should_save

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.progress.total = state.max_steps  # the budget may have cut it
        if state.is_world_process_zero:
            self.progress.update(state.global_step, self.pace)
        # The signal that any of the processes got: they must stop after the same step, or one waits for ever.
        self.stopped_by = int(largest(self.stopped_by or 0, args.device)) or None
        if self.stopped_by is not None and state.global_step % self.every == 0:
            control.should_save = control.should_training_stop = True
        control.should_log |= control.should_save


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
        say(f"{job.label}: {lock.name} cannot be locked here; see that no second job trains")
    _held[path] = lock


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
