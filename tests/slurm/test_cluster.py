"""The pipeline on a real Slurm: the smoke recipe whole, and what goes wrong on clusters."""

import copy
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from scripts.common.files import read_json
from tests.slurm.cluster import Cluster, wait_for
from tests.slurm.conftest import Head
from tests.workflow.running import read_recipe, write_recipe

pytestmark = pytest.mark.slurm

MakeHead = Callable[[dict[str, Any]], Head]


def _smoke(**resources: Any) -> dict[str, Any]:
    return copy.deepcopy(read_recipe("smoke")) | {"resources": resources}


def _long_stage(**train: Any) -> dict[str, Any]:
    """A stage that takes about a minute, and saves now and then."""
    recipe = _smoke(train={"gpus": 1} | train)
    recipe["stages"]["sft"]["args"] |= {"max_steps": 400, "save_steps": 20}
    return recipe


def _wait_for_checkpoint(head: Head) -> None:
    kept = head.folder / "work/smoke/models/sft/checkpoints"
    wait_for("a checkpoint", lambda: any(kept.glob("*/checkpoint-*/trainer_state.json")), seconds=240)


def _training_job(head: Head) -> str:
    """The number of the job that trains."""
    lines = head.cluster.ask("squeue", "-h", "-o", "%i %Z %k").splitlines()
    (number,) = [line.split()[0] for line in lines if str(head.folder) in line and "rule_train_sft" in line]
    return number


def _break(head: Head, fault: str, hurt: Callable[[], object], figures: list[str]) -> None:
    """Hurt the job that trains, wait until its stage goes on, and tell what that cost.

    Lost steps are those between the last that the log told of, every five seconds, and the one that it went on from.
    """
    log = head.folder / "logs/smoke/train_sft/sft.log"
    told = [int(step) for step in re.findall(r": (\d+)/\d+ steps", log.read_text())]
    began = time.monotonic()
    hurt()
    went_on = re.compile(r"going on from checkpoint-(\d+)")
    wait_for("the stage to go on", lambda: bool(went_on.search(log.read_text())), seconds=600)
    (step,) = went_on.findall(log.read_text())
    lost, seconds = max(0, max(told, default=0) - int(step)), time.monotonic() - began
    figures.append(f"{fault}: {lost} steps lost, {seconds:.0f} s until training went on")


def _end(process: "subprocess.Popen[str]", seconds: float = 600) -> str:
    """What a head says until it ends well."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output[-5000:]
    return output


def _weights(head: Head) -> str:
    return str(read_json(head.folder / "work/smoke/models/sft/manifest.json")["facts"]["weights_sha256"])


@pytest.fixture(scope="session")
def unbroken(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of the long stage when nothing disturbs it."""
    folder = tmp_path_factory.mktemp("unbroken")
    head = Head(cluster, folder, write_recipe(folder, _long_stage()))
    run = head.run("sft")
    assert run.returncode == 0, run.stdout[-5000:]
    return _weights(head)


def test_the_smoke_recipe_whole(make_head: MakeHead, cluster: Cluster, figures: list[str]) -> None:
    head = make_head(_smoke(train={"gpus": 4, "hours": 24}, evaluate={"gpus": 1}))
    since = time.strftime("%FT%T")
    began = time.monotonic()
    run = head.run()
    assert run.returncode == 0, run.stdout[-5000:]
    assert (head.folder / "results/smoke/report.pdf").read_bytes().startswith(b"%PDF")
    table = cluster.ask("sacct", "-X", "-n", "-P", "-S", since, "-o", "JobID,State,Timelimit,ReqTRES,Comment")
    trained = [line.split("|") for line in table.splitlines() if "rule_train_" in line]
    assert len(trained) == 2
    for _, state, limit, asked, _ in trained:
        assert (state, limit) == ("COMPLETED", "1-00:00:00") and "gres/gpu:h100=4" in asked
    figures.append(f"the smoke recipe whole: {time.monotonic() - began:.0f} s; {_describe_gaps(cluster, since)}")


def _describe_gaps(cluster: Cluster, since: str) -> str:
    """Seconds from the end of a job until the head submits what waited for it.

    What is submitted first waits for nothing, and what GPUs keep waiting is submitted already.
    """
    table = cluster.ask("sacct", "-X", "-n", "-P", "-S", since, "-o", "Submit,Start,End")
    jobs = [[datetime.fromisoformat(moment) for moment in line.split("|")] for line in table.splitlines()]
    ended = [[(submit - end).total_seconds() for _, _, end in jobs if end <= submit] for submit, _, _ in jobs]
    gaps = [min(seconds) for seconds in ended if seconds]
    starts = [(start - submit).total_seconds() for submit, start, _ in jobs]
    return (
        f"{len(jobs)} jobs; from the end of a job to the submission of the next a median of {median(gaps):.0f} s,"
        f" at most {max(gaps):.0f} s; from submission to start a median of {median(starts):.0f} s"
    )


