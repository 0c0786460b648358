"""Register what training should change, before any stage trains.

What is changed before training replaces what was registered. What is changed later is kept as a further entry, so that
the report can show both.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from scripts.common.config import ExpectedChange
from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json, write_json
from scripts.common.manifest import find_commit
from scripts.common.records import Registration


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--expectations", type=json.loads, required=True, help="what should change, JSON list")
    parser.add_argument("--config-sha256", required=True, help="hash of the configuration")
    parser.add_argument("--stages", type=Path, nargs="*", default=[], help="folders of the stages' models")
    parser.add_argument("--output", type=Path, required=True, help="list of entries to write, JSON; kept if it exists")
    options = parser.parse_args()

    entries: list[Registration] = read_json(options.output) if options.output.is_file() else []
    has_begun = any(folder.is_dir() and any(folder.iterdir()) for folder in options.stages)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry: Registration = {
        "created": now,
        "commit": find_commit(),
        "config_sha256": options.config_sha256,
        "after_training": has_begun,
        "expectations": options.expectations,
    }
    write_json(options.output, register(entries, entry))
    when = "after training began" if has_begun else "before training"
    say(f"register_expectations: {len(entry['expectations'])} expectations, {when}")


def register(entries: list[Registration], entry: Registration) -> list[Registration]:
    """The entries after a registration. An entry that was replaced before training leaves no trace.

    Args:
        entries: earlier entries, oldest first.
        entry: the new one.
    """
    if entries and _sorted(entries[-1]) == _sorted(entry):
        return entries
    return [*entries, entry] if entry["after_training"] else [entry]


def _sorted(entry: Registration) -> list[ExpectedChange]:
    """The expectations of an entry, whose order in the configuration means nothing."""
    return sorted(entry["expectations"], key=lambda one: (one["model"], one["baseline"], one["benchmark"]))


if __name__ == "__main__":
    run_script(main)
