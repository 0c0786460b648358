"""What goes wrong on clusters while a stage trains: it goes on, and ends with the weights of an unbroken run."""

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
    long_stage,
    read_log,
    resumed_step,
    told_steps,
    training_job,
    wait_for_checkpoint,
)
from tests.workflow.running import write_recipe

pytestmark = pytest.mark.slurm

RecordProperty = Callable[[str, object], None]


def train_undisturbed(cluster: Cluster, prepared: Path, folder: Path, recipe: dict[str, Any]) -> str:
    """Weights of the stage of a recipe when nothing disturbs it."""
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    head = Head(cluster, folder, write_recipe(folder, recipe))
    run = head.run("sft")
    assert run.returncode == 0, run.stdout[-5000:]
    return hash_of_weights(head)


@pytest.fixture(scope="session")
def unbroken(cluster: Cluster, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of the long stage when nothing disturbs it."""
    return train_undisturbed(cluster, prepared, tmp_path_factory.mktemp("unbroken"), long_stage())


def break_stage(head: Head, fault: str, hurt: Callable[[], object], record_property: RecordProperty) -> None:
    """Hurt the job that trains, wait until its stage goes on, and tell what that cost."""
    told = told_steps(read_log(head))
    began = time.monotonic()
    hurt()
    tell_recovery(head, fault, told, began, record_property)


def tell_recovery(head: Head, fault: str, told: list[int], began: float, record_property: RecordProperty) -> None:
    """Wait until the stage goes on, and tell what was lost since.

    Lost steps are those between the last that the log told of, every five seconds, and the one that it went on from.
    """
    wait_for("the stage to go on", lambda: resumed_step(read_log(head)) is not None, seconds=600)
    lost = max(0, max(told, default=0) - (resumed_step(read_log(head)) or 0))
    seconds = time.monotonic() - began
    record_property("measured", f"{fault}: {lost} steps lost, {seconds:.0f} s until training went on")


def test_a_stage_beyond_its_time_limit_goes_on(
    stage_head: StageHead,
    cluster: Cluster,
    prepared: Path,
    tmp_path_factory: pytest.TempPathFactory,
    record_property: RecordProperty,
) -> None:
    steps = 600  # more than a fast machine trains in the minute and a half that SLURM takes to notice
    unlimited = train_undisturbed(cluster, prepared, tmp_path_factory.mktemp("unlimited"), long_stage(steps))
    head = stage_head(steps, hours=1 / 60)
    # How many allocations it takes depends on what else this machine does.
    output = end_well(head.start("sft", "--retries", "12"), seconds=2400)
    assert "going on from checkpoint-" in output and "Trying to restart job" in output
    record_property("measured", f"time limit of a minute: {describe_allocations(head)}")
    assert hash_of_weights(head) == unlimited


def test_a_requeued_stage_goes_on(stage_head: StageHead, unbroken: str, record_property: RecordProperty) -> None:
    head = stage_head()
    process = head.start("sft")
    wait_for_checkpoint(head)
    break_stage(head, "requeue", lambda: head.cluster.ask("scontrol", "requeue", training_job(head)), record_property)
    end_well(process)
    assert hash_of_weights(head) == unbroken


def test_a_stage_goes_on_when_its_node_has_died(
    stage_head: StageHead, cluster: Cluster, unbroken: str, record_property: RecordProperty
) -> None:
    def kill_node() -> None:
        cluster.kill_node("gpu1")
        wait_for("a dead node", lambda: "down" in cluster.ask("sinfo", "-h", "-o", "%t"), seconds=120)
        cluster.start_node("gpu1")

    head = stage_head()
    process = head.start("sft")
    wait_for_checkpoint(head)
    break_stage(head, "death of the node, up again once it is told down", kill_node, record_property)
    end_well(process)
    assert hash_of_weights(head) == unbroken


def test_a_cancelled_stage_goes_on(stage_head: StageHead, unbroken: str, record_property: RecordProperty) -> None:
    head = stage_head()
    process = head.start("sft")
    wait_for_checkpoint(head)
    break_stage(head, "scancel", lambda: head.cluster.ask("scancel", training_job(head)), record_property)
    end_well(process)
    assert hash_of_weights(head) == unbroken


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["killed", "terminal closed"])
def test_a_new_head_goes_on_after_the_first(
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
    assert f"error: jobs of an earlier Snakemake are still at work in this folder: {job}; wait" in refused.stdout
    wait_for("the job's end", lambda: not head.jobs(), seconds=300)
    assert resumed_step(read_log(head)) is None  # the job never stopped
    (weights,) = (head.folder / "work/smoke/models/sft").rglob("model.safetensors")
    written = weights.stat().st_mtime_ns
    began = time.monotonic()
    end_well(head.start("sft"))
    assert weights.stat().st_mtime_ns == written  # nor is it trained a second time
    seconds = time.monotonic() - began
    record_property(
        "measured", f"head ended by {number.name}: 0 steps lost, {seconds:.0f} s until the next one is done"
    )
    assert hash_of_weights(head) == unbroken


def test_a_full_disk(stage_head: StageHead, tmp_path: Path, unbroken: str, record_property: RecordProperty) -> None:
    (work := tmp_path / "work").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", work], check=True)
    try:
        head = stage_head()
        process = head.start("sft")
        wait_for_checkpoint(head)
        ballast = work / "ballast"
        with ballast.open("wb") as file:  # less is left than a checkpoint takes
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(work).free - 2_000_000)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 1
        assert re.search(r"error: .*no space left; free some, or set run.cache to a larger disk", output), output[
            -5000:
        ]
        told = told_steps(output)
        (head.folder / LOG).unlink()  # another attempt went on, too, and found the disk as full
        ballast.unlink()
        began = time.monotonic()
        process = head.start("sft")
        tell_recovery(head, "full disk, from the next start on", told, began, record_property)
        end_well(process)
        assert hash_of_weights(head) == unbroken
    finally:
        subprocess.run(["umount", "--lazy", work], check=True)
