"""Which lines reach the terminal, and which only the log."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.common import console
from scripts.common.console import Progress
from tests.common.running import script_environment

SCRIPT = """
import os, sys, warnings
from scripts.common.console import make_parser, run_script, say
from scripts.common.errors import UserError

def main():
    make_parser("A script.").parse_args()
    print("a library prints")
    warnings.warn("a library warns")
    os.system("echo a child prints")
    say("our own line")
    {body}

run_script(main)
"""


def _run(folder: Path, body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(SCRIPT.format(body=body), encoding="utf-8")
    command = [sys.executable, "script.py", *arguments]
    return subprocess.run(
        command, cwd=folder, env=script_environment(), capture_output=True, text=True, timeout=60, check=False
    )


def test_with_a_log_the_terminal_gets_only_our_lines(tmp_path: Path) -> None:
    run = _run(tmp_path, "pass", "--log", "logs/deep/x.log")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "our own line\n")
    log = (tmp_path / "logs" / "deep" / "x.log").read_text()
    for words in ("a library prints", "a library warns", "a child prints", "our own line"):
        assert log.count(words + "\n") == 1, words


def test_without_a_log_our_lines_appear_once(tmp_path: Path) -> None:
    run = _run(tmp_path, "pass")
    assert run.stderr.splitlines().count("our own line") == 1
    assert "a library prints" in run.stdout


def test_a_user_error_is_one_line_and_exit_1(tmp_path: Path) -> None:
    run = _run(tmp_path, "raise UserError('stages.sft: fix this')", "--log", "x.log")
    assert run.returncode == 1
    assert run.stderr == "our own line\nerror: stages.sft: fix this\n"
    assert "Traceback" not in (tmp_path / "x.log").read_text()


def test_two_mistakes_are_two_lines(tmp_path: Path) -> None:
    run = _run(tmp_path, "raise UserError('one\\ntwo')", "--log", "x.log")
    assert run.stderr.splitlines()[1:] == ["error: one", "error: two"]


def test_a_bug_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    run = _run(tmp_path, "raise KeyError('a bug')", "--log", "x.log")
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert "KeyError: 'a bug'" in (tmp_path / "x.log").read_text()


def test_out_of_memory_is_one_clear_line(tmp_path: Path) -> None:
    run = _run(tmp_path, "import torch; torch.zeros(10**13)", "--log", "x.log")
    assert run.returncode == 1
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: out of memory; use smaller batches, or request more in `resources`; ")
    assert "you tried to allocate 40000000000000 bytes" in line
    assert "Traceback" not in run.stderr and "torch.zeros" in (tmp_path / "x.log").read_text()


FULL_DISK = "open('/dev/full', 'w').write('x' * 100_000)"
needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@needs_full_device
@pytest.mark.parametrize("log", ["x.log", "/dev/full"])
def test_a_full_disk_is_one_clear_line(tmp_path: Path, log: str) -> None:
    """Also if the log itself is on the full disk."""
    run = _run(tmp_path, FULL_DISK, "--log", log)
    assert run.returncode != 0
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "no space left; free up space, or set run.cache to a larger disk" in errors[0]
    assert "Traceback" not in run.stderr


def test_a_full_disk_is_recognised_in_torchs_message(tmp_path: Path) -> None:
    """torch.save only reports that too few bytes were written; its message does not mention the disk."""
    run = _run(tmp_path, "import torch; torch.save(torch.zeros(100_000), '/dev/full')", "--log", "x.log")
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("error: the disk: no space left; free up space")


def test_other_system_errors_are_not_reported_as_a_full_disk(tmp_path: Path) -> None:
    run = _run(tmp_path, "open('/no/such/file')", "--log", "x.log")
    assert "no space" not in run.stderr
    assert "FileNotFoundError" in (tmp_path / "x.log").read_text()


def test_an_interrupt_ends_with_130(tmp_path: Path) -> None:
    run = _run(tmp_path, "raise KeyboardInterrupt", "--log", "x.log")
    assert run.returncode == 130
    assert run.stderr.splitlines()[-1].startswith("interrupted")


class _Clock:
    """A clock that the test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(console, "say", lines.append)
    return lines


def test_progress_shows_the_time_left(clock: _Clock, said: list[str]) -> None:
    progress = Progress("train_sft sft", 40, "steps")
    clock.now += 4.9
    progress.update(5)
    assert said == [], "at most one line every five seconds"
    clock.now += 7.1  # 12 s for 12 steps
    progress.update(12, "loss 1.203")
    clock.now += 3600
    progress.update(13)
    clock.now += 1
    progress.update(40)
    assert said == [
        "train_sft sft: 12/40 steps, loss 1.203, 0:28 left",
        "train_sft sft: 13/40 steps, 2:05:02 left",
        "train_sft sft: 40/40 steps, took 1:00:13",
    ]


def test_progress_after_a_resume_counts_only_this_attempt(clock: _Clock, said: list[str]) -> None:
    progress = Progress("x", 100, "steps")
    progress.start_from(90)
    clock.now += 10
    progress.update(95)
    assert said == ["x: 95/100 steps, 0:10 left"]
