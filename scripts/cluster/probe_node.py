"""Tell what a compute node sees: the environment, its GPUs, files, the network. `check_cluster` submits it."""

import importlib
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from huggingface_hub import get_session
from huggingface_hub.constants import ENDPOINT

from scripts.common.console import make_parser, run_script
from scripts.common.files import write_json

PACKAGES = ("torch", "transformers", "trl", "peft", "lm_eval")

LATENCY = 30
"""Seconds that a shared file system may take to show a file that was made just now."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="what was found")
    parser.add_argument("--vllm", default="", help="Python of vLLM's environment, when it is needed")
    parser.add_argument("--written", type=Path, nargs="*", default=[], help="folders that jobs write into")
    parser.add_argument("--seen", type=Path, nargs="*", default=[], help="files that jobs must see")
    options = parser.parse_args()

    modules = {name: importlib.import_module(name) for name in PACKAGES}
    gpus, why = find_gpus()
    found = {
        "host": socket.gethostname(),
        "versions": ", ".join(f"{name} {module.__version__}" for name, module in modules.items()),
        "gpus": gpus,
        "why": why,
        "hub": reaches_hub(),
        "problems": [*find_unseen(options.seen), *find_unwritable(options.written)],
        "vllm": try_vllm(options.vllm) if options.vllm else None,
    }
    write_json(options.output, found)


def find_unseen(paths: Iterable[Path]) -> Iterator[str]:
    """Which files are not here, by their folders."""
    deadline = time.monotonic() + LATENCY
    for path in paths:
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(1)
        if not path.exists():
            yield f"{path.parent} is not seen"


def find_unwritable(folders: Iterable[Path]) -> Iterator[str]:
    """Which folders cannot be written into."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            yield f"{folder} is not written to: {error.strerror}"


def try_vllm(python: str) -> dict[str, Any]:
    """Whether vLLM can be imported with a Python, and what that says: its version, or the last line of the error."""
    try:
        done = subprocess.run(
            [python, "-c", "import vllm; print('vllm', vllm.__version__)"],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"works": False, "said": f"{python}: {error}"}
    lines = (done.stdout if done.returncode == 0 else done.stderr).splitlines()
    return {"works": done.returncode == 0, "said": lines[-1] if lines else f"{python} ended with {done.returncode}"}


def find_gpus() -> tuple[list[str], str]:
    """Names of the GPUs that torch sees, and what there is to say where it sees none."""
    import torch

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if torch.version.cuda is None:
        return names, "this torch is for CPUs; `pip install -r envs/requirements-gpu.txt`"
    return (
        names,
        f"CUDA_VISIBLE_DEVICES is {os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}; does `nvidia-smi` work?",
    )


def reaches_hub() -> bool:
    """The hub answers from here, whatever it says."""
    try:
        get_session().head(ENDPOINT, timeout=5)
    except Exception:
        return False  # no network, no name, no proxy, or HF_HUB_OFFLINE
    return True


if __name__ == "__main__":
    run_script(main)
