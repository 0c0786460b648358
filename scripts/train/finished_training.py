"""Do not repeat a finished training whose job failed afterwards.

SLURM may report a timeout or lose a node between the last training step and the end of the job. Snakemake then deletes
the declared outputs and runs the job again. So copies of the small outputs stay in the folder of the checkpoints, which
is not declared, and are restored if the same code would train the same model.
"""

import shutil
from pathlib import Path
from typing import Any

from scripts.common.console import say
from scripts.common.files import hash_file, hash_json, read_json, write_json, written_whole
from scripts.common.manifest import list_versions
from scripts.common.paths import REPOSITORY
from scripts.train.job import Job
from scripts.train.model import hash_weights

CODE = REPOSITORY / "scripts"


def take_finished(job: Job) -> bool:
    """Restore the table of steps and the manifest if exactly this training is finished. Returns whether it is."""
    kept = _folder(job)
    if not (kept / "record.json").is_file() or read_json(kept / "record.json") != _describe(job):
        return False
    if hash_weights(job.folder) != read_json(kept / "manifest.json")["facts"]["weights_sha256"]:
        return False
    if job.is_main:
        _copy(kept / "steps.parquet", job.steps)
        _copy(kept / "manifest.json", job.manifest)
    say(f"{job.label}: this training is finished already; its results are reused")
    return True


def keep_finished(job: Job) -> None:
    """Copy the table of steps and the manifest, then write the record that validates them; delete the checkpoints."""
    kept = _folder(job)
    kept.mkdir(parents=True, exist_ok=True)
    _copy(job.steps, kept / "steps.parquet")
    _copy(job.manifest, kept / "manifest.json")
    write_json(kept / "record.json", _describe(job))
    for path in (*job.checkpoints.parent.glob("*"), *job.checkpoints.glob("*")):
        if path not in (job.checkpoints, kept):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _folder(job: Job) -> Path:
    return job.checkpoints / "finished"


def _describe(job: Job) -> dict[str, Any]:
    """What determines the result, besides the fingerprint in the name of the checkpoint folder."""
    return {
        "validation": hash_file(job.validation),
        "code": hash_json({str(path.relative_to(CODE)): hash_file(path) for path in sorted(CODE.rglob("*.py"))}),
        "versions": list_versions(),
    }


def _copy(source: Path, target: Path) -> None:
    with written_whole(target) as temporary:
        shutil.copyfile(source, temporary)
