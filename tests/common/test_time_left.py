"""The time that a run still takes follows the pace of an earlier run."""

import json
import re
import threading
from datetime import datetime
from pathlib import Path

import pytest

from performance.cpu.record_timeline import read_ends
from scripts.common import time_left
from scripts.common.errors import UserError
from scripts.common.time_left import describe_left, estimate_left, find_timeline, show_time_left
from tests.workflow.running import RECIPES, snakemake

TIMELINE = [10.0, 10.0, 40.0, 100.0]


def test_the_same_pace_takes_the_recorded_time() -> None:
    assert estimate_left(TIMELINE, 4, 0, since=0, elapsed=0) == 100
    assert estimate_left(TIMELINE, 4, 2, since=5, elapsed=15) == pytest.approx(85)
    assert estimate_left(TIMELINE, 4, 3, since=20, elapsed=60) == pytest.approx(40)


def test_a_slower_machine_takes_longer_in_proportion() -> None:
    """At the third job, 220 s after a recorded 40 s, this machine is four times as slow."""
    assert estimate_left(TIMELINE, 4, 3, since=0, elapsed=220) == pytest.approx(4 * 60)
    assert estimate_left(TIMELINE, 4, 3, since=80, elapsed=300) == pytest.approx(4 * 40)


def test_a_late_job_does_not_count_as_done() -> None:
    """The fourth job is late: no time is left before its end, but not less than none."""
    assert estimate_left(TIMELINE, 4, 3, since=500, elapsed=540) == 0


def test_a_resumed_run_has_the_last_jobs() -> None:
    assert estimate_left(TIMELINE, 2, 0, since=0, elapsed=0) == 90
    assert estimate_left(TIMELINE, 2, 1, since=0, elapsed=30) == 60


def test_there_is_no_estimate_for_another_run() -> None:
    assert estimate_left(TIMELINE, 5, 0, since=0, elapsed=0) is None
    assert estimate_left(TIMELINE, 4, 4, since=0, elapsed=0) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(59, "less than a minute left"), (61, "about 1 min left"), (200, "about 3 min left")]
)
def test_times_are_rounded(seconds: float, words: str) -> None:
    assert describe_left(seconds) == words


def test_lines_are_written_until_all_jobs_are_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time_left, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    counts = iter([0, 0, 2, 4])
    threads: set[threading.Thread] = {*threading.enumerate()}
    show_time_left(TIMELINE, 4, lambda: next(counts))
    for thread in {*threading.enumerate()} - threads:
        thread.join()
    assert capsys.readouterr().err.splitlines() == [
        "==> 0 of 4 jobs done, about 2 min left",
        "==> 2 of 4 jobs done, about 1 min left",
        "==> 4 of 4 jobs done",
    ]


def test_only_a_recipe_alone_has_a_timeline(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    assert find_timeline([recipe]) == []
    recipe.with_suffix(".timeline.json").write_text(json.dumps({"seconds": TIMELINE}))
    assert find_timeline([recipe]) == TIMELINE
    assert find_timeline([recipe, recipe]) == find_timeline([]) == []


def test_the_recorded_demo_has_the_jobs_of_the_demo(tmp_path: Path) -> None:
    plan = snakemake(tmp_path, "-n", "--configfile", RECIPES / "demo.yaml").stdout
    timeline = find_timeline([RECIPES / "demo.yaml"])
    found = re.search(r"^total +(\d+)$", plan, re.MULTILINE)
    assert found and len(timeline) == int(found[1])
    assert timeline == sorted(timeline) and timeline[0] > 0


LOG = """\
[Sat Nov 28 08:21:10 2026]
Finished jobid: 16 (Rule: register_expectations)
1 of 2 steps (50%) done
[Sat Nov 28 08:22:05 2026]
Finished jobid: 0 (Rule: all)
2 of 2 steps (100%) done
"""


def test_ends_are_read_from_the_log_of_snakemake() -> None:
    started = datetime(2026, 11, 28, 8, 21, 2)
    assert read_ends(LOG, started) == [8.0, 63.0]
    with pytest.raises(UserError, match="has 1 of 2 jobs; run the recipe to its end first"):
        read_ends(LOG.rsplit("[", 1)[0], started)
