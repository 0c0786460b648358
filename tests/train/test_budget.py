"""A stage keeps its time: the schedule is cut so that the learning rate comes to its end, over several attempts."""

import math
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerControl, TrainerState, TrainingArguments, get_scheduler

from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.train import budget as budget_module
from scripts.train.budget import Budget


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Attempt:
    """One attempt at a stage of 100 steps with a cosine course: the trainer's loop around the budget, and no model."""

    def __init__(self, path: Path, limit: float | None, clock: Clock, refuse: bool = False, done: int = 0) -> None:
        self.clock = clock
        self.budget = Budget("stages.mine", path, limit, refuse)
        self.state = TrainerState(max_steps=100, global_step=done, is_world_process_zero=True)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=0, num_training_steps=100)
        assert isinstance(scheduler, LambdaLR)
        self.scheduler = scheduler
        scheduler.last_epoch = done
        self.args = TrainingArguments(output_dir=str(path.parent), use_cpu=True, report_to=[])
        self._tell("on_train_begin")

    def _tell(self, event: str) -> None:
        getattr(self.budget, event)(self.args, self.state, TrainerControl(), lr_scheduler=self.scheduler)

    def run(self, seconds_a_step: float, most: int = 1000) -> list[float]:
        """Step until the end, or at most so many times; gives the learning rate after each step."""
        rates: list[float] = []
        while self.state.global_step < self.state.max_steps and len(rates) < most:
            self.clock.now += seconds_a_step
            self.scheduler.step()
            self.state.global_step += 1
            rates.append(self.scheduler.get_last_lr()[0])
            self._tell("on_step_end")
        self.budget.write()
        return rates


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def test_a_stage_that_fits_is_left_alone(tmp_path: Path, clock: Clock) -> None:
    attempt = Attempt(tmp_path / "ledger.json", 200.0, clock)
    rates = attempt.run(1.0)
    assert len(rates) == 100 and rates[49] == pytest.approx(0.5, abs=0.02)
    assert read_json(tmp_path / "ledger.json") == {
        "seconds": 100.0, "attempts": 1, "planned": 100, "cuts": [], "stopped": False,
    }  # fmt: skip


def test_the_schedule_is_cut_to_fit(tmp_path: Path, clock: Clock) -> None:
    attempt = Attempt(tmp_path / "ledger.json", 60.0, clock)
    rates = attempt.run(1.0)
    assert 45 <= len(rates) <= 57
    assert clock.now - 1000 <= 60
    assert rates[-1] == pytest.approx(0, abs=1e-3), "the learning rate comes to its end"
    assert all(later <= earlier for earlier, later in pairwise(rates))


def test_a_second_attempt_keeps_the_cut_and_the_time(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "ledger.json"
    Attempt(path, 60.0, clock).run(1.0, most=20)
    clock.now += 500  # in the queue
    second = Attempt(path, 60.0, clock, done=20)
    rates = second.run(1.0)
    ledger = read_json(path)
    assert ledger["attempts"] == 2
    assert 45 <= second.state.global_step <= 57
    assert ledger["seconds"] == pytest.approx(second.state.global_step)
    assert ledger["seconds"] <= 60 and rates[-1] == pytest.approx(0, abs=1e-3)


def test_slower_steps_after_the_cut_cut_it_again(tmp_path: Path, clock: Clock) -> None:
    attempt = Attempt(tmp_path / "ledger.json", 60.0, clock)
    attempt.run(1.0, most=20)
    rates = attempt.run(2.0)
    ledger = read_json(tmp_path / "ledger.json")
    assert clock.now - 1000 <= 60 and len(ledger["cuts"]) > 1
    assert ledger["stopped"] or rates[-1] == pytest.approx(0, abs=1e-3)


def test_steps_that_become_very_slow_end_before_the_limit(tmp_path: Path, clock: Clock) -> None:
    attempt = Attempt(tmp_path / "ledger.json", 60.0, clock)
    attempt.run(1.0, most=40)
    attempt.run(9.0)
    assert clock.now - 1000 <= 60 + 9


def test_a_few_slow_steps_cut_nothing(tmp_path: Path, clock: Clock) -> None:
    """Twice the time that is needed is left, and an evaluation or two take their share."""
    attempt = Attempt(tmp_path / "ledger.json", 200.0, clock)
    attempt.run(1.0, most=50)
    attempt.run(8.0, most=5)
    attempt.run(1.0)
    assert attempt.state.global_step == 100
    assert read_json(tmp_path / "ledger.json")["cuts"] == []


def test_refuses_when_asked_to(tmp_path: Path, clock: Clock) -> None:
    attempt = Attempt(tmp_path / "ledger.json", 60.0, clock, refuse=True)
    with pytest.raises(UserError, match=r"stages\.mine: 100 steps take about 0\.03 h, and time_limit is 0\.02 h"):
        attempt.run(1.0)
    assert attempt.state.global_step == budget_module.WARM_UP + budget_module.MEASURED


def test_no_limit_is_no_limit(tmp_path: Path, clock: Clock) -> None:
    attempt = Attempt(tmp_path / "ledger.json", None, clock)
    assert len(attempt.run(1e6)) == 100


def test_a_course_that_is_hastened_starts_where_it_was() -> None:
    def course(step: float) -> Any:
        return math.cos(step / 100)

    hastened = budget_module._hasten(course, 10, 3.0)
    assert [hastened(step) for step in (0, 10)] == [course(0), course(10)]
    assert hastened(20) == course(40)
