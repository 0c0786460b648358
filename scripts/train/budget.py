"""Keep a stage within its time limit, over all attempts.

A ledger next to the checkpoints adds up the seconds of every attempt. After a few steps their pace predicts the end. A
stage that would exceed the limit is refused, or its schedule is cut: fewer steps remain, which fit the remaining time,
and the learning rate schedule is compressed into them, so that it still reaches its end.
"""

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from scripts.common.config.stage import USABLE_TIME
from scripts.common.console import say
from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json
from scripts.common.records import BudgetFacts
from scripts.train.processes import largest

WARM_UP = 2
"""First steps of an attempt, which are too slow to predict the pace."""

MEASURED = 10
"""Steps measured after the warm-up before the end is predicted."""

SLACK = 0.05
"""Share by which the predicted time may exceed the limit before the schedule is cut, since the pace varies."""

BETWEEN_ENTRIES = 10.0
"""Seconds between updates of the ledger. A killed attempt loses at most these."""


@dataclass
class Ledger:
    """The time that a stage has used.

    Args:
        seconds: total of all attempts.
        attempts: number of attempts.
        planned: steps of the original schedule.
        cuts: for each cut in order, the step at which the schedule was cut and its new last step.
        stopped: the limit was reached before the end of the schedule.
    """

    seconds: float = 0.0
    attempts: int = 0
    planned: int = 0
    cuts: list[list[int]] = field(default_factory=list)
    stopped: bool = False

    @classmethod
    def read(cls, path: Path) -> "Ledger":
        """The ledger of earlier attempts, or a new one."""
        return cls(**read_json(path)) if path.is_file() else cls()


class Budget(TrainerCallback):
    """Keeps a stage within its time limit.

    Args:
        label: name of the stage in messages.
        path: the ledger.
        limit: seconds for all attempts together; None for no limit.
        refuse: raise an error instead of cutting the schedule.
    """

    def __init__(self, label: str, path: Path, limit: float | None, refuse: bool) -> None:
        self.label, self.path, self.limit, self.refuse = label, path, limit, refuse
        self.ledger = Ledger.read(path)
        self.before = self.ledger.seconds
        self.ledger.attempts += 1
        self.started = self.last_entry = time.monotonic()
        self.steps = 0
        self.measured_from = self.started

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.ledger.planned = self.ledger.planned or state.max_steps
        for cut_at, end in self.ledger.cuts:
            self._apply(state, kwargs["lr_scheduler"], cut_at, end)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now = time.monotonic()
        self.steps += 1
        if self.steps == WARM_UP:
            self.measured_from = now
        self.ledger.seconds = self.before + now - self.started
        if state.is_world_process_zero and now - self.last_entry > BETWEEN_ENTRIES:
            self.last_entry = now
            self.write()
        if self.limit is None or state.global_step >= state.max_steps:
            return
        # All processes use the slowest one's times, or they would stop at different steps.
        used = largest(self.ledger.seconds, args.device)
        measured = self.steps - WARM_UP
        pace = largest((now - self.measured_from) / max(1, measured), args.device)
        if used + pace > self.limit * (1 + USABLE_TIME) / 2:
            self._stop(state, control)
        elif measured == MEASURED or (measured > MEASURED and not self.refuse):
            self._project(self.limit, used, pace, state, kwargs["lr_scheduler"])

    def _project(self, limit: float, used: float, pace: float, state: TrainerState, scheduler: LRScheduler) -> None:
        """Refuse the stage or cut the schedule if the remaining steps take longer than the remaining time.

        The pace is the mean since the warm-up. It includes evaluations and saves, and averages out a few slow steps.
        """
        left = limit * USABLE_TIME - used
        needed = pace * (state.max_steps - state.global_step)
        if needed <= left * (1 + SLACK):
            return
        if self.refuse:
            raise UserError(
                f"{self.label}: {state.max_steps} steps take about {(used + needed) / 3600:.2f} h, and time_limit is "
                f"{limit / 3600:.2f} h; train for fewer steps, raise time_limit, or set over_time to fit"
            )
        end = state.global_step + max(1, math.floor(left / pace))
        self.ledger.cuts.append([state.global_step, end])
        say(f"{self.label}: {state.max_steps} steps do not fit the time limit; the schedule now ends at step {end}")
        if state.is_world_process_zero:
            self.write()
        self._apply(state, scheduler, state.global_step, end)

    def _stop(self, state: TrainerState, control: TrainerControl) -> None:
        """End training: the next step would exceed the limit."""
        self.ledger.stopped = True
        say(f"{self.label}: the time limit is reached; training ends at step {state.global_step} of {state.max_steps}")
        state.max_steps = state.global_step
        control.should_save = control.should_training_stop = True
        if state.is_world_process_zero:
            self.write()  # the checkpoint that follows is final, so its ledger must be complete

    def _apply(self, state: TrainerState, scheduler: LRScheduler, cut_at: int, end: int) -> None:
        """End at the step `end`, and compress the rest of the learning rate schedule into the steps until then."""
        stretch = (state.max_steps - cut_at) / max(1, end - cut_at)
        state.max_steps = end
        scheduler = getattr(scheduler, "scheduler", scheduler)  # DeepSpeed's wrapper
        if isinstance(scheduler, LambdaLR):  # other schedulers do not depend on the number of steps
            for place, schedule in enumerate(scheduler.lr_lambdas):
                scheduler.lr_lambdas[place] = _compress(schedule, cut_at, stretch)

    def write(self) -> None:
        """Write the ledger with the seconds so far."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.ledger.seconds = self.before + time.monotonic() - self.started
        write_json(self.path, asdict(self.ledger))

    def describe(self) -> BudgetFacts:
        """The facts for the manifest."""
        return {
            "seconds": self.ledger.seconds,
            "attempts": self.ledger.attempts,
            "planned": self.ledger.planned,
            "cuts": self.ledger.cuts,
            "stopped": self.ledger.stopped,
            "limit_seconds": self.limit,
        }


def _compress(schedule: Any, cut_at: int, stretch: float) -> Any:
    """A learning rate schedule that runs `stretch` times as fast after the step `cut_at`."""
    return lambda step: schedule(step if step <= cut_at else cut_at + (step - cut_at) * stretch)
