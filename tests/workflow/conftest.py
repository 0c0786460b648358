"""A finished smoke run, shared by all tests that look at the files of a run."""

from pathlib import Path

import pytest

from tests.workflow.running import RECIPES, snakemake


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of recipes/smoke.yaml."""
    folder = tmp_path_factory.mktemp("smoke")
    run = snakemake(folder, "--configfile", RECIPES / "smoke.yaml", "--cores", "2")
    assert run.returncode == 0, run.stdout[-5000:]
    return folder
