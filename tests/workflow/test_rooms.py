"""The structure of the repository: imports between rooms, and names of rules, scripts and tests."""

import ast
import re
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from scripts.common.paths import REPOSITORY

BELOW: dict[str, set[str]] = {
    "common": set(),
    "plot": {"common"},
    "report": {"common"},
    "evaluate": {"common"},
    "plan": {"common"},
    "data": {"common"},
    "train": {"common", "data"},
    "cluster": {"common", "data", "plan"},
}
"""The rooms, and the other rooms that each of them may import."""

Imports = dict[str, set[str]]
"""Modules of `scripts`, such as `scripts.data.filters`, and the modules of `scripts` that each imports."""


def find_imports(repository: Path) -> Imports:
    """All imports in the code, including those inside functions."""
    paths = {name_module(path, repository): path for path in (repository / "scripts").glob("*/**/*.py")}
    return {name: set(read_imports(path, paths)) - {name} for name, path in paths.items()}


def name_module(path: Path, repository: Path) -> str:
    """The dotted name of a module. A package has the name of its folder."""
    return ".".join(path.relative_to(repository).with_suffix("").parts).removesuffix(".__init__")


def read_imports(path: Path, known: Collection[str]) -> Iterator[str]:
    """The known modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import name`: the name may be a module of the package.
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name in known)


def room_of(module: str) -> str:
    """The room of a module."""
    return module.split(".")[1]


def find_upward_imports(imports: Imports) -> list[str]:
    """Imports from rooms that are not below the importing one."""
    return sorted(
        f"{module} imports {imported}"
        for module, found in imports.items()
        for imported in found
        if room_of(imported) not in BELOW[room_of(module)] | {room_of(module)}
    )


def find_circle(imports: Imports) -> list[str]:
    """Modules that import each other in a circle; empty if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def plant(repository: Path, files: dict[str, str]) -> Imports:
    """Write files under `scripts`, and return the imports of the repository."""
    for name, text in files.items():
        path = repository / "scripts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return find_imports(repository)


def test_a_room_imports_only_rooms_below_it() -> None:
    imports = find_imports(REPOSITORY)
    assert {room_of(module) for module in imports} == BELOW.keys()
    assert find_upward_imports(imports) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = find_imports(REPOSITORY)
    # The package imports its modules, which import each other directly.
    del imports["scripts.common.config"]
    assert find_circle({module: found & imports.keys() for module, found in imports.items()}) == []


def test_an_upward_import_inside_a_function_is_found(tmp_path: Path) -> None:
    inside = "def main():\n    from scripts.report import words\n"
    files = {"report/words.py": "", "data/rows.py": inside, "train/job.py": "import scripts.data.rows\n"}
    assert find_upward_imports(plant(tmp_path, files)) == ["scripts.data.rows imports scripts.report.words"]


def test_a_circle_is_found(tmp_path: Path) -> None:
    files = {"data/a.py": "from scripts.data.b import x\n", "data/b.py": "def f():\n    import scripts.data.a\n"}
    assert set(find_circle(plant(tmp_path, files))) == {"scripts.data.a", "scripts.data.b"}


# --- names --------------------------------------------------------------------------------------

_RULE = re.compile(r"^(?:rule|use rule \w+ as) (\w+)(?: with)?:\n(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
_SCRIPT = re.compile(r"scripts\.(\w+)\.(\w+)")


def find_scripts() -> list[tuple[str, str, str, str]]:
    """File and name of each rule that runs a script, with room and name of the script."""
    return [
        (path.stem, rule, *script.groups())
        for path in sorted((REPOSITORY / "rules").glob("*.smk"))
        for rule, body in _RULE.findall(path.read_text(encoding="utf-8"))
        for script in _SCRIPT.finditer(body)
    ]


@pytest.mark.parametrize(("file", "rule", "room", "script"), find_scripts(), ids=lambda name: name)
def test_rule_script_and_test_share_a_name(file: str, rule: str, room: str, script: str) -> None:
    assert (file, rule) == (room, script)
    assert (REPOSITORY / "scripts" / room / f"{script}.py").is_file()
    assert (REPOSITORY / "tests" / room / f"test_{script}.py").is_file()


def test_every_command_has_a_rule() -> None:
    """Every script that can be run has a rule, except those that another script starts."""
    started = {("cluster", "probe_node")}
    commands = {
        (path.parent.name, path.stem)
        for path in (REPOSITORY / "scripts").glob("*/*.py")
        if "\n    run_script(main)\n" in path.read_text(encoding="utf-8")
    }
    assert commands - started == {(room, script) for _, _, room, script in find_scripts()}


SEVERAL_MODULES = {
    "common/test_doctests",
    "data/test_fuzz_data",
    "evaluate/test_stock_benchmarks",
    "train/test_kills",
    "train/test_packing",
    "train/test_strategies",
}
"""Tests of several modules together."""


def test_every_other_test_is_named_after_a_module() -> None:
    tests = {
        path.relative_to(REPOSITORY / "tests").with_suffix("").as_posix()
        for room in BELOW
        for path in (REPOSITORY / "tests" / room).rglob("test_*.py")
    }
    modules = {
        path.relative_to(REPOSITORY / "scripts").with_suffix("").with_name(f"test_{path.stem}").as_posix()
        for path in (REPOSITORY / "scripts").rglob("*.py")
    }
    assert tests - modules == SEVERAL_MODULES
