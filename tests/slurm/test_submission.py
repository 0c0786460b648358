"""The pipeline on a real Slurm: what jobs request, what they get, and what SLURM refuses."""

import os
import re
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from scripts.common.files import read_json
from tests.slurm.cluster import Cluster, wait_for
from tests.slurm.conftest import MakeHead, StageHead
from tests.slurm.head import Head
from tests.slurm.stages import end_well, smoke, training_job, wait_for_checkpoint
from tests.workflow.running import write_recipe

pytestmark = pytest.mark.slurm

RecordProperty = Callable[[str, object], None]


def test_the_smoke_recipe_runs_completely(
    make_head: MakeHead, cluster: Cluster, record_property: RecordProperty
) -> None:
    head = make_head(smoke(train={"gpus": 4, "hours": 24}, evaluate={"gpus": 1}))
    began = time.monotonic()
    assert head.run("--dry-run", "--quiet", "all").returncode == 0
    start_up = time.monotonic() - began
    since = time.strftime("%FT%T")
    began = time.monotonic()
    run = head.run()
    assert run.returncode == 0, run.stdout[-5000:]
    assert (head.folder / "results/smoke/report.pdf").read_bytes().startswith(b"%PDF")
    table = cluster.ask("sacct", "-X", "-n", "-P", "-S", since, "-o", "JobID,State,Timelimit,ReqTRES,Comment")
    trained = [line.split("|") for line in table.splitlines() if "rule_train_" in line]
    assert len(trained) == 2
    for _, state, limit, requested, _ in trained:
        assert (state, limit) == ("COMPLETED", "1-00:00:00") and "gres/gpu:h100=4" in requested
    record_property(
        "measured",
        f"the complete smoke recipe: {time.monotonic() - began:.0f} s, of which Snakemake needs {start_up:.1f} s to"
        f" build its graph of jobs; {_describe_gaps(cluster, since)}",
    )


def _describe_gaps(cluster: Cluster, since: str) -> str:
    """Seconds from the end of a job until the head submits the next one, which waited for its files or GPUs.

    Jobs that were submitted before any job ended do not count.
    """
    table = cluster.ask("sacct", "-X", "-n", "-P", "-S", since, "-o", "Submit,Start,End")
    jobs = [[datetime.fromisoformat(moment) for moment in line.split("|")] for line in table.splitlines()]
    ended = [[(submit - end).total_seconds() for _, _, end in jobs if end <= submit] for submit, _, _ in jobs]
    gaps = [min(seconds) for seconds in ended if seconds]
    starts = [(start - submit).total_seconds() for submit, start, _ in jobs]
    return (
        f"{len(jobs)} jobs; from the end of a job to the next submission a median of {median(gaps):.0f} s,"
        f" at most {max(gaps):.0f} s; from submission to start a median of {median(starts):.0f} s"
    )


def test_check_cluster_compares_the_run_with_the_cluster(make_head: MakeHead) -> None:
    fits = make_head(smoke(train={"gpus": 4, "hours": 24}, evaluate={"gpus": 1})).run("check_cluster", "--quiet", "all")
    assert re.search(r"^ok  train_sft, train_dpo +4 x h100, 24 h, 8 GB: would start at", fits.stdout, re.MULTILINE)
    for what in ("account posttrain", "compute node", "folders on the node"):
        assert f"\nok  {what} " in fits.stdout
    (only,) = [line for line in fits.stdout.splitlines() if line.startswith("NO ")]
    assert only.startswith("NO  GPUs on the node") and fits.returncode == 1, "this torch has no GPU"

    unused = make_head(smoke(train={"gpus": 4})).run("check_cluster", "--quiet", "all")
    (only,) = [line for line in unused.stdout.splitlines() if line.startswith("NO ")]
    assert only.endswith("GPUs: 1 requested from SLURM, 0 needed by the configuration") and unused.returncode == 1

    unfit = make_head(smoke(train={"gpus": 5}, evaluate={"gpus": 1, "hours": 48})).run(
        "check_cluster", "--quiet", "all"
    )
    assert unfit.returncode == 1
    lines = unfit.stdout.splitlines()
    for begin, words in (
        ("NO  partition gpu", "up, time limit 1-00:00:00, gpu:h100:4; nodes: 1 idle"),
        (
            "NO  train_sft, train_dpo",
            "5 x h100, 1 h, 8 GB: allocation failure: Requested node configuration is not available",
        ),
        (
            "NO  sample_rejections and 3 more",
            "1 x h100, 48 h, 8 GB: allocation failure: Requested time limit is invalid",
        ),
        ("NO  GPUs on the node", "none"),  # this torch has no GPU
    ):
        (line,) = [line for line in lines if line.startswith(begin)]
        assert words in line


def test_status_shows_the_running_job(stage_head: StageHead) -> None:
    head = stage_head()
    process = head.start("sft")
    wait_for_checkpoint(head)
    status = head.run("status", "--nolock", "--quiet", "all")
    assert status.returncode == 0, status.stdout
    assert re.search(
        r"^  sft  running  \d+/300 steps, loss .* tokens/s, .* left .*; checkpoint at step \d+", status.stdout, re.M
    )
    assert f"  {training_job(head)}  running" in status.stdout
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=120)


