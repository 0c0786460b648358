"""The environment that every job inherits."""

import os
import sys
from pathlib import Path


def prepare_environment(repository: Path) -> None:
    """Let `python -m scripts.room.name` work from any folder, with the Python that runs Snakemake.

    A conda environment that a job activates still comes first.
    """
    _prepend("PATH", Path(sys.executable).parent)
    _prepend("PYTHONPATH", repository)
    # Tokenizers warn, and may lock up, when a process forks after it has used them in parallel.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _prepend(variable: str, folder: Path) -> None:
    present = os.environ.get(variable)
    os.environ[variable] = f"{folder}{os.pathsep}{present}" if present else str(folder)
