"""Run stages in processes that start quickly: they are forked from one that has imported the libraries."""

import multiprocessing
import os
import socket
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from scripts.common.config.stage import Method
from scripts.common.console import run_script
from tests.common.running import script_command, script_environment

METHODS: tuple[Method, ...] = ("sft", "dpo", "orpo", "kto", "grpo")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([f"scripts.train.train_{method}" for method in METHODS])


def start_stage(method: str, folder: Path, options: dict[str, Any], processes: int = 1) -> list[BaseProcess]:
    """Start a stage in one process, or in several as torchrun does."""
    port = _free_port()
    started: list[BaseProcess] = []
    for rank in range(processes):
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "localhost"}
        variables = {name: str(value) for name, value in (world | {"MASTER_PORT": port}).items()}
        own = {name: value for name, value in options.items() if name != "log"} | {"processes": processes}
        arguments = script_command(f"train.train_{method}", own)[3:]
        process = _context.Process(
            target=_run, args=(method, str(folder), arguments, variables if processes > 1 else {})
        )
        process.start()
        started.append(process)
    return started


def run_stage(method: str, folder: Path, options: dict[str, Any], processes: int = 1) -> None:
    """Run a stage to its end, and require success."""
    running = start_stage(method, folder, options, processes)
    for process in running:
        process.join(timeout=240)
    codes = [process.exitcode for process in running]
    assert codes == [0] * processes, f"{codes}: {read_output(folder)}"


def kill_stage(method: str, folder: Path, options: dict[str, Any], processes: int, steps: int, delay: float) -> bool:
    """Start a stage, and kill its processes `delay` seconds after some steps. Returns False if it ended before."""
    running = start_stage(method, folder, options, processes)
    wait_for_steps(folder, running, steps)
    time.sleep(delay)
    alive = [process.exitcode is None for process in running]
    for process in running:
        process.kill()
        process.join()
    return all(alive)


def wait_for_steps(folder: Path, running: list[BaseProcess], steps: int) -> None:
    """Wait until the stages in a folder have logged further steps, or one of the processes has ended."""
    logged = len(read_output(folder))
    deadline = time.monotonic() + 240
    while read_output(folder)[logged:].count("'loss'") < steps and time.monotonic() < deadline:
        if any(process.exitcode is not None for process in running):
            return
        time.sleep(0.01)


def read_output(folder: Path) -> str:
    """The output of all stages run in a folder so far."""
    path = folder / "output.txt"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _run(method: str, folder: str, arguments: list[str], variables: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(script_environment() | variables)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = [f"train_{method}", *arguments]
    script = __import__(f"scripts.train.train_{method}", fromlist=["main"])
    run_script(script.main)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])