def test_a_second_head_in_the_same_folder_is_refused(make_head: MakeHead) -> None:
    head = make_head(smoke(train={"gpus": 1}))
    first = head.start("sft")
    wait_for("a job", lambda: bool(head.jobs()), seconds=240)
    second = head.run("sft")
    assert second.returncode == 1
    assert second.stdout.count("Error: Directory cannot be locked.") == 1, second.stdout[-5000:]
    assert "has been submitted" not in second.stdout
    end_well(first)


@pytest.mark.parametrize(
    ("resources", "arguments", "line"),
    [
        ({"gpus": 5}, [], "Requested node configuration is not available"),
        ({"hours": 48}, [], "Requested time limit is invalid"),
        ({}, ["--default-resources", "slurm_account=absent"], "The given account absent appears to be invalid"),
    ],
    ids=["five GPUs", "two days", "unknown account"],
)
def test_a_request_that_cannot_be_met_is_reported(
    make_head: MakeHead, resources: dict[str, Any], arguments: list[str], line: str
) -> None:
    run = make_head(smoke(train={"gpus": 1} | resources)).run("sft", *arguments)
    assert run.returncode == 1
    assert line in run.stdout


def test_nine_evaluations_on_four_of_eight_gpus(two_nodes: Cluster, tmp_path: Path) -> None:
    """SLURM would allot all eight GPUs. The configuration limits the run to four, and the run uses all four."""
    recipe = smoke(gpus=4, evaluate={"gpus": 1}) | {"stages": {}, "expectations": {}, "datasets": {}}
    section = recipe["benchmarks"]["chain_sum"]
    recipe["benchmarks"] = {
        f"sum{number}": section | {"source": section["source"] | {"seed": 100 * number}} for number in range(9)
    }
    process = Head(two_nodes, tmp_path, write_recipe(tmp_path, recipe)).start("benchmarks")
    most = 0
    while process.poll() is None:
        most = max(most, len(two_nodes.ask("squeue", "-h", "-t", "R", "-o", "%i").split()))
        time.sleep(0.5)
    end_well(process)
    assert most == 4
    table = two_nodes.ask("sacct", "-X", "-n", "-P", "-o", "State,ReqTRES,Comment").splitlines()
    scored = [line for line in table if "rule_run_benchmark" in line]
    assert len(scored) == 9 and all("COMPLETED" in line and "gres/gpu:h100=1" in line for line in scored)


def test_short_jobs_share_an_allocation(make_head: MakeHead, cluster: Cluster) -> None:
    since = time.strftime("%FT%T")
    rows = [f"work/smoke/datasets/{name}/train.parquet" for name in ("sums", "more_sums")]
    run = make_head(smoke()).run(*rows, "--groups", "inspect_rows=rows", "filter_dataset=rows")
    assert run.returncode == 0, run.stdout[-5000:]
    jobs = cluster.ask("sacct", "-X", "-n", "-P", "-S", since, "-o", "State,Comment").splitlines()
    assert jobs == ["COMPLETED|rule_rows_filter_dataset_inspect_rows"] * len(rows)


def test_a_run_survives_an_outage_of_accounting(make_head: MakeHead, cluster: Cluster) -> None:
    head = make_head(smoke(train={"gpus": 1}))
    process = head.start("sft")
    wait_for("a job", lambda: bool(head.jobs()), seconds=240)
    cluster.stop_accounting()
    wait_for("the training job", lambda: "rule_train_sft" in cluster.ask("squeue", "-h", "-o", "%k"), seconds=240)
    time.sleep(10)
    cluster.start_accounting()
    end_well(process)


def test_nodes_need_no_network(cut_off: Cluster, tmp_path: Path) -> None:
    head = Head(cut_off, tmp_path, write_recipe(tmp_path, smoke()))
    checked = head.run("check_cluster", "--quiet", "all")
    assert re.search(r"ok  hub from the node +not reachable; no job needs it", checked.stdout), checked.stdout
    score = "results/smoke/scores/base/chain_sum.json"
    run = head.run("sft", score)
    assert run.returncode == 0, run.stdout[-5000:]
    assert read_json(tmp_path / score)["n"] == 16


def test_a_stage_trains_on_two_nodes(two_nodes: Cluster, tmp_path: Path) -> None:
    recipe = smoke(train={"gpus": 1, "nodes": 2})
    head = Head(two_nodes, tmp_path, write_recipe(tmp_path, recipe))
    run = head.run("sft")
    assert run.returncode == 0, run.stdout[-5000:]
    assert read_json(tmp_path / "work/smoke/models/sft/manifest.json")["facts"]["processes"] == 2
    table = two_nodes.ask("sacct", "-X", "-n", "-P", "-o", "NNodes,State,ReqTRES,Comment")
    (trained,) = [line for line in table.splitlines() if "rule_train_sft" in line]
    assert trained.startswith("2|COMPLETED|") and "gres/gpu:h100=2" in trained
