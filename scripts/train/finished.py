"""A training that has ended is not done twice, even when its job was ended after it.

SLURM may call a job timed out, or lose its node, between its last step and its end. Snakemake then deletes what the job
declared, and starts it again. So a copy of the small files stays in the undeclared folder of the checkpoints, and is
taken when the same code would train the same.
"""

import shutil
from pathlib import Path
from typing import Any

from scripts.common.console import say
from scripts.common.files import hash_file, hash_json, read_json, write_json, written_whole
from scripts.common.manifest import list_versions
from scripts.train.job import Job
from scripts.train.model import hash_weights

CODE = Path(__file__).parents[1]


def take_finished(job: Job) -> bool:
    """Bring back the table of steps and the manifest of this very training, when it had ended. Tells whether it had."""
    kept = _folder(job)
    if not (kept / "record.json").is_file() or read_json(kept / "record.json") != _describe(job):
        return False
    if hash_weights(job.folder) != read_json(kept / "manifest.json")["facts"]["weights_sha256"]:
        return False
    if job.is_main:
        _copy(kept / "steps.parquet", job.steps)
        _copy(kept / "manifest.json", job.manifest)
    say(f"{job.label}: was trained to its end before, by this code on these rows; its results are taken")
    return True


def keep_finished(job: Job) -> None:
    """Keep copies of the table of steps and of the manifest, and last what they are of; checkpoints have served."""
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
    """What decides on the outcome beside the name of the checkpoints' folder."""
    return {
        "validation": hash_file(job.validation),
        "code": hash_json({str(path.relative_to(CODE)): hash_file(path) for path in sorted(CODE.rglob("*.py"))}),
        "versions": list_versions(),
    }


def _copy(source: Path, target: Path) -> None:
    with written_whole(target) as temporary:
        shutil.copyfile(source, temporary)
