"""What really runs is what was asked for: processes and strategy; and DeepSpeed learns what one process learns."""

from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from scripts.common.files import read_json
from tests.common.running import call_main
from tests.train.forked import read_output, run_stage, start_stage
from tests.train.stages import method_options, read_losses

pytestmark = pytest.mark.slow


def _section(**stage: Any) -> dict[str, Any]:
    return {"args": {"learning_rate": 1e-3, "max_steps": 6, "per_device_train_batch_size": 8}} | stage


def test_processes_that_are_missing_are_told(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    options = method_options("sft", tiny_model, rows, _section()) | {"processes": 2}
    with pytest.raises(UserError, match=r"^stages\.stage: 1 processes train together where 2 were asked for"):
        call_main("train.train_sft", tmp_path, **options)


def test_a_strategy_that_would_not_run_is_told(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    """Without GPUs, FSDP becomes plain data parallelism in silence."""
    options = method_options("sft", tiny_model, rows, _section(strategy="fsdp2"))
    for process in (running := start_stage("sft", tmp_path, options, processes=2)):
        process.join(timeout=120)
    assert [process.exitcode for process in running] == [1, 1]
    line = "error: stages.stage.strategy: fsdp2 was asked for, and what would run is ddp; FSDP needs GPUs"
    assert line in read_output(tmp_path).splitlines()


@pytest.mark.parametrize(("strategy", "tuning"), [("zero2", "full"), ("zero2", "lora"), ("zero3", "full")])
@pytest.mark.long
def test_deepspeed_learns_what_one_process_learns(
    tmp_path: Path, tiny_model: Path, rows: Path, strategy: str, tuning: str
) -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    losses = []
    for name, processes in (("ddp", 1), (strategy, 2)):
        folder = tmp_path / name
        folder.mkdir()
        section = _section(strategy=name, tuning=tuning)
        section["args"]["per_device_train_batch_size"] //= processes
        run_stage("sft", folder, method_options("sft", tiny_model, rows, section), processes)
        losses.append(read_losses(folder / "stage.parquet"))
        facts = read_json(folder / "stage" / "manifest.json")["facts"]
        assert (facts["strategy"], facts["processes"]) == (name, processes)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
@pytest.mark.long
def test_a_finished_checkpoint_of_deepspeed_is_saved_without_training_on(
    tmp_path: Path, tiny_model: Path, rows: Path, strategy: str
) -> None:
    """The last checkpoint stands, but the model could not be saved; then the same is run again."""
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    section = _section(strategy=strategy)
    section["args"] |= {"per_device_train_batch_size": 4, "save_steps": 3}
    options = method_options("sft", tiny_model, rows, section)
    facts = []
    for name in ("unbroken", "failed"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "failed":
            (folder / "stage.parquet").mkdir()  # the table of the steps cannot be written there
            for process in (running := start_stage("sft", folder, options, processes=2)):
                process.join(timeout=240)
            assert running[0].exitcode == 1 and not (folder / "stage" / "manifest.json").exists()
            (folder / "stage.parquet").rmdir()
        run_stage("sft", folder, options, processes=2)
        facts.append(read_json(folder / "stage" / "manifest.json")["facts"])
    assert [fact["resumed_from"] for fact in facts] == [0, 6]
    assert facts[0]["weights_sha256"] == facts[1]["weights_sha256"]
