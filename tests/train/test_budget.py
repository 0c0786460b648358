"""A stage keeps its time limit over several attempts: the schedule is cut, and the learning rate reaches its end."""

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
from scripts.common.files import read_json, write_json
from scripts.train import budget as budget_module
from scripts.train.budget import Budget


class Clock:
    """A clock that tests advance."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Attempt:
    """One attempt at a stage of 100 steps with a cosine schedule: the trainer's loop without a model."""

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
        self.control = TrainerControl()
        self._notify("on_train_begin")

    def _notify(self, event: str) -> None:
        getattr(self.budget, event)(self.args, self.state, self.control, lr_scheduler=self.scheduler)

    def step(self, seconds: float) -> float:
        """One step. Returns the learning rate after it."""
        self.clock.now += seconds
        self.scheduler.step()
        self.state.global_step += 1
        self._notify("on_step_end")
        return float(self.scheduler.get_last_lr()[0])

    def run(self, seconds_a_step: float, most: int = 1000) -> list[float]:
        """Step to the end, at most `most` times. Returns the learning rate after each step."""
        rates: list[float] = []
        while self.state.global_step < self.state.max_steps and len(rates) < most:
            rates.append(self.step(seconds_a_step))
        self.budget.write()
        return rates


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def test_a_stage_that_fits_is_unchanged(tmp_path: Path, clock: Clock) -> None:
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
    assert rates[-1] == pytest.approx(0, abs=1e-3), "the learning rate reaches its end"
    assert all(later <= earlier for earlier, later in pairwise(rates))


def test_the_cut_keeps_the_steps_that_fit(tmp_path: Path, clock: Clock) -> None:
    """After twelve steps of one second, 45 seconds remain of 95 % of a minute: the schedule ends at step 57."""
    attempt = Attempt(tmp_path / "ledger.json", 60.0, clock)
    assert len(attempt.run(1.0)) == 57
    ledger = read_json(tmp_path / "ledger.json")
    assert (ledger["cuts"], ledger["planned"], ledger["stopped"]) == ([[12, 57]], 100, False)
    assert attempt.budget.describe() == ledger | {"limit_seconds": 60.0}


def test_slow_first_steps_do_not_affect_the_pace(tmp_path: Path, clock: Clock) -> None:
    """Two steps of 20 seconds and 98 steps of one second take 138 of the 142.5 seconds."""
    attempt = Attempt(tmp_path / "ledger.json", 150.0, clock)
    attempt.run(20.0, most=2)
    attempt.run(1.0)
    assert attempt.state.global_step == 100
    assert read_json(tmp_path / "ledger.json")["cuts"] == []


@pytest.mark.parametrize(("limit", "cuts"), [(101.0, []), (100.8, [[12, 95]])])
def test_a_slightly_long_schedule_is_not_cut_yet(
    tmp_path: Path, clock: Clock, limit: float, cuts: list[list[int]]
) -> None:
    """After twelve steps, 88 seconds are needed. With 5 % slack, 88.1 or 87.9 seconds remain."""
    attempt = Attempt(tmp_path / "ledger.json", limit, clock)
    attempt.run(1.0, most=12)
    assert read_json(tmp_path / "ledger.json")["cuts"] == cuts


def test_a_step_that_would_exceed_the_limit_is_not_started(tmp_path: Path, clock: Clock) -> None:
    """After eight steps of seven seconds, a ninth would end at 63, beyond the minute."""
    attempt = Attempt(tmp_path / "ledger.json", 60.0, clock)
    assert len(attempt.run(7.0)) == 8 and clock.now - 1000 == 56
    assert attempt.state.max_steps == attempt.state.global_step == 8
    assert attempt.control.should_save and attempt.control.should_training_stop
    ledger = read_json(tmp_path / "ledger.json")
    assert (ledger["stopped"], ledger["seconds"], ledger["planned"]) == (True, 56.0, 100)


def test_the_last_step_does_not_stop_the_stage_early(tmp_path: Path, clock: Clock) -> None:
    """The last step uses up the limit, and no step follows."""
    attempt = Attempt(tmp_path / "ledger.json", 100.0, clock, done=99)
    attempt.run(100.0)
    assert not attempt.budget.ledger.stopped and not attempt.control.should_training_stop


def test_the_ledger_is_written_every_ten_seconds(tmp_path: Path, clock: Clock) -> None:
    """A killed attempt leaves the seconds of its last update, and the next attempt adds to them."""
    path = tmp_path / "ledger.json"
    attempt = Attempt(path, None, clock)
    entered = []
    for _ in range(5):
        attempt.step(6.0)
        entered.append(read_json(path)["seconds"] if path.exists() else None)
    assert entered == [None, 12.0, 12.0, 24.0, 24.0]
    assert Attempt(path, None, clock).budget.describe()["seconds"] == 24.0


def test_only_the_main_process_writes_the_ledger(tmp_path: Path, clock: Clock) -> None:
    """Other processes make the same cut and write nothing."""
    attempt = Attempt(tmp_path / "ledger.json", 60.0, clock)
    attempt.state.is_world_process_zero = False
    for _ in range(12):
        attempt.step(1.0)
    assert attempt.state.max_steps == 57
    attempt.step(45.0)
    assert attempt.budget.ledger.stopped and not list(tmp_path.iterdir())


