"""Fake SLURM commands that give the output that a test needs."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Tool = Callable[[str, str], None]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Make a command from its name and a shell script, and put it first in PATH."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, text: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    return make
