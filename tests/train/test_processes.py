"""Values that training processes must agree on, in two processes forked from this one."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from scripts.train.meter import Meter
from scripts.train.processes import add_up, largest
from scripts.train.training_loop import Watch
from tests.train.stages import make_job
from tests.train.test_budget import Attempt, Clock
from tests.train.test_meter import make_model

CPU = torch.device("cpu")


def _run_two(folder: Path, work: Callable[[int], Any]) -> list[Any]:
    """The results of `work` in two processes, by rank."""
    context = multiprocessing.get_context("fork")
    running = []
    for rank in range(2):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_join, args=(f"file://{folder / 'meeting'}", rank, work, theirs))
        process.start()
        theirs.close()
        running.append((process, ours))
    given = [ours.recv() if ours.poll(60) else None for _, ours in running]
    for process, _ in running:
        process.join(timeout=10)
        process.kill()
    assert [process.exitcode for process, _ in running] == [0, 0]
    return given


def _join(meeting: str, rank: int, work: Callable[[int], Any], answer: Connection) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    answer.send(work(rank))
    torch.distributed.destroy_process_group()


def test_one_process_keeps_its_values() -> None:
    assert (largest(3.0, CPU), add_up(3.0, CPU)) == (3.0, 3.0)


def test_largest_and_sum_cover_all_processes(tmp_path: Path) -> None:
    def work(rank: int) -> tuple[float, float]:
        return largest(5.0 - rank, CPU), add_up(5.0 - rank, CPU)

    assert _run_two(tmp_path, work) == [(5.0, 9.0)] * 2


def test_all_processes_cut_their_schedule_for_the_slowest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps take 2 seconds in the first process and 1 in the other. After twelve steps, 90 of 114 seconds (95 % of the
    limit) remain for the first process: time for 45 more.
    """
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)

    def work(rank: int) -> tuple[list[list[int]], int]:
        attempt = Attempt(tmp_path / f"{rank}.json", 120.0, clock)
        attempt.run(2.0 - rank)
        return attempt.budget.ledger.cuts, attempt.state.global_step

    assert _run_two(tmp_path, work) == [([[12, 57]], 57)] * 2


def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path: Path) -> None:
    job = make_job(tmp_path)

    def work(rank: int) -> tuple[bool, bool, int | None]:
        watch, control = Watch(job, 1), TrainerControl()
        watch.stopped_by = 15 if rank else None
        args: Any = SimpleNamespace(device=CPU)
        watch.on_step_end(args, TrainerState(global_step=3, max_steps=9, is_world_process_zero=not rank), control)
        return control.should_save, control.should_training_stop, watch.stopped_by

    assert _run_two(tmp_path, work) == [(True, True, 15)] * 2


def test_tokens_of_all_processes_add_up_and_the_slowest_gives_the_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process counts 10 tokens in 2 seconds, the other 20 in 3."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    accelerator = SimpleNamespace(unwrap_model=lambda model: model)
    trainer: Any = SimpleNamespace(accelerator=accelerator, model=make_model(), args=SimpleNamespace(device=CPU))
    meter = Meter(trainer)
    monkeypatch.setattr(meter, "peak", 1e9)

    def work(rank: int) -> dict[str, float]:
        meter.tokens += 10 * (rank + 1)
        meter.flops += 1e9 * (rank + 1)
        clock.now += 2.0 + rank
        state, args = TrainerState(log_history=[{}]), SimpleNamespace(world_size=2)
        meter.on_log(args, state, TrainerControl(), logs={"loss": 1.0})
        return {name: state.log_history[-1][name] for name in ("seconds", "tokens", "flops", "mfu")}

    assert _run_two(tmp_path, work) == [{"seconds": 3.0, "tokens": 30.0, "flops": 3e9, "mfu": 0.5}] * 2
