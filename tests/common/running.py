"""Start our scripts as the rules do: as modules, in a given folder, without network."""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
OWN_TASKS = REPOSITORY / "benchmarks"


def script_command(script: str, options: dict[str, Any]) -> list[str]:
    """The command line of a script: `model_name="x"` becomes `--model-name x`, sections become JSON."""
    command = [sys.executable, "-m", f"scripts.{script}"]
    for option, value in options.items():
        words = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
        command += [f"--{option.replace('_', '-')}", *map(str, words)]
    return command


def script_environment() -> dict[str, str]:
    """The environment that rules set: our packages, no hub, one compute thread."""
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    # mutmut does not see which functions a script in another process calls (`make mutate`).
    return environment | ({"MUTANT_UNDER_TEST": ""} if environment.get("MUTANT_UNDER_TEST") == "stats" else {})


def run_script(script: str, folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `scripts.<script>` in `folder`, and wait for its end."""
    command = script_command(script, options)
    return subprocess.run(
        command, cwd=folder, env=script_environment(), capture_output=True, text=True, timeout=300, check=False
    )


def start_script(script: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    """Start `scripts.<script>` in `folder` without waiting for it."""
    return subprocess.Popen(
        script_command(script, options),
        cwd=folder,
        env=script_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def error_lines(run: subprocess.CompletedProcess[str]) -> list[str]:
    """What a script wrote to the terminal when it refused its input. Asserts exit code 1 and no traceback."""
    assert run.returncode == 1, run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    return run.stderr.splitlines()


def call_main(script: str, folder: Path, **options: Any) -> None:
    """Run the `main` of `scripts.<script>` in this process, which saves importing torch again.

    Use it for second runs and for exceptions. That a script runs as its own process is tested with `run_script`.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", script_command(script, options)[2:])
        patch.chdir(folder)
        try:
            importlib.import_module(f"scripts.{script}").main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
