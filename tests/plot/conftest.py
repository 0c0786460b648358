"""Fixtures of this room."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Draw = Callable[..., str]


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Run the `main` of a script twice, check that both runs write the same bytes, and return the SVG."""

    def run(script: ModuleType, *options: str | Path) -> str:
        written = []
        for attempt in ("first", "second"):
            outputs = [tmp_path / attempt / f"figure.{kind}" for kind in ("svg", "png")]
            arguments = ["script", "--config", "{}", *options, "--output", *outputs]
            monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
            script.main()
            written.append([path.read_bytes() for path in outputs])
        assert written[0] == written[1]
        assert written[0][1].startswith(b"\x89PNG")
        return written[0][0].decode()

    return run
