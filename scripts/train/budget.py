"""Keep a stage within its time, over all attempts at it.

The seconds of every attempt are added up in a ledger beside the checkpoints. After a few steps the end is projected
from their pace. A stage that would not end in time is refused, or its schedule is cut: the steps that are left fit the
time that is left, and the learning rate passes through the rest of its course in them, so that it comes to its end.
"""

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from scripts.common.console import say
from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json
from scripts.train.processes import largest

WARM_UP = 2
"""First steps of an attempt, which tell nothing about the pace."""

MEASURED = 10
"""Steps after them that must be known before the end is projected."""

SLACK = 0.05
"""Share by which a projected end may lie beyond the limit before the schedule is cut: paces vary."""

RESERVE = 0.05
"""Share of the limit that is kept for saving and evaluating."""

BETWEEN_ENTRIES = 10.0
"""Seconds between two entries in the ledger: a killed attempt's last ones are not counted."""


@dataclass
class Ledger:
    """What a stage has used of its time.

    Args:
        seconds: of all attempts together.
        attempts: how many there were.
        planned: steps of the whole schedule.
        cuts: (step at which the schedule was cut, step at which it then ended), the first cut first.
        stopped: the limit was reached before the schedule's end.
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
    """Watches a stage's time.

    Args:
        label: the stage, for messages.
        path: the ledger.
        limit: seconds for all attempts together; None for no limit.
        refuse: end with an error where the schedule would have to be cut.
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
        # Every process decides by the slowest of them, or they would stop at different steps.
        used = largest(self.ledger.seconds, args.device)
        measured = self.steps - WARM_UP
        pace = largest((now - self.measured_from) / max(1, measured), args.device)
        if used + pace > self.limit * (1 - RESERVE / 2):
            self._stop(state, control)
        elif measured == MEASURED or (measured > MEASURED and not self.refuse):
            self._project(self.limit, used, pace, state, kwargs["lr_scheduler"])

    def _project(self, limit: float, used: float, pace: float, state: TrainerState, scheduler: LRScheduler) -> None:
        """Refuse, or cut the schedule, when the steps that are left take longer than the time that is left.

        The pace is the mean since the warm-up, so evaluations and saves count, and a few slow steps do not decide.
        """
        left = limit * (1 - RESERVE) - used
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
        """End here: the next step would not fit."""
        self.ledger.stopped = True
        say(f"{self.label}: the time limit is reached; training ends at step {state.global_step} of {state.max_steps}")
        state.max_steps = state.global_step
        control.should_save = control.should_training_stop = True
        if state.is_world_process_zero:
            self.write()  # the checkpoint that comes now stands at the last step: its end must be known

    def _apply(self, state: TrainerState, scheduler: LRScheduler, cut_at: int, end: int) -> None:
        """End at the step `end`, and run through what is left of the learning rate's course until then."""
        stretch = (state.max_steps - cut_at) / max(1, end - cut_at)
        state.max_steps = end
        scheduler = getattr(scheduler, "scheduler", scheduler)  # DeepSpeed's wrapper
        if isinstance(scheduler, LambdaLR):  # others do not follow the number of steps
            for place, course in enumerate(scheduler.lr_lambdas):
                scheduler.lr_lambdas[place] = _hasten(course, cut_at, stretch)

    def write(self) -> None:
        """Enter the seconds so far."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.ledger.seconds = self.before + time.monotonic() - self.started
        write_json(self.path, asdict(self.ledger))

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return asdict(self.ledger) | {"limit_seconds": self.limit}


def _hasten(course: Any, cut_at: int, stretch: float) -> Any:
    """The course of a learning rate that goes `stretch` times as fast from a step on."""
    return lambda step: course(step if step <= cut_at else cut_at + (step - cut_at) * stretch)
