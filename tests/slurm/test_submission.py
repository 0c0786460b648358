"""The pipeline on a real Slurm: what is asked for, what is given, and what is refused."""

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


def test_the_smoke_recipe_whole(make_head: MakeHead, cluster: Cluster, record_property: RecordProperty) -> None:
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
    for _, state, limit, asked, _ in trained:
        assert (state, limit) == ("COMPLETED", "1-00:00:00") and "gres/gpu:h100=4" in asked
    record_property(
        "measured",
        f"the smoke recipe whole: {time.monotonic() - began:.0f} s, of which Snakemake takes {start_up:.1f} s until it"
        f" knows what to do; {_describe_gaps(cluster, since)}",
    )


def _describe_gaps(cluster: Cluster, since: str) -> str:
    """Seconds from the end of a job until the head submits what waited for it, or for its GPUs.

    What is submitted first waits for nothing.
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
    fits = make_head(smoke(train={"gpus": 4, "hours": 24}, evaluate={"gpus": 1})).run("check_cluster", "--quiet", "all")
    assert re.search(r"^ok  train_sft, train_dpo +4 x h100, 24 h, 8 GB: would start at", fits.stdout, re.MULTILINE)
    for what in ("account posttrain", "compute node", "folders on it"):
        assert f"\nok  {what} " in fits.stdout
    (only,) = [line for line in fits.stdout.splitlines() if line.startswith("NO ")]
    assert only.startswith("NO  GPUs on it") and fits.returncode == 1, "this torch has no GPU"

    unused = make_head(smoke(train={"gpus": 4})).run("check_cluster", "--quiet", "all")
    (only,) = [line for line in unused.stdout.splitlines() if line.startswith("NO ")]
    assert only.endswith("SLURM is asked for 1 GPUs, and the configuration means 0") and unused.returncode == 1

    unfit = make_head(smoke(train={"gpus": 5}, evaluate={"gpus": 1, "hours": 48})).run(
        "check_cluster", "--quiet", "all"
    )
    assert unfit.returncode == 1
    told = unfit.stdout.splitlines()
    for begin, words in (
        ("NO  partition gpu", "up, at most 1-00:00:00, gpu:h100:4; of 1 nodes 1 are idle"),
        (
            "NO  train_sft, train_dpo",
            "5 x h100, 1 h, 8 GB: allocation failure: Requested node configuration is not available",
        ),
        (
            "NO  sample_rejections and 3 more",
            "1 x h100, 48 h, 8 GB: allocation failure: Requested time limit is invalid",
        ),
        ("NO  GPUs on it", "none"),  # this torch has no GPU
    ):
        (line,) = [line for line in told if line.startswith(begin)]
        assert words in line


def test_status_names_the_job_at_work(stage_head: StageHead) -> None:
    head = stage_head()
    process = head.start("sft")
    wait_for_checkpoint(head)
    told = head.run("status", "--nolock", "--quiet", "all")
    assert told.returncode == 0, told.stdout
    assert re.search(
        r"^  sft  running  \d+/300 steps, loss .* tokens/s, .* left .*; checkpoint at step \d+", told.stdout, re.M
    )
    assert f"  {training_job(head)}  running" in told.stdout
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=120)


def test_two_heads_on_one_folder(make_head: MakeHead) -> None:
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
        ({}, ["--default-resources", "slurm_account=nobody"], "The given account nobody appears to be invalid"),
    ],
    ids=["five GPUs of four", "two days of one", "unknown account"],
)
def test_what_the_cluster_cannot_give_is_told(
    make_head: MakeHead, resources: dict[str, Any], arguments: list[str], line: str
) -> None:
    run = make_head(smoke(train={"gpus": 1} | resources)).run("sft", *arguments)
    assert run.returncode == 1
    assert line in run.stdout


def test_nine_evaluations_on_four_of_eight_gpus(two_nodes: Cluster, tmp_path: Path) -> None:
    """SLURM would give all eight: it is the configuration that asks for four at once, and gets all four."""
    recipe = smoke(gpus=4, evaluate={"gpus": 1}) | {"stages": {}, "datasets": {}}
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
    asked = two_nodes.ask("sacct", "-X", "-n", "-P", "-o", "State,ReqTRES,Comment").splitlines()
    scored = [line for line in asked if "rule_run_benchmark" in line]
    assert len(scored) == 9 and all("COMPLETED" in line and "gres/gpu:h100=1" in line for line in scored)


def test_short_jobs_share_an_allocation(make_head: MakeHead, cluster: Cluster) -> None:
    since = time.strftime("%FT%T")
    rows = [f"work/smoke/datasets/{name}/train.parquet" for name in ("sums", "more_sums")]
    run = make_head(smoke()).run(*rows, "--groups", "inspect_rows=rows", "filter_dataset=rows")
    assert run.returncode == 0, run.stdout[-5000:]
    jobs = cluster.ask("sacct", "-X", "-n", "-P", "-S", since, "-o", "State,Comment").splitlines()
    assert jobs == ["COMPLETED|rule_rows_filter_dataset_inspect_rows"] * len(rows)


def test_accounting_may_be_gone_for_a_while(make_head: MakeHead, cluster: Cluster) -> None:
    head = make_head(smoke(train={"gpus": 1}))
    process = head.start("sft")
    wait_for("a job", lambda: bool(head.jobs()), seconds=240)
    cluster.stop_accounting()
    wait_for(
        "training to be submitted", lambda: "rule_train_sft" in cluster.ask("squeue", "-h", "-o", "%k"), seconds=240
    )
    time.sleep(10)
    cluster.start_accounting()
    end_well(process)


def test_nodes_without_network(cut_off: Cluster, tmp_path: Path) -> None:
    head = Head(cut_off, tmp_path, write_recipe(tmp_path, smoke()))
    checked = head.run("check_cluster", "--quiet", "all")
    assert re.search(r"ok  the hub from it +not reached; no job asks for it", checked.stdout), checked.stdout
    score = "results/smoke/scores/base/chain_sum.json"
    run = head.run("sft", score)
    assert run.returncode == 0, run.stdout[-5000:]
    assert read_json(tmp_path / score)["n"] == 16


def test_a_stage_on_two_nodes(two_nodes: Cluster, tmp_path: Path) -> None:
    recipe = smoke(train={"gpus": 1, "nodes": 2})
    head = Head(two_nodes, tmp_path, write_recipe(tmp_path, recipe))
    run = head.run("sft")
    assert run.returncode == 0, run.stdout[-5000:]
    assert read_json(tmp_path / "work/smoke/models/sft/manifest.json")["facts"]["processes"] == 2
    table = two_nodes.ask("sacct", "-X", "-n", "-P", "-o", "NNodes,State,ReqTRES,Comment")
    (trained,) = [line for line in table.splitlines() if "rule_train_sft" in line]
    assert trained.startswith("2|COMPLETED|") and "gres/gpu:h100=2" in trained
