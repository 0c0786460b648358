"""Run Snakemake as a user does, in a given folder."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
RECIPES = REPOSITORY / "recipes"

_JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", re.MULTILINE)
_WILDCARDS = re.compile(r"^    wildcards: (.*)$", re.MULTILINE)


def read_recipe(name: str) -> dict[str, Any]:
    """A recipe as a dict."""
    return dict(yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8")))


def write_recipe(folder: Path, recipe: dict[str, Any], name: str = "recipe.yaml") -> Path:
    """Write a recipe to a file."""
    path = folder / name
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def snakemake(folder: Path, *arguments: str | Path, started_in: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on our Snakefile with `folder` as the working directory. `stdout` has its output and errors."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", REPOSITORY / "Snakefile", "--directory", folder]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [*map(str, command), *map(str, arguments)],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        cwd=started_in,
        env=environment,
    )


def planned_jobs(output: str) -> set[str]:
    """The jobs of a dry run, each as the name of the rule and the values of its wildcards."""
    jobs = set()
    for rule, body in _JOB.findall(output):
        wildcards = _WILDCARDS.search(body)
        values = [pair.split("=")[1] for pair in wildcards[1].split(", ")] if wildcards else []
        jobs.add(" ".join([rule, *values]))
    return jobs
