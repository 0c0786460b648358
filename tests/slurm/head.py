"""Snakemake on the login node, as a user of a cluster starts it."""

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
    """Snakemake with the cluster's profile, in a folder of its own."""

    cluster: Cluster
    folder: Path
    recipe: Path
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def command(self, *arguments: str) -> list[str]:
        """Its command line."""
        # What was started by nohup or in the background ignores these signals, and so do its children.
        command = ["env", "--default-signal=INT,HUP", sys.executable, "-m", "snakemake"]
        command += ["--snakefile", str(REPOSITORY / "Snakefile")]
        command += ["--profile", str(REPOSITORY / "profiles" / "slurm"), "--directory", str(self.folder)]
        return [*command, *arguments, "--configfile", str(self.recipe)]  # which takes all words that follow

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start it in a session of its own; output and errors go to stdout."""
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
        """Run it to its end."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            pytest.fail(f"the head did not end in {seconds} s:\n{output[-5000:]}")
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def jobs(self) -> list[str]:
        """Numbers of the jobs in the queue that were submitted from this folder."""
        lines = self.cluster.ask("squeue", "-h", "-o", "%i %Z").splitlines()
        return [number for number, folder in (line.split(" ", 1) for line in lines) if folder == str(self.folder)]
