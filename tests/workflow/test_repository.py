"""Files that people and services read: documentation, workflows, citation, hooks."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from scripts.common.config.loader import load_config
from tests.workflow.running import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), REPOSITORY / "profiles" / "README.md"])
CONFIGS = [REPOSITORY / "config.yaml", *sorted((REPOSITORY / "recipes").glob("*.yaml"))]
_LINK = re.compile(r"\]\(([^)#:]+)(?:#([^)]+))?\)")
_TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_fit_a_screen(page: Path) -> None:
    """Tables may be wider."""
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for path, heading in _LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / path
        assert target.exists(), f"{page.name} links to {path}"
        if heading:
            lines = target.read_text(encoding="utf-8").splitlines()
            headings = [line.lstrip("# ").lower() for line in lines if line.startswith("#")]
            names = [re.sub(r"[^\w -]", "", text).replace(" ", "-") for text in headings]
            assert heading in names, f"{page.name} links to {path}#{heading}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_editors_find_the_schema(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    assert (path.parent / first.removeprefix(prefix)).resolve() == REPOSITORY / "schemas" / "config.schema.json"


def test_workflows_and_hooks_run_what_exists() -> None:
    targets = set(_TARGET.findall((REPOSITORY / "Makefile").read_text(encoding="utf-8")))
    started = set()
    for path in sorted((REPOSITORY / ".github" / "workflows").glob("*.yml")):
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
        commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
        started |= {command.removeprefix("make ") for command in commands if command.startswith("make ")}
    assert started == {"lint", "test", "demo", "test-long", "test-vllm"} and started <= targets
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    pins = (REPOSITORY / "envs" / "requirements-dev.txt").read_text(encoding="utf-8")
    for hook in hooks:
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"\n{tool}==" in pins


def test_the_example_of_the_readme_is_valid() -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert load_config(yaml.safe_load(example)).run.name == "mine"


def test_versions_agree() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## (\S+) - (\S+)$", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert citation["version"] == newest[1] == VERSION
    assert str(citation["date-released"]) == newest[2]
