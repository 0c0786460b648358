"""What SLURM says of a run, where there is SLURM."""

import shutil
import subprocess
from pathlib import Path


def find_jobs(folder: Path, run: str) -> list[str]:
    """Numbers of the user's jobs that work on a run in a folder and have not ended.

    A job works on a run when its script names files of it. There are no jobs where there is no SLURM, or where it does
    not answer.
    """
    if not shutil.which("squeue"):
        return []
    jobs = (line.split(maxsplit=1) for line in _ask("squeue", "--me", "--noheader", "--format=%i %Z").splitlines())
    here = [number for number, place in jobs if Path(place) == folder.resolve()]
    return [number for number in here if f"work/{run}/" in _ask("scontrol", "write", "batch_script", number, "-")]


def _ask(*command: str) -> str:
    """What a command says; nothing when it does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    except subprocess.TimeoutExpired:
        return ""
