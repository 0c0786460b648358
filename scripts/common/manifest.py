"""Manifests: small files that record how each artefact was made.

A manifest is written last, so its presence means that the artefact is complete.
"""

import importlib.metadata
import platform
import resource
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from scripts.common.files import hash_file
from scripts.common.records import Manifest, Section

Facts = TypeVar("Facts")

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "lm-eval", "vllm", "snakemake")
"""Packages whose versions are recorded, if installed: vLLM and the trainers are in different environments."""

_started = time.monotonic()


def describe(
    *, artefact: str, name: str, config: Section, inputs: dict[str, Path], facts: Facts
) -> Manifest[Section, Facts]:
    """The manifest of an artefact that this process made.

    Args:
        artefact: kind of artefact, such as model, dataset, benchmark or scores.
        name: its name in the configuration.
        config: the part of the configuration that it was made with.
        inputs: the small files that it was made from; the manifest records their SHA-256.
        facts: what the process found out, such as a resolved revision or the number of steps.

    Returns:
        JSON types. `seconds` is the time since this module was imported, `peak_memory_bytes` the peak resident memory
        of the process, `peak_gpu_memory_bytes` the peak that torch allocated on one GPU (null without a GPU).
    """
    return {
        "artefact": artefact,
        "name": name,
        "config": config,
        "inputs": {label: hash_file(path) for label, path in sorted(inputs.items())},
        "facts": facts,
        "versions": list_versions(),
        "git_commit": find_commit(),
        "device": find_device(),
        "seconds": round(time.monotonic() - _started, 1),
        "peak_memory_bytes": _peak_memory(),
        "peak_gpu_memory_bytes": _peak_gpu_memory(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def find_model(manifest: Path) -> Path:
    """The model folder next to the manifest of a model."""
    return manifest.parent / "model"


def list_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def find_device() -> str:
    """The device of this process: number and name of its GPUs, or the processor architecture."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"CPU ({platform.machine()})"


def find_commit() -> str | None:
    """Commit of the pipeline's checkout, with `+` if tracked files differ from it; None outside a git repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=False, capture_output=True, text=True)
        status = subprocess.run([*git, "status", "--porcelain", "-uno"], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return head.stdout.strip() + ("+" if status.stdout.strip() else "") if head.returncode == 0 else None


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux reports KiB


def _peak_gpu_memory() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(max(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())))
