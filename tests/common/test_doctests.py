"""The examples in docstrings show what the functions return."""

import doctest
import importlib
from pathlib import Path

import pytest

from tests.common.running import REPOSITORY


def count_examples(path: Path) -> int:
    """Lines of a file that begin an example."""
    return sum(line.lstrip().startswith(">>> ") for line in path.read_text(encoding="utf-8").splitlines())


EXAMPLES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts): count
    for path in sorted((REPOSITORY / "scripts").rglob("*.py"))
    if (count := count_examples(path))
}
"""Modules that have examples, and how many."""


def test_there_are_examples() -> None:
    assert EXAMPLES, "none is found: remove this file, or look in another folder"


@pytest.mark.parametrize("module", EXAMPLES)
def test_all_examples_of_a_module_give_what_they_show(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted == EXAMPLES[module], "an example outside of a docstring is never run"
    assert found.failed == 0
