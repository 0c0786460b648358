"""Complete and incomplete checkpoints, the watch over training, and the facts of a finished stage."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from transformers import TrainerControl, TrainerState
from trl import GRPOConfig, SFTConfig

from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.train.arguments import make_arguments
from scripts.train.job import Job
from scripts.train.training_loop import Watch, fit, is_finished, newest_checkpoint, report_other_checkpoints
from tests.train.stages import make_job
from tests.train.test_meter import make_model


def _checkpoint(folder: Path, step: int, text: str | None = None, max_steps: int = 30) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    TrainerState(global_step=step, max_steps=max_steps).save_to_json(str(path / "trainer_state.json"))
    if text is not None:
        (path / "trainer_state.json").write_text(text)
    return path


def test_the_newest_complete_checkpoint_is_used(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None
    _checkpoint(tmp_path, 9)
    whole = _checkpoint(tmp_path, 10)  # sorted by number, not by name
    _checkpoint(tmp_path, 20, '{"global_step": 20, "max_st')
    _checkpoint(tmp_path, 25, "")
    (tmp_path / "checkpoint-30").mkdir()
    assert newest_checkpoint(tmp_path) == whole


def test_incomplete_checkpoints_alone_are_ignored(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 20, "{")
    assert newest_checkpoint(tmp_path) is None


def test_other_checkpoints_are_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = make_job(tmp_path)
    report_other_checkpoints(job)
    assert capfd.readouterr().err == ""
    other = _checkpoint(job.checkpoints.parent / "y", 7)
    report_other_checkpoints(job)
    changed = "another configuration, parent, seed, number of processes or training rows"
    assert capfd.readouterr().err == f"train_sft mine: starting from the beginning: {other} has {changed}\n"


def test_a_checkpoint_of_the_last_step_is_finished(tmp_path: Path) -> None:
    assert not is_finished(_checkpoint(tmp_path, 29))
    assert is_finished(_checkpoint(tmp_path, 30))


# --- the watch ----------------------------------------------------------------------------------


def _watch(folder: Path, every: int = 1) -> tuple[Watch, Any]:
    """The watch of a stage, and trainer arguments with its device."""
    return Watch(make_job(folder), every), SimpleNamespace(device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("logs", "name"),
    [
        ({"loss": float("nan"), "grad_norm": 1.0}, "loss"),
        ({"loss": 1.0, "grad_norm": float("inf")}, "grad_norm"),
        ({"loss": 1.0, "grad_norm": torch.tensor(float("nan"))}, "grad_norm"),
    ],
    ids=str,
)
def test_a_loss_or_gradient_norm_that_is_not_finite_ends_training(
    tmp_path: Path, logs: dict[str, Any], name: str
) -> None:
    watch, args = _watch(tmp_path)
    state = TrainerState(global_step=7)
    with pytest.raises(UserError, match=rf"^stages\.mine: the {name} of step 7 is not a finite number; lower"):
        watch.on_log(args, state, TrainerControl(), logs=logs | {"tokens": 500.0, "seconds": 2.0})


def test_loss_and_tokens_per_second_are_shown(tmp_path: Path) -> None:
    watch, args = _watch(tmp_path)
    logs = {"loss": "1.25", "grad_norm": 0.5, "tokens": 3000.0, "seconds": 2.0}
    watch.on_log(args, TrainerState(), TrainerControl(), logs=logs)
    watch.on_log(args, TrainerState(), TrainerControl(), logs={"eval_loss": float("nan")})
    assert watch.pace == "loss 1.250, 1,500 tokens/s"


def test_a_signal_stops_training_at_the_next_step_that_can_be_saved(tmp_path: Path) -> None:
    """GRPO samples answers for four steps at once, so training stops after step 8."""
    watch, args = _watch(tmp_path, every=4)
    watch.stopped_by = signal.SIGTERM
    stopped = []
    for step in range(5, 9):
        control = TrainerControl()
        watch.on_step_end(args, TrainerState(global_step=step, max_steps=20), control)
        stopped.append((control.should_save, control.should_training_stop, control.should_log))
    assert stopped == [(False,) * 3] * 3 + [(True,) * 3]


def test_a_step_that_is_saved_is_logged(tmp_path: Path) -> None:
    """Logging comes before saving, so a loss that is not finite is never saved."""
    watch, args = _watch(tmp_path)
    for event in (watch.on_step_end, watch.on_epoch_end):
        for saves in (True, False):
            control = TrainerControl(should_save=saves)
            event(args, TrainerState(global_step=1, max_steps=2), control)
            assert control.should_log is saves


# --- the facts ----------------------------------------------------------------------------------

STEPS = 6


class Loop:
    """The trainer's loop with its callbacks, without training. Six steps are one and a half epochs.

    Args:
        signalled: step during which SIGTERM arrives; 0 for none.
        processes: number of training processes.
    """

    def __init__(self, args: Any, signalled: int = 0, processes: int = 1) -> None:
        self.args, self.signalled = args, signalled
        self.model = make_model()
        self.model.get_input_embeddings().weight.requires_grad_(False)
        self.state, self.control = TrainerState(max_steps=STEPS), TrainerControl()
        kind = DistributedType.MULTI_CPU if processes > 1 else DistributedType.NO
        self.accelerator = SimpleNamespace(
            num_processes=processes, distributed_type=kind, unwrap_model=lambda model: model
        )
        self.callback_handler: Any = SimpleNamespace(callbacks=[])
        self.resumed: str | None = None

    def add_callback(self, callback: Any) -> None:
        self.callback_handler.callbacks.append(callback)

    def _notify(self, event: str, **more: Any) -> None:
        for callback in self.callback_handler.callbacks:
            getattr(callback, event)(self.args, self.state, self.control, lr_scheduler=None, **more)

    def train(self, resume_from_checkpoint: str | None) -> None:
        self.resumed = resume_from_checkpoint
        if resume_from_checkpoint:
            self.state.global_step = int(resume_from_checkpoint.rpartition("-")[2])
        self._notify("on_train_begin")
        while self.state.global_step < STEPS and not self.control.should_training_stop:
            self.state.global_step += 1
            self.state.epoch = self.state.global_step / 4
            if self.state.global_step == self.signalled:
                os.kill(os.getpid(), signal.SIGTERM)
            self._notify("on_step_end")
            logs = {"loss": 1.0}
            self.state.log_history.append(logs | {"step": self.state.global_step})
            self._notify("on_log", logs=logs)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restore the signal handlers after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _job(folder: Path, **fields: Any) -> Job:
    stage = {"args": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}}
    job = make_job(folder, **stage | fields.pop("stage", {}))
    job.__dict__.update(fields)
    return job


def _loop(job: Job, signalled: int = 0, processes: int = 1) -> Any:
    config: Any = GRPOConfig if job.stage.method == "grpo" else SFTConfig
    tokenizer = SimpleNamespace(eos_token="<|im_end|>")
    return Loop(make_arguments(config, job, tokenizer, False), signalled, processes)


@pytest.mark.usefixtures("handlers")
def test_the_facts_of_a_stage_of_two_processes(tmp_path: Path) -> None:
    """Each process accumulates three batches of four. The time limit is half an hour."""
    job = _job(tmp_path, processes=2, time_limit=0.5)
    trainer = _loop(job, processes=2)
    facts = fit(trainer, job)
    assert trainer.resumed is None and facts["resumed_from"] == 0
    assert facts["effective_batch"] == 4 * 3 * 2
    assert (facts["processes"], facts["strategy"], facts["attention"]) == (2, "ddp", "sdpa")
    assert (facts["steps"], facts["epochs"], facts["tokens"]) == (6, 1.5, 0)
    assert facts["seconds_per_epoch"] == pytest.approx(facts["train_seconds"] / 1.5, abs=0.1)
    total = sum(weights.numel() for weights in trainer.model.parameters())
    assert (facts["parameters"], facts["trainable_parameters"]) == (total, total - 20 * 8)
    assert facts["budget"]["limit_seconds"] == 1_800
    ledger = read_json(job.checkpoints / "ledger.json")
    assert ledger | {"limit_seconds": 1_800.0} == facts["budget"] and ledger["attempts"] == 1


@pytest.mark.usefixtures("handlers")
def test_seconds_per_epoch_are_averaged_over_all_steps(tmp_path: Path) -> None:
    job = _job(tmp_path)
    trainer = _loop(job)
    trainer.state.log_history = [{"step": 1, "loss": 1.0, "seconds": 90.0, "tokens": 4_500.0, "memory_gb": 0.5}]
    facts = fit(trainer, job)
    assert facts["seconds_per_epoch"] == pytest.approx(60, abs=1)
    assert facts["tokens"] == 4_500 and facts["budget"]["limit_seconds"] is None


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("over_time", ["fit", "refuse"])
def test_over_time_decides_whether_the_budget_refuses(tmp_path: Path, over_time: str) -> None:
    job = _job(tmp_path, over_time=over_time, time_limit=1.0)
    trainer = _loop(job)
    fit(trainer, job)
    *_, budget = trainer.callback_handler.callbacks
    assert budget.refuse is (over_time == "refuse")


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("method", "stopped"), [("sft", 2), ("grpo", 4)])
def test_a_signal_ends_the_process_with_its_number(tmp_path: Path, method: str, stopped: int) -> None:
    """GRPO samples answers for four steps at once."""
    args = {"num_generations": 2, "steps_per_generation": 4} if method == "grpo" else {}
    job = _job(tmp_path, stage={"method": method, "args": args | {"per_device_train_batch_size": 4}})
    trainer = _loop(job, signalled=2)
    with pytest.raises(SystemExit) as ended:
        fit(trainer, job)
    assert ended.value.code == 128 + signal.SIGTERM
    assert trainer.state.global_step == stopped and trainer.control.should_save


@pytest.mark.usefixtures("handlers")
def test_a_signal_in_the_last_step_does_not_interrupt_the_stage(tmp_path: Path) -> None:
    job = _job(tmp_path)
    assert fit(_loop(job, signalled=STEPS), job)["steps"] == STEPS


@pytest.mark.usefixtures("handlers")
def test_a_stage_resumes_from_its_newest_checkpoint(tmp_path: Path) -> None:
    job = _job(tmp_path)
    checkpoint = _checkpoint(job.checkpoints, 2)
    trainer = _loop(job)
    facts = fit(trainer, job)
    assert trainer.resumed == str(checkpoint)
    assert (facts["resumed_from"], facts["steps"]) == (2, STEPS)


@pytest.mark.parametrize("processes", [1, 3])
def test_another_number_of_processes_than_requested_is_refused(tmp_path: Path, processes: int) -> None:
    job = _job(tmp_path, processes=2)
    with pytest.raises(
        UserError, match=rf"^stages\.mine: {processes} processes train together, but resources.train requests 2"
    ):
        fit(_loop(job, processes=processes), job)


def test_another_strategy_than_requested_is_refused(tmp_path: Path) -> None:
    job = _job(tmp_path, stage={"strategy": "fsdp2"})
    trainer = Loop(make_arguments(SFTConfig, _job(tmp_path), SimpleNamespace(eos_token="<|im_end|>"), False))
    with pytest.raises(UserError, match=r"fsdp2 was requested, but ddp would run; FSDP needs GPUs$"):
        fit(trainer, job)
