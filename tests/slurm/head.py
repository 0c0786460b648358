"""Snakemake on the login node, started as a user would start it."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.workflow.running import REPOSITORY


@dataclass
class Head:
    """Snakemake with the cluster's profile, in a separate folder."""

    cluster: Cluster
    folder: Path
    recipe: Path
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def command(self, *arguments: str) -> list[str]:
        """The command line."""
        # A process started by nohup or in the background ignores these signals, and its children inherit that.
        command = ["env", "--default-signal=INT,HUP", sys.executable, "-m", "snakemake"]
        command += ["--snakefile", str(REPOSITORY / "Snakefile")]
        command += ["--profile", str(REPOSITORY / "profiles" / "slurm"), "--directory", str(self.folder)]
        return [*command, *arguments, "--configfile", str(self.recipe)]  # last: it consumes all words that follow

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start it in a new session, with stdout and stderr in one pipe."""
        process = subprocess.Popen(
            self.command(*arguments),
            env=self.cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, seconds: float = 900) -> "subprocess.CompletedProcess[str]":
        """Run it and wait until it ends."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            pytest.fail(f"the head did not end within {seconds} s:\n{output[-5000:]}")
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def jobs(self) -> list[str]:
        """Numbers of the jobs in the queue that were submitted from this folder."""
        lines = self.cluster.ask("squeue", "-h", "-o", "%i %Z").splitlines()
        return [number for number, folder in (line.split(" ", 1) for line in lines) if folder == str(self.folder)]
