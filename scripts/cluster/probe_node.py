"""Tell what a compute node sees: the environment, its GPUs, the network. `check_cluster` submits it."""

import importlib
import os
import socket
from pathlib import Path

from huggingface_hub import get_session
from huggingface_hub.constants import ENDPOINT

from scripts.common.console import make_parser, run_script
from scripts.common.files import write_json

PACKAGES = ("torch", "transformers", "trl", "peft", "lm_eval")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="what was found")
    options = parser.parse_args()

    modules = {name: importlib.import_module(name) for name in PACKAGES}
    gpus, why = find_gpus()
    found = {
        "host": socket.gethostname(),
        "versions": ", ".join(f"{name} {module.__version__}" for name, module in modules.items()),
        "gpus": gpus,
        "why": why,
        "hub": reaches_hub(),
    }
    write_json(options.output, found)


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
