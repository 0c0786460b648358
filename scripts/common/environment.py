"""The environment variables that every job inherits, and checks for benchmark engines."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from scripts.common.config import Benchmark
from scripts.common.errors import UserError

VLLM = "POSTTRAIN_VLLM"
"""Environment variable with the path of the Python in vLLM's environment."""


def prepare_environment(repository: Path) -> None:
    """Make `python -m scripts.room.name` work in any folder, with the Python that runs Snakemake.

    A conda environment that a job activates takes precedence.
    """
    _prepend("PATH", Path(sys.executable).parent)
    _prepend("PYTHONPATH", repository)
    os.environ.setdefault(VLLM, str(repository / ".venv-vllm" / "bin" / "python"))
    # Tokenizers warn, and may deadlock, if a process forks after it has used them in parallel.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def require_engines(benchmarks: Mapping[str, Benchmark]) -> None:
    """Raises UserError if the engine of a benchmark is not installed."""
    for name, benchmark in benchmarks.items():
        if benchmark.engine == "vllm":
            require_vllm(name)


def require_vllm(benchmark: str) -> None:
    """Raises UserError if there is no environment with vLLM for a benchmark whose engine is `vllm`."""
    python = os.environ[VLLM]
    check = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    if not shutil.which(python) or subprocess.run([python, "-c", check], check=False).returncode:
        raise UserError(
            f"benchmarks.{benchmark}.engine: vllm needs a separate environment, and {python} is missing or has no "
            f"vllm; run `make venv-vllm`, or set {VLLM} to the Python of such an environment"
        )


def _prepend(variable: str, folder: Path) -> None:
    present = os.environ.get(variable)
    os.environ[variable] = f"{folder}{os.pathsep}{present}" if present else str(folder)
