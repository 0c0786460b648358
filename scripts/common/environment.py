"""The environment that every job inherits."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.common.errors import UserError

VLLM = "POSTTRAIN_VLLM"
"""Environment variable that names the Python of vLLM's environment."""


def prepare_environment(repository: Path) -> None:
    """Let `python -m scripts.room.name` work from any folder, with the Python that runs Snakemake.

    A conda environment that a job activates still comes first.
    """
    _prepend("PATH", Path(sys.executable).parent)
    _prepend("PYTHONPATH", repository)
    os.environ.setdefault(VLLM, str(repository / ".venv-vllm" / "bin" / "python"))
    # Tokenizers warn, and may lock up, when a process forks after it has used them in parallel.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def require_vllm(benchmark: str) -> None:
    """Raise UserError when there is no environment for a benchmark whose engine is vLLM."""
    python = os.environ[VLLM]
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    if not shutil.which(python) or subprocess.run([python, "-c", look], check=False).returncode:
        raise UserError(
            f"benchmarks.{benchmark}.engine: vllm has an environment of its own, and {python} is not there or has no "
            f"vllm; make it with `make venv-vllm`, or set {VLLM} to its Python"
        )


def _prepend(variable: str, folder: Path) -> None:
    present = os.environ.get(variable)
    os.environ[variable] = f"{folder}{os.pathsep}{present}" if present else str(folder)
