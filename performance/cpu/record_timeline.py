"""Record when each job of a run ended, so that later runs of the recipe can show how long they still take.

    snakemake --cores 2 --configfile recipes/demo.yaml && python -m performance.cpu.record_timeline recipes/demo.yaml

It reads the newest log of Snakemake, which must be of a run that made everything, without `--quiet progress`.
"""

import argparse
import re
from datetime import UTC, datetime
from pathlib import Path

from scripts.common.console import run_script, say
from scripts.common.errors import UserError
from scripts.common.files import write_json

LOGS = Path(".snakemake/log")

_TIME = re.compile(r"^\[(\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4})\]$")
_DONE = re.compile(r"^\d+ of (\d+) steps \(\d+%\) done$")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="recipe that was run")
    options = parser.parse_args()
    logs = sorted(LOGS.glob("*.snakemake.log"))
    if not logs:
        raise UserError(f"{LOGS} has no log; run the recipe first")
    seconds = read_ends(logs[-1].read_text(encoding="utf-8"), start_of(logs[-1]))
    path = options.recipe.with_suffix(".timeline.json")
    write_json(path, {"date": datetime.now(UTC).date().isoformat(), "seconds": seconds})
    say(f"record_timeline: {path}: {len(seconds)} jobs in {seconds[-1]:.0f} s")


def start_of(log: Path) -> datetime:
    """The local time at which Snakemake started, from the name of its log."""
    return datetime.strptime(log.name[:17], "%Y-%m-%dT%H%M%S")


def read_ends(log: str, started: datetime) -> list[float]:
    """Seconds from the start to the end of each job, in order. Raises UserError if the run is not complete."""
    ends: list[float] = []
    jobs, now = 0, started
    for line in log.splitlines():
        if found := _TIME.match(line):
            now = datetime.strptime(found[1], "%a %b %d %H:%M:%S %Y")
        elif found := _DONE.match(line):
            jobs = int(found[1])
            ends.append((now - started).total_seconds())
    if not jobs or len(ends) < jobs:
        raise UserError(f"the newest log of Snakemake has {len(ends)} of {jobs} jobs; run the recipe to its end first")
    return ends


if __name__ == "__main__":
    run_script(main)
