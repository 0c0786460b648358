"""Keep a stage within its time, over all attempts at it.

The seconds of every attempt are added up in a ledger beside the checkpoints. After a few steps the end is projected
from their pace. A stage that would not end in time is refused, or its schedule is cut: the steps that are left fit the
time that is left, and the learning rate passes through the rest of its course in them, so that it comes to its end.
"""

import math
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from scripts.common.console import say
from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json
from scripts.train.processes import largest

MEASURED = 5
"""Steps whose median time tells the pace; the one before them is left out, since it warms up."""

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
        cut_at: step at which the schedule was cut; None while it is whole.
        steps: steps after the cut.
    """

    seconds: float = 0.0
    attempts: int = 0
    planned: int = 0
    cut_at: int | None = None
    steps: int | None = None

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
        self.started = self.last_step = self.last_entry = time.monotonic()
        self.paces: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.ledger.planned = self.ledger.planned or state.max_steps
        if self.ledger.cut_at is not None and self.ledger.steps is not None:
            self._apply(state, kwargs["lr_scheduler"], self.ledger.cut_at, self.ledger.steps)
        self.last_step = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now = time.monotonic()
        self.paces.append(now - self.last_step)
        self.last_step = now
        self.ledger.seconds = self.before + now - self.started
        if state.is_world_process_zero and now - self.last_entry > BETWEEN_ENTRIES:
            self.last_entry = now
            self.write()
        if self.limit is not None and len(self.paces) > MEASURED:
            self._keep(self.limit, args, state, kwargs["lr_scheduler"])

    def _keep(self, limit: float, args: TrainingArguments, state: TrainerState, scheduler: LRScheduler) -> None:
        """Cut the schedule when the steps that are left take longer than the time that is left."""
        # Every process decides by the slowest of them, or they would stop at different steps.
        pace = largest(statistics.median(self.paces[-MEASURED:]), args.device)
        left = limit * (1 - RESERVE) - largest(self.ledger.seconds, args.device)
        fitting = max(0, math.floor(left / pace))
        if state.global_step + fitting >= state.max_steps:
            return
        if self.refuse:
            needed = self.ledger.seconds + pace * (state.max_steps - state.global_step)
            raise UserError(
                f"{self.label}: {state.max_steps} steps take about {needed / 3600:.2f} h, and time_limit is "
                f"{limit / 3600:.2f} h; train for fewer steps, raise time_limit, or set over_time to fit"
            )
        if self.ledger.cut_at is None:
            self._cut(state, scheduler, state.global_step + fitting)
        elif not fitting:
            state.max_steps = state.global_step

    def _cut(self, state: TrainerState, scheduler: LRScheduler, steps: int) -> None:
        # A little less than what fits, so that the pace may vary without a second cut.
        self.ledger.cut_at = state.global_step
        self.ledger.steps = max(state.global_step + 1, math.floor(0.95 * steps))
        say(
            f"{self.label}: {self.ledger.planned} steps do not fit the time limit; the schedule now ends at step "
            f"{self.ledger.steps}"
        )
        if state.is_world_process_zero:
            self.write()
        self._apply(state, scheduler, self.ledger.cut_at, self.ledger.steps)

    def _apply(self, state: TrainerState, scheduler: LRScheduler, cut_at: int, steps: int) -> None:
        """End at `steps`, and run through what is left of the learning rate's course until then."""
        state.max_steps = steps
        scheduler = getattr(scheduler, "scheduler", scheduler)  # DeepSpeed's wrapper
        if not isinstance(scheduler, LambdaLR):
            return  # it does not follow the number of steps
        stretch = (self.ledger.planned - cut_at) / max(1, steps - cut_at)
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