def test_the_cluster_is_checked_against_the_run(make_head: MakeHead) -> None:
    fits = make_head(_smoke(train={"gpus": 4, "hours": 24})).run("check_cluster", "--quiet", "all")
    assert fits.returncode == 0, fits.stdout[-5000:]
    assert re.search(r"^ok  train_sft, train_dpo +4 x h100, 24 h, 8 GB: would start at", fits.stdout, re.MULTILINE)
    assert "\nok  compute node" in fits.stdout and "\nNO " not in fits.stdout

    unfit = make_head(_smoke(train={"gpus": 5}, evaluate={"gpus": 1, "hours": 48})).run(
        "check_cluster", "--quiet", "all"
    )
    assert unfit.returncode == 1
    told = unfit.stdout.splitlines()
    for begin, words in (
        ("NO  partition gpu", "up, at most 1-00:00:00, gpu:h100:4; of 1 nodes 1 are idle"),
        ("NO  train_sft, train_dpo", "5 x h100, 1 h, 8 GB: Requested node configuration is not available"),
        ("NO  run_benchmark", "1 x h100, 48 h, 8 GB: Requested time limit is invalid"),
        ("NO  GPUs on it", "none"),  # this torch has no GPU
    ):
        (line,) = [line for line in told if line.startswith(begin)]
        assert words in line


def test_status_names_the_job_at_work(make_head: MakeHead) -> None:
    head = make_head(_long_stage())
    process = head.start("sft")
    _wait_for_checkpoint(head)
    told = head.run("status", "--nolock", "--quiet", "all")
    assert told.returncode == 0, told.stdout
    assert re.search(
        r"^  sft  running  \d+/400 steps, loss .* tokens/s, .* left .*; checkpoint at step \d+", told.stdout, re.M
    )
    assert f"  {_training_job(head)}  running" in told.stdout
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=120)


def test_a_stage_beyond_its_time_limit_goes_on(make_head: MakeHead, unbroken: str) -> None:
    head = make_head(_long_stage(hours=1 / 60))
    output = _end(head.start("sft"), seconds=900)
    assert "going on from checkpoint-" in output
    assert _weights(head) == unbroken


def test_a_requeued_stage_goes_on(make_head: MakeHead, unbroken: str, figures: list[str]) -> None:
    head = make_head(_long_stage())
    process = head.start("sft")
    _wait_for_checkpoint(head)
    _break(head, "requeue", lambda: head.cluster.ask("scontrol", "requeue", _training_job(head)), figures)
    _end(process)
    assert _weights(head) == unbroken


def test_a_stage_goes_on_when_its_node_has_died(
    make_head: MakeHead, cluster: Cluster, unbroken: str, figures: list[str]
) -> None:
    def kill_node() -> None:
        cluster.kill_node("gpu1")
        wait_for("a dead node", lambda: "down" in cluster.ask("sinfo", "-h", "-o", "%t"), seconds=120)
        cluster.start_node("gpu1")

    head = make_head(_long_stage())
    process = head.start("sft")
    _wait_for_checkpoint(head)
    _break(head, "death of the node, up again once it is told down", kill_node, figures)
    _end(process)
    assert _weights(head) == unbroken


def test_a_cancelled_stage_is_tried_again(make_head: MakeHead, unbroken: str, figures: list[str]) -> None:
    head = make_head(_long_stage())
    process = head.start("sft")
    _wait_for_checkpoint(head)
    _break(head, "scancel", lambda: head.cluster.ask("scancel", _training_job(head)), figures)
    _end(process)
    assert _weights(head) == unbroken


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["killed", "terminal closed"])
def test_a_new_head_goes_on_after_the_first(make_head: MakeHead, unbroken: str, number: signal.Signals) -> None:
    head = make_head(_long_stage())
    first = head.start("sft")
    _wait_for_checkpoint(head)
    job = _training_job(head)
    os.kill(first.pid, number)
    first.communicate(timeout=60)

    head.run("--unlock")
    refused = head.run("sft")
    assert refused.returncode == 1
    assert f"error: jobs of an earlier Snakemake are still at work in this folder: {job}; wait" in refused.stdout
    wait_for("the job's end", lambda: not head.jobs(), seconds=300)
    _end(head.start("sft"))
    assert _weights(head) == unbroken


