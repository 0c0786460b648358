"""Resolve envs/*.in into the lists of pins that every environment is made from. Run by `make lock`.

One resolution serves all: pip's requirements.txt and requirements-dev.txt, and conda's posttrain.yaml.
"""

import json
import subprocess
import sys
from pathlib import Path

from scripts.common.files import write_text

ENVS = Path(__file__).parents[2] / "envs"
PYTHON = "3.11"
HEADER = "# Made by `make lock` from {}; edit that.\n"


def main() -> None:
    runtime = resolve(ENVS / "requirements.in")
    write_text(ENVS / "requirements.txt", HEADER.format("requirements.in") + "".join(f"{pin}\n" for pin in runtime))
    development = [pin for pin in resolve(ENVS / "requirements-dev.in") if pin not in runtime]
    header = HEADER.format("requirements-dev.in") + "-r requirements.txt\n"
    write_text(ENVS / "requirements-dev.txt", header + "".join(f"{pin}\n" for pin in development))
    write_text(ENVS / "posttrain.yaml", conda_environment(runtime))


def resolve(requirements: Path) -> list[str]:
    """Every package that pip would install in an empty environment, as `name==version`, sorted."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    report = subprocess.run([*command, "-r", str(requirements)], capture_output=True, text=True, check=True).stdout
    packages = [item["metadata"] for item in json.loads(report)["install"]]
    # A CPU build of torch calls itself 2.13.0+cpu; the lock must serve GPUs as well.
    return sorted((f"{p['name']}=={p['version'].split('+')[0]}" for p in packages), key=str.lower)


def conda_environment(pins: list[str]) -> str:
    """A conda environment file with the same pins, for `snakemake --sdm conda`."""
    lines = [HEADER.format("requirements.in").rstrip(), "name: posttrain", "channels: [conda-forge]", "dependencies:"]
    lines += [f"  - python={PYTHON}", "  - pip", "  - pip:"]
    return "\n".join(lines + [f"      - {pin}" for pin in pins]) + "\n"


if __name__ == "__main__":
    main()
