"""Checkpoints that are whole, and those that are not."""

from pathlib import Path

import pytest
from transformers import TrainerState

from scripts.train.fit import is_finished, newest_checkpoint, tell_other_checkpoints
from tests.train.stages import make_job


def _checkpoint(folder: Path, step: int, text: str | None = None, max_steps: int = 30) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    TrainerState(global_step=step, max_steps=max_steps).save_to_json(str(path / "trainer_state.json"))
    if text is not None:
        (path / "trainer_state.json").write_text(text)
    return path


def test_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None
    _checkpoint(tmp_path, 9)
    whole = _checkpoint(tmp_path, 10)  # by number, not by name
    _checkpoint(tmp_path, 20, '{"global_step": 20, "max_st')
    _checkpoint(tmp_path, 25, "")
    (tmp_path / "checkpoint-30").mkdir()
    assert newest_checkpoint(tmp_path) == whole


def test_a_folder_with_torn_checkpoints_only_starts_anew(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 20, "{")
    assert newest_checkpoint(tmp_path) is None


def test_checkpoints_of_something_else_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = make_job(tmp_path)
    tell_other_checkpoints(job)
    assert capfd.readouterr().err == ""
    other = _checkpoint(job.checkpoints.parent / "y", 7)
    tell_other_checkpoints(job)
    changed = "another configuration, parent, seed, number of processes or other rows"
    assert capfd.readouterr().err == f"train_sft mine: begins anew: {other} was made with {changed}\n"


def test_the_last_step_is_the_end(tmp_path: Path) -> None:
    assert not is_finished(_checkpoint(tmp_path, 29))
    assert is_finished(_checkpoint(tmp_path, 30))