def test_two_heads_on_one_folder(make_head: MakeHead) -> None:
    head = make_head(_smoke(train={"gpus": 1}))
    first = head.start("sft")
    wait_for("a job", lambda: bool(head.jobs()), seconds=240)
    second = head.run("sft")
    assert second.returncode == 1
    _end(first)


@pytest.mark.parametrize(
    ("resources", "arguments", "line"),
    [
        ({"gpus": 5}, [], "Requested node configuration is not available"),
        ({"hours": 48}, [], "Requested time limit is invalid"),
        ({}, ["--default-resources", "slurm_account=nobody"], "The given account nobody appears to be invalid"),
    ],
    ids=["five GPUs of four", "two days of one", "unknown account"],
)
def test_what_the_cluster_cannot_give_is_told(
    make_head: MakeHead, resources: dict[str, Any], arguments: list[str], line: str
) -> None:
    run = make_head(_smoke(train={"gpus": 1} | resources)).run("sft", *arguments)
    assert run.returncode == 1
    assert line in run.stdout


def test_nine_evaluations_on_four_gpus(make_head: MakeHead, cluster: Cluster) -> None:
    recipe = _smoke(evaluate={"gpus": 1}) | {"stages": {}, "datasets": {}}
    section = recipe["benchmarks"]["chain_sum"]
    recipe["benchmarks"] = {
        f"sum{number}": section | {"source": section["source"] | {"seed": 100 * number}} for number in range(9)
    }
    head = make_head(recipe)
    process = head.start("benchmarks")
    most = 0
    while process.poll() is None:
        most = max(most, len(cluster.ask("squeue", "-h", "-t", "R", "-o", "%i").split()))
        assert most <= 4
        time.sleep(0.5)
    _end(process)
    assert most == 4


def test_accounting_may_be_gone_for_a_while(make_head: MakeHead, cluster: Cluster) -> None:
    head = make_head(_smoke(train={"gpus": 1}))
    process = head.start("sft")
    wait_for("a job", lambda: bool(head.jobs()), seconds=240)
    cluster.stop_accounting()
    time.sleep(20)
    cluster.start_accounting()
    _end(process)


def test_nodes_without_network(cut_off: Cluster, tmp_path: Path) -> None:
    head = Head(cut_off, tmp_path, write_recipe(tmp_path, _smoke()))
    checked = head.run("check_cluster", "--quiet", "all")
    assert re.search(r"ok  the hub from it +not reached; no job asks for it", checked.stdout), checked.stdout
    run = head.run()
    assert run.returncode == 0, run.stdout[-5000:]
    assert (tmp_path / "results/smoke/report.pdf").is_file()


def test_a_full_disk(make_head: MakeHead, tmp_path: Path, unbroken: str) -> None:
    (work := tmp_path / "work").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", work], check=True)
    try:
        head = make_head(_long_stage())
        process = head.start("sft")
        _wait_for_checkpoint(head)
        ballast = work / "ballast"
        with ballast.open("wb") as file:  # less is left than a checkpoint takes
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(work).free - 2_000_000)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 1
        assert re.search(r"error: .*no space left; free some, or set run.cache to a larger disk", output), output[
            -5000:
        ]
        ballast.unlink()
        _end(head.start("sft"))
        assert "going on from checkpoint-" in (tmp_path / "logs/smoke/train_sft/sft.log").read_text()
        assert _weights(head) == unbroken
    finally:
        subprocess.run(["umount", "--lazy", work], check=True)


def test_a_stage_on_two_nodes(two_nodes: Cluster, tmp_path: Path) -> None:
    recipe = _smoke(train={"gpus": 1, "nodes": 2})
    head = Head(two_nodes, tmp_path, write_recipe(tmp_path, recipe))
    run = head.run("sft")
    assert run.returncode == 0, run.stdout[-5000:]
    assert read_json(tmp_path / "work/smoke/models/sft/manifest.json")["facts"]["processes"] == 2
    table = two_nodes.ask("sacct", "-X", "-n", "-P", "-o", "NNodes,State,ReqTRES,Comment")
    (trained,) = [line for line in table.splitlines() if "rule_train_sft" in line]
    assert trained.startswith("2|COMPLETED|") and "gres/gpu:h100=2" in trained
