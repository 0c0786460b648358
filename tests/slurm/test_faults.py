"""Faults of clusters while a stage trains: it resumes, and ends with the weights of an undisturbed run."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster, wait_for
from tests.slurm.conftest import StageHead
from tests.slurm.head import Head
from tests.slurm.stages import (
    LOG,
    describe_allocations,
    end_well,
    hash_of_weights,
    logged_steps,
    long_stage,
    read_log,
    resumed_step,
    training_job,
    wait_for_checkpoint,
)
from tests.workflow.running import write_recipe

pytestmark = pytest.mark.slurm

RecordProperty = Callable[[str, object], None]


def train_undisturbed(cluster: Cluster, prepared: Path, folder: Path, recipe: dict[str, Any]) -> str:
    """SHA-256 of the weights of a recipe's stage sft without a fault."""
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    head = Head(cluster, folder, write_recipe(folder, recipe))
    run = head.run("sft")
    assert run.returncode == 0, run.stdout[-5000:]
    return hash_of_weights(head)


@pytest.fixture(scope="session")
def unbroken(cluster: Cluster, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """SHA-256 of the weights of the long stage without a fault."""
    return train_undisturbed(cluster, prepared, tmp_path_factory.mktemp("unbroken"), long_stage())


def break_stage(head: Head, fault: str, strike: Callable[[], object], record_property: RecordProperty) -> None:
    """Disturb the training job, wait until its stage resumes, and record what that cost."""
    logged = logged_steps(read_log(head))
    began = time.monotonic()
    strike()
    record_recovery(head, fault, logged, began, record_property)


def record_recovery(head: Head, fault: str, logged: list[int], began: float, record_property: RecordProperty) -> None:
    """Wait until the stage resumes, and record the lost steps and the seconds since `began`.

    Lost steps are those between the last step in the log, which has a line every five seconds, and the step from which
    training resumed.
    """
    wait_for("the stage to resume", lambda: resumed_step(read_log(head)) is not None, seconds=600)
    lost = max(0, max(logged, default=0) - (resumed_step(read_log(head)) or 0))
    seconds = time.monotonic() - began
    record_property("measured", f"{fault}: {lost} steps lost, {seconds:.0f} s until training resumed")


def test_a_stage_resumes_after_a_time_limit(
    stage_head: StageHead,
    cluster: Cluster,
    prepared: Path,
    tmp_path_factory: pytest.TempPathFactory,
    record_property: RecordProperty,
) -> None:
    steps = 600  # more than a fast machine trains in the minute and a half until SLURM enforces the limit
    unlimited = train_undisturbed(cluster, prepared, tmp_path_factory.mktemp("unlimited"), long_stage(steps))
    head = stage_head(steps, hours=1 / 60)
    # The number of allocations depends on the load of this machine.
    output = end_well(head.start("sft", "--retries", "12"), seconds=2400)
    assert "resuming from checkpoint-" in output and "Trying to restart job" in output
    record_property("measured", f"time limit of a minute: {describe_allocations(head)}")
    assert hash_of_weights(head) == unlimited


def test_a_requeued_stage_resumes(stage_head: StageHead, unbroken: str, record_property: RecordProperty) -> None:
    head = stage_head()
    process = head.start("sft")
    wait_for_checkpoint(head)
    break_stage(head, "requeue", lambda: head.cluster.ask("scontrol", "requeue", training_job(head)), record_property)
    end_well(process)
    assert hash_of_weights(head) == unbroken


def test_a_stage_resumes_after_its_node_died(
    stage_head: StageHead, cluster: Cluster, unbroken: str, record_property: RecordProperty
) -> None:
    def kill_node() -> None:
        cluster.kill_node("gpu1")
        wait_for(
            "SLURM to report the node as down", lambda: "down" in cluster.ask("sinfo", "-h", "-o", "%t"), seconds=120
        )
        cluster.start_node("gpu1")

    head = stage_head()
    process = head.start("sft")
    wait_for_checkpoint(head)
    break_stage(head, "node failure, node up again once reported down", kill_node, record_property)
    end_well(process)
    assert hash_of_weights(head) == unbroken


def test_a_cancelled_stage_resumes(stage_head: StageHead, unbroken: str, record_property: RecordProperty) -> None:
    head = stage_head()
    process = head.start("sft")
    wait_for_checkpoint(head)
    break_stage(head, "scancel", lambda: head.cluster.ask("scancel", training_job(head)), record_property)
    end_well(process)
    assert hash_of_weights(head) == unbroken


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["killed", "terminal closed"])
def test_a_new_head_continues_after_the_first(
    stage_head: StageHead, unbroken: str, number: signal.Signals, record_property: RecordProperty
) -> None:
    head = stage_head()
    first = head.start("sft")
    wait_for_checkpoint(head)
    job = training_job(head)
    os.kill(first.pid, number)
    first.communicate(timeout=60)

    head.run("--unlock")
    refused = head.run("sft")
    assert refused.returncode == 1
    assert (
        f"error: jobs of an earlier Snakemake are still queued or running in this folder: {job}; wait" in refused.stdout
    )
    wait_for("the end of the job", lambda: not head.jobs(), seconds=300)
    assert resumed_step(read_log(head)) is None  # the job was never interrupted
    (weights,) = (head.folder / "work/smoke/models/sft").rglob("model.safetensors")
    written = weights.stat().st_mtime_ns
    began = time.monotonic()
    end_well(head.start("sft"))
    assert weights.stat().st_mtime_ns == written  # the stage is not trained a second time
    seconds = time.monotonic() - began
    record_property(
        "measured", f"head ended by {number.name}: 0 steps lost, {seconds:.0f} s until the next one is done"
    )
    assert hash_of_weights(head) == unbroken


def test_a_stage_resumes_after_a_full_disk(
    stage_head: StageHead, tmp_path: Path, unbroken: str, record_property: RecordProperty
) -> None:
    (work := tmp_path / "work").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", work], check=True)
    try:
        head = stage_head()
        process = head.start("sft")
        wait_for_checkpoint(head)
        ballast = work / "ballast"
        with ballast.open("wb") as file:  # leave less space than a checkpoint needs
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(work).free - 2_000_000)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 1
        assert re.search(r"error: .*no space left; free up space, or set run.cache to a larger disk", output), output[
            -5000:
        ]
        logged = logged_steps(output)
        (head.folder / LOG).unlink()  # from a later attempt, which resumed and found the disk full as well
        ballast.unlink()
        began = time.monotonic()
        process = head.start("sft")
        record_recovery(head, "full disk, from the next start on", logged, began, record_property)
        end_well(process)
        assert hash_of_weights(head) == unbroken
    finally:
        subprocess.run(["umount", "--lazy", work], check=True)