def test_a_resumed_stage_reapplies_all_its_cuts(tmp_path: Path, clock: Clock) -> None:
    """Cut at step 10 to end at 60, and at step 30 to end at 50.

    The second cut compresses 30 steps into 20, so step 45 is step 52.5 of the first cut's schedule. The first cut
    compresses 90 steps into 50, so 52.5 is step 86.5 of the original schedule. Step 50 is step 60, and so step 100.
    """
    path = tmp_path / "ledger.json"
    write_json(path, {"seconds": 5.0, "attempts": 1, "planned": 100, "cuts": [[10, 60], [30, 50]], "stopped": False})
    attempt = Attempt(path, None, clock, done=40)
    assert attempt.state.max_steps == 50
    rates = attempt.run(1.0)
    assert len(rates) == 10 and rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates[4] == pytest.approx((1 + math.cos(math.pi * 0.865)) / 2)


def test_a_second_attempt_has_the_learning_rates_of_an_unbroken_one(tmp_path: Path, clock: Clock) -> None:
    """Slower steps cut the schedule several times. After a restart the learning rate continues without a jump."""
    unbroken = Attempt(tmp_path / "unbroken.json", 60.0, clock)
    unbroken.run(1.0, most=14)
    unbroken.run(2.0, most=14)
    assert len(unbroken.budget.ledger.cuts) > 2
    second = Attempt(tmp_path / "unbroken.json", None, clock, done=28)
    assert second.state.max_steps == unbroken.state.max_steps
    assert second.step(1.0) == pytest.approx(unbroken.step(1.0))


def test_a_second_attempt_keeps_the_cut_and_the_time(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "ledger.json"
    Attempt(path, 60.0, clock).run(1.0, most=20)
    clock.now += 500  # time in the queue
    second = Attempt(path, 60.0, clock, done=20)
    rates = second.run(1.0)
    ledger = read_json(path)
    assert ledger["attempts"] == 2
    assert 45 <= second.state.global_step <= 57
    assert ledger["seconds"] == pytest.approx(second.state.global_step)
    assert ledger["seconds"] <= 60 and rates[-1] == pytest.approx(0, abs=1e-3)


def test_slower_steps_cut_the_schedule_again(tmp_path: Path, clock: Clock) -> None:
    attempt = Attempt(tmp_path / "ledger.json", 60.0, clock)
    attempt.run(1.0, most=20)
    rates = attempt.run(2.0)
    ledger = read_json(tmp_path / "ledger.json")
    assert clock.now - 1000 <= 60 and len(ledger["cuts"]) > 1
    assert ledger["stopped"] or rates[-1] == pytest.approx(0, abs=1e-3)


def test_very_slow_steps_end_training_before_the_limit(tmp_path: Path, clock: Clock) -> None:
    attempt = Attempt(tmp_path / "ledger.json", 60.0, clock)
    attempt.run(1.0, most=40)
    attempt.run(9.0)
    assert clock.now - 1000 <= 60 + 9


def test_a_few_slow_steps_do_not_cut_the_schedule(tmp_path: Path, clock: Clock) -> None:
    """There is twice the time needed, and a few slow steps, such as evaluations, use some of it."""
    attempt = Attempt(tmp_path / "ledger.json", 200.0, clock)
    attempt.run(1.0, most=50)
    attempt.run(8.0, most=5)
    attempt.run(1.0)
    assert attempt.state.global_step == 100
    assert read_json(tmp_path / "ledger.json")["cuts"] == []


def test_refuse_ends_the_stage_with_an_error(tmp_path: Path, clock: Clock) -> None:
    attempt = Attempt(tmp_path / "ledger.json", 60.0, clock, refuse=True)
    with pytest.raises(UserError, match=r"stages\.mine: 100 steps take about 0\.03 h, and time_limit is 0\.02 h"):
        attempt.run(1.0)
    assert attempt.state.global_step == budget_module.WARM_UP + budget_module.MEASURED


def test_refuse_applies_only_to_the_first_prediction(tmp_path: Path, clock: Clock) -> None:
    """If steps become slower after that, the stage trains until the limit."""
    attempt = Attempt(tmp_path / "ledger.json", 120.0, clock, refuse=True)
    attempt.run(1.0, most=12)
    attempt.run(3.0)
    assert 12 < attempt.state.global_step < 100
    assert attempt.budget.ledger.stopped and attempt.budget.ledger.cuts == []
    assert clock.now - 1000 <= 120


def test_without_a_limit_nothing_is_cut(tmp_path: Path, clock: Clock) -> None:
    attempt = Attempt(tmp_path / "ledger.json", None, clock)
    assert len(attempt.run(1e6)) == 100


def test_a_compressed_schedule_continues_without_a_jump() -> None:
    def schedule(step: float) -> Any:
        return math.cos(step / 100)

    compressed = budget_module._compress(schedule, 10, 3.0)
    assert [compressed(step) for step in (0, 10)] == [schedule(0), schedule(10)]
    assert compressed(20) == schedule(40)
