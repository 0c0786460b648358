"""The requested processes and strategy are those in use, and DeepSpeed trains as one process does."""

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


def test_missing_processes_are_reported(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    options = method_options("sft", tiny_model, rows, _section()) | {"processes": 2}
    with pytest.raises(UserError, match=r"^stages\.stage: 1 processes train together, but resources.train requests 2"):
        call_main("train.train_sft", tmp_path, **options)


def test_a_strategy_that_would_not_run_is_reported(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    """Without GPUs, accelerate silently replaces FSDP with plain data parallelism."""
    options = method_options("sft", tiny_model, rows, _section(strategy="fsdp2"))
    for process in (running := start_stage("sft", tmp_path, options, processes=2)):
        process.join(timeout=120)
    assert [process.exitcode for process in running] == [1, 1]
    line = "error: stages.stage.strategy: fsdp2 was requested, but ddp would run; FSDP needs GPUs"
    assert line in read_output(tmp_path).splitlines()


@pytest.mark.parametrize(("strategy", "tuning"), [("zero2", "full"), ("zero2", "lora"), ("zero3", "full")])
@pytest.mark.long
def test_deepspeed_has_the_losses_of_one_process(
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
def test_a_final_checkpoint_of_deepspeed_is_not_trained_further(
    tmp_path: Path, tiny_model: Path, rows: Path, strategy: str
) -> None:
    """The last checkpoint was saved, but not the model. Then the stage runs again."""
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    section = _section(strategy=strategy)
    section["args"] |= {"per_device_train_batch_size": 4, "save_steps": 3}
    options = method_options("sft", tiny_model, rows, section)
    facts = []
    for name in ("unbroken", "failed"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "failed":
            (folder / "stage.parquet").mkdir()  # so that the table of steps cannot be written
            for process in (running := start_stage("sft", folder, options, processes=2)):
                process.join(timeout=240)
            assert running[0].exitcode == 1 and not (folder / "stage" / "manifest.json").exists()
            (folder / "stage.parquet").rmdir()
        run_stage("sft", folder, options, processes=2)
        facts.append(read_json(folder / "stage" / "manifest.json")["facts"])
    assert [fact["resumed_from"] for fact in facts] == [0, 6]
    assert facts[0]["weights_sha256"] == facts[1]["weights_sha256"]
