"""What goes wrong on clusters while a stage trains: it goes on, and ends with the weights of an unbroken run."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, wait_for
from tests.slurm.conftest import StageHead
from tests.slurm.head import Head
from tests.slurm.stages import end_well, hash_of_weights, long_stage, read_log, training_job, wait_for_checkpoint
from tests.workflow.running import write_recipe

pytestmark = pytest.mark.slurm

RecordProperty = Callable[[str, object], None]


@pytest.fixture(scope="session")
def unbroken(cluster: Cluster, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of the long stage when nothing disturbs it."""
    folder = tmp_path_factory.mktemp("unbroken")
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    head = Head(cluster, folder, write_recipe(folder, long_stage()))
    run = head.run("sft")
    assert run.returncode == 0, run.stdout[-5000:]
    return hash_of_weights(head)


def break_stage(head: Head, fault: str, hurt: Callable[[], object], record_property: RecordProperty) -> None:
    """Hurt the job that trains, wait until its stage goes on, and tell what that cost.

    Lost steps are those between the last that the log told of, every five seconds, and the one that it went on from.
    """
    told = [int(step) for step in re.findall(r": (\d+)/\d+ steps", read_log(head))]
    began = time.monotonic()
    hurt()
    went_on = re.compile(r"going on from checkpoint-(\d+)")
    wait_for("the stage to go on", lambda: bool(went_on.search(read_log(head))), seconds=600)
    (step,) = went_on.findall(read_log(head))
    lost, seconds = max(0, max(told, default=0) - int(step)), time.monotonic() - began
    record_property("measured", f"{fault}: {lost} steps lost, {seconds:.0f} s until training went on")


def test_a_stage_beyond_its_time_limit_goes_on(stage_head: StageHead, unbroken: str) -> None:
    head = stage_head(hours=1 / 60)
    # How many allocations it takes depends on what else this machine does.
    output = end_well(head.start("sft", "--retries", "9"), seconds=1200)
    assert "going on from checkpoint-" in output and "Trying to restart job" in output
    assert hash_of_weights(head) == unbroken


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
def test_a_new_head_goes_on_after_the_first(stage_head: StageHead, unbroken: str, number: signal.Signals) -> None:
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
    end_well(head.start("sft"))
    assert hash_of_weights(head) == unbroken


def test_a_full_disk(stage_head: StageHead, tmp_path: Path, unbroken: str) -> None:
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
        ballast.unlink()
        end_well(head.start("sft"))
        assert "going on from checkpoint-" in read_log(head)
        assert hash_of_weights(head) == unbroken
    finally:
        subprocess.run(["umount", "--lazy", work], check=True)
