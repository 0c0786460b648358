"""Report the environment, GPUs, files and network of a compute node. `check_cluster` submits this as a job."""

import importlib
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypedDict

from huggingface_hub import get_session
from huggingface_hub.constants import ENDPOINT

from scripts.common.console import make_parser, run_script
from scripts.common.files import write_json

PACKAGES = ("torch", "transformers", "trl", "peft", "lm_eval")


class VllmReport(TypedDict):
    """Whether vLLM can be imported, and its version or the last line of the error."""

    works: bool
    said: str


class NodeReport(TypedDict):
    """What the probe found. `why` explains missing GPUs, and `vllm` is null if no benchmark needs it."""

    host: str
    versions: str
    gpus: list[str]
    why: str
    hub: bool
    problems: list[str]
    vllm: VllmReport | None


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--vllm", default="", help="Python of vLLM's environment, if a benchmark needs it")
    parser.add_argument("--written", type=Path, nargs="*", default=[], help="folders that jobs write to")
    parser.add_argument("--seen", type=Path, nargs="*", default=[], help="files that must be visible to jobs")
    parser.add_argument(
        "--latency-wait", type=float, default=0, help="seconds until a shared file system shows a new file"
    )
    options = parser.parse_args()

    modules = {name: importlib.import_module(name) for name in PACKAGES}
    gpus, why = find_gpus()
    found: NodeReport = {
        "host": socket.gethostname(),
        "versions": ", ".join(f"{name} {module.__version__}" for name, module in modules.items()),
        "gpus": gpus,
        "why": why,
        "hub": reaches_hub(),
        "problems": [*find_unseen(options.seen, options.latency_wait), *find_unwritable(options.written)],
        "vllm": try_vllm(options.vllm) if options.vllm else None,
    }
    write_json(options.output, found)


def find_unseen(paths: Iterable[Path], seconds: float) -> Iterator[str]:
    """Wait up to `seconds` for all files together; yield a problem for the folder of each that is not visible."""
    deadline = time.monotonic() + seconds
    for path in paths:
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(1)
        if not path.exists():
            yield f"{path.parent} is not visible"


def find_unwritable(folders: Iterable[Path]) -> Iterator[str]:
    """Yield a problem for each folder that is not writable."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            yield f"cannot write to {folder}: {error.strerror}"


def try_vllm(python: str) -> VllmReport:
    """Import vLLM with a given Python."""
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
    return {"works": done.returncode == 0, "said": lines[-1] if lines else f"{python}: exit status {done.returncode}"}


def find_gpus() -> tuple[list[str], str]:
    """Names of the GPUs that torch sees, and a hint for the case that some are missing."""
    import torch

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if torch.version.cuda is None:
        return names, "this torch is built for CPUs; `pip install -r envs/requirements-gpu.txt`"
    return (
        names,
        f"CUDA_VISIBLE_DEVICES is {os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}; does `nvidia-smi` work?",
    )


def reaches_hub() -> bool:
    """Whether the hub answers at all, with whatever status."""
    try:
        get_session().head(ENDPOINT, timeout=5)
    except Exception:
        return False  # no network, DNS or proxy, or HF_HUB_OFFLINE is set
    return True


if __name__ == "__main__":
    run_script(main)
