"""Manifests: the small file beside every artefact that says what made it.

A manifest is written last, so its presence means that the artefact is whole.
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
from typing import Any

from scripts.common.files import hash_file, write_json

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "lm-eval", "vllm", "snakemake")
"""vLLM's environment has no trainers, and the other no vLLM."""

_started = time.monotonic()


def describe(
    *, artefact: str, name: str, config: dict[str, Any], inputs: dict[str, Path], facts: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Provenance of what this process made.

    Args:
        artefact: what it is: model, dataset, benchmark, scores, comparison, report.
        name: its name in the configuration.
        config: the part of the configuration that it was made with.
        inputs: the small files that it was made from; each is recorded by its SHA-256.
        facts: what was found on the way, such as a resolved revision or the number of steps.

    Returns:
        JSON types. `seconds` is the time since the process began to import us, `peak_memory_bytes` the most memory
        that it held (resident), `peak_gpu_memory_bytes` the most that torch allocated on one GPU, or null.
    """
    return {
        "artefact": artefact,
        "name": name,
        "config": config,
        "inputs": {label: hash_file(path) for label, path in sorted(inputs.items())},
        "facts": facts or {},
        "versions": list_versions(),
        "git_commit": _git_commit(),
        "device": find_device(),
        "seconds": round(time.monotonic() - _started, 1),
        "peak_memory_bytes": _peak_memory(),
        "peak_gpu_memory_bytes": _peak_gpu_memory(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_manifest(path: Path, **description: Any) -> None:
    """Write `describe(**description)`."""
    write_json(path, describe(**description))


def find_model(manifest: Path) -> Path:
    """The model folder that stands beside a model's manifest."""
    return manifest.parent / "model"


def list_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, as far as they are installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def find_device() -> str:
    """What this process computes on: its GPUs, or the kind of processor."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"CPU ({platform.machine()})"


def _git_commit() -> str | None:
    """Commit of the pipeline's own checkout, with `+` when files differ from it; None outside of git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=False, capture_output=True, text=True)
        status = subprocess.run([*git, "status", "--porcelain", "-uno"], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return head.stdout.strip() + ("+" if status.stdout.strip() else "") if head.returncode == 0 else None


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _peak_gpu_memory() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(max(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())))
