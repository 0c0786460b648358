"""What SLURM says of this folder, where there is SLURM."""

import shutil
import subprocess
from pathlib import Path


def find_jobs(folder: Path) -> dict[str, str]:
    """The user's jobs that were submitted from a folder and have not ended: by number, what they do.

    There are none where there is no SLURM, or where it does not answer.
    """
    if not shutil.which("squeue"):
        return {}
    command = ["squeue", "--me", "--noheader", "--format=%i|%k|%Z"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return {}
    jobs = (line.split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2)
    return {number: comment for number, comment, place in jobs if Path(place) == folder.resolve()}
