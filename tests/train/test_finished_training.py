"""A finished training is not repeated, unless it would give another result."""

from pathlib import Path
from typing import Any

import pytest

from scripts.common.files import write_json
from scripts.train.finished_training import keep_finished, take_finished
from scripts.train.job import Job
from scripts.train.model import hash_weights
from tests.train.stages import make_job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A stage that has just finished: model, table and manifest are written, and checkpoints still exist."""
    job = make_job(tmp_path)
    for path, text in (
        (job.validation, "rows"),
        (job.folder / "model.safetensors", "weights"),
        (job.steps, "steps"),
        (job.checkpoints / "checkpoint-3" / "trainer_state.json", "{}"),
        (job.checkpoints / "ledger.json", "{}"),
        (job.checkpoints.parent / "y" / "checkpoint-2" / "trainer_state.json", "{}"),
        (job.checkpoints.parent / "lock", ""),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_json(job.manifest, {"facts": {"weights_sha256": hash_weights(job.folder)}})
    return job


def _delete_outputs(job: Job) -> dict[Path, str]:
    """Delete the table and the manifest. Returns their contents."""
    texts = {path: path.read_text() for path in (job.steps, job.manifest)}
    for path in texts:
        path.unlink()
    return texts


def test_a_finished_training_is_reused(job: Job, capfd: pytest.CaptureFixture[str]) -> None:
    assert not take_finished(job), "nothing was kept yet"
    keep_finished(job)
    texts = _delete_outputs(job)
    assert take_finished(job)
    assert {path: path.read_text() for path in texts} == texts
    assert "this training is finished already" in capfd.readouterr().err


def test_checkpoints_of_a_finished_stage_are_deleted(job: Job) -> None:
    keep_finished(job)
    left = {path.relative_to(job.checkpoints.parent) for path in job.checkpoints.parent.rglob("*") if path.is_file()}
    assert left == {Path("x/finished") / name for name in ("steps.parquet", "manifest.json", "record.json")}


@pytest.mark.parametrize("change", ["weights", "no weights", "validation", "code", "versions", "record"])
def test_a_changed_training_is_repeated(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    keep_finished(job)
    _delete_outputs(job)
    match change:
        case "weights":
            (job.folder / "model.safetensors").write_text("torn")
        case "no weights":
            (job.folder / "model.safetensors").unlink()
        case "validation":
            job.validation.write_text("other rows")
        case "code":
            (tmp_path / "code.py").write_text("new")
            monkeypatch.setattr("scripts.train.finished_training.CODE", tmp_path)
        case "versions":
            monkeypatch.setattr("scripts.train.finished_training.list_versions", lambda: {"torch": "0"})
        case "record":
            (job.checkpoints / "finished" / "record.json").unlink()
    assert not take_finished(job)
    assert not job.steps.exists() and not job.manifest.exists()


def test_only_the_main_process_restores_the_results(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_finished(job)
    texts: Any = _delete_outputs(job)
    monkeypatch.setenv("RANK", "1")
    assert take_finished(job), "the other processes end as well"
    assert not any(path.exists() for path in texts)
