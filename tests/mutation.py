"""Report what `make mutate` found: for each module, how many of its mutants the tests notice.

mutmut plants one small fault at a time (a mutant), and runs the tests that cover the function. Mutants that change
nothing that anybody could see are listed with the reason in tests/equivalent_mutants.yaml and are not counted. The
command fails if the tests notice fewer than 85 % of all others.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

from scripts.common.paths import REPOSITORY

GOAL = 0.85
"""Share of the mutants that the tests must notice."""

NOTICED = ("killed", "timeout", "segfault", "suspicious", "caught by type check")
EQUIVALENT = REPOSITORY / "tests" / "equivalent_mutants.yaml"


@dataclass(frozen=True)
class Mutant:
    """A mutant by its name, with what became of it."""

    path: str
    name: str
    status: str

    @property
    def function(self) -> str:
        """The function that it is in, as `module.Class.function`."""
        module, _, mangled = self.name.rpartition(".")
        mangled = mangled.rpartition("__mutmut_")[0]
        return f"{module}.{mangled.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}"

    def change(self) -> str:
        """The changed lines, before and after."""
        lines = get_diff_for_mutant(self.name, path=self.path).splitlines()
        return "\n".join(line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))


def read_mutants(folder: Path) -> Iterator[Mutant]:
    """All mutants that were tried."""
    for path in sorted(folder.rglob("*.py.meta")):
        source = path.relative_to(folder).as_posix().removesuffix(".meta")
        results = json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
        for name, code in results.items():
            if code is not None:
                yield Mutant(source, name, status_by_exit_code[code])


def read_equivalents() -> dict[str, set[str]]:
    """The changes of the mutants that are known to be equivalent, by function."""
    listed = yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8"))
    return {function: {entry["change"].strip() for entry in entries} for function, entries in listed.items()}


def main() -> None:
    mutants = list(read_mutants(Path("mutants")))
    known = read_equivalents()
    survivors = {one: one.change() for one in mutants if one.status not in NOTICED}
    equivalent = {one for one, change in survivors.items() if change.strip() in known.get(one.function, set())}
    print(f"{'module':44} {'mutants':>8} {'noticed':>8} {'equivalent':>11} {'share':>7}")
    counted = [one for one in mutants if one not in equivalent]
    for path in [*dict.fromkeys(one.path for one in mutants), "all"]:
        mine = [one for one in counted if path in (one.path, "all")]
        noticed = sum(one.status in NOTICED for one in mine)
        left_out = sum(one in equivalent for one in mutants if path in (one.path, "all"))
        share = noticed / len(mine) if mine else 1.0
        print(f"{path:44} {len(mine) + left_out:8} {noticed:8} {left_out:11} {share:7.1%}")
    for one, change in survivors.items():
        if one not in equivalent:
            print(f"\n{one.status}: {one.name} in {one.path}\n{change}")
    if share < GOAL:
        sys.exit(f"error: the tests notice {share:.1%} of the mutants, fewer than {GOAL:.0%}")


if __name__ == "__main__":
    main()
