"""What the cluster has against what the run asks for; the same on a real Slurm in tests/slurm."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.cluster.check_cluster import (
    check_memory_of_jobs,
    check_partition,
    check_request,
    group_requests,
    read_minutes,
)
from scripts.cluster.node import check_node, describe_node
from scripts.cluster.request import Request
from scripts.cluster.supplies import check_disk, check_downloads
from scripts.common.config import Config
from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.common.load_config import load_config
from tests.cluster.conftest import Tool
from tests.common.running import call_main
from tests.workflow.running import read_recipe

ASKED: dict[str, Any] = {
    **{"_cores": 8, "cpus_per_task": 8, "gpu": 4, "gpu_model": "h100", "nodes": 1, "runtime": 1440},
    **{"mem_mb": 400_000, "slurm_partition": "gpu", "slurm_account": "me", "slurm_extra": "--open-mode=append"},
}

SETTINGS: dict[str, Any] = {"qos": None, "reservation": None, "requeue": None, "no_requeue": None}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The smoke recipe with a model and a benchmark from the hub, and a cache of its own."""
    recipe = read_recipe("smoke")
    recipe["model"]["source"] = {"kind": "hub", "repository": "Qwen/Qwen3-4B-Base", "revision": "0" * 40}
    recipe["benchmarks"]["piqa"] = {"task": "piqa", "source": {"kind": "hub"}, "metric": "acc", "filter": "none"}
    recipe["run"]["cache"] = str(tmp_path / "cache")
    return load_config(recipe)


def test_a_request_is_what_the_executor_submits() -> None:
    command = Request(ASKED, SETTINGS | {"qos": "long"}).command()
    assert command[:2] == ["sbatch", "--parsable"]
    words = " ".join(command)
    for asked in ("-A me", "-p gpu", "-t 1440", "--mem 400000", "--nodes=1", "--gpus=h100:4", "--qos=long"):
        assert asked in words
    assert "-t 10" in " ".join(Request(ASKED, SETTINGS).command(runtime=10))


@pytest.mark.parametrize(
    ("resources", "gpus", "described"),
    [
        ({}, 4, "4 x h100, 24 h, 400 GB"),
        ({"gpu_model": None}, 4, "4 x GPU, 24 h, 400 GB"),
        ({"gpu": 0, "gres": "gpu:h100:2", "gpu_model": None}, 2, "gpu:h100:2, 24 h, 400 GB"),
        ({"gpu": 0, "gpu_model": None}, 0, "no GPU, 24 h, 400 GB"),
    ],
)
def test_gpus_are_counted_whichever_way_they_are_asked_for(
    resources: dict[str, Any], gpus: int, described: str
) -> None:
    request = Request(ASKED | resources, SETTINGS)
    assert (request.gpus, request.describe()) == (gpus, described)


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"gpu_model": "a100-40g"}, "Invalid GPU model format"),
        ({"slurm_extra": "--gres=gpu:1"}, "not allowed in the 'slurm_extra' parameter"),
    ],
)
def test_what_the_executor_would_not_submit_is_told(resources: dict[str, Any], said: str) -> None:
    finding = check_request("train_sft", Request(ASKED | resources, SETTINGS))
    assert said in finding.found and finding.advice == "mend the profile"


def test_rules_that_ask_for_the_same_are_one_line() -> None:
    one, other = Request(ASKED, SETTINGS), Request(ASKED | {"gpu": 1}, SETTINGS)
    groups = group_requests({"train_sft": one, "run_benchmark": other, "train_dpo": one})
    assert list(groups) == ["train_sft, train_dpo", "run_benchmark"]
    many = dict.fromkeys(["sample_rejections", "run_benchmark", "score_preferences"], other)
    assert list(group_requests(many)) == ["sample_rejections and 2 more"]


def test_without_slurm_one_line_says_where_to_start(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no SLURM here: sbatch is not in the path; start this on"):
        call_main("cluster.check_cluster", tmp_path, config=config.part(), requests={}, settings={}, work="work")


def test_without_the_profile_one_line_says_so(tmp_path: Path, config: Config, tool: Tool) -> None:
    tool("sbatch", "exit 0")
    with pytest.raises(UserError, match="start this with `--profile slurm`"):
        call_main("cluster.check_cluster", tmp_path, config=config.part(), requests={}, settings={}, work="work")


def test_no_partition_is_told() -> None:
    assert check_partition("", 60).advice == "set slurm_partition in the profile"


def test_an_unknown_partition_is_told_with_those_there_are(tool: Tool) -> None:
    tool("sinfo", 'case "$*" in *--partition*) ;; *) echo cpu; echo a100; echo cpu ;; esac')
    assert check_partition("gpu", 60).advice == "set slurm_partition in the profile to one of: cpu, a100"


@pytest.mark.parametrize(
    ("row", "advice"),
    [
        ("up|2-00:00:00|3/1/0/4|gpu:h100:4", ""),
        ("up|infinite|0/4/0/4|gpu:h100:4", ""),
        ("up|12:00:00|3/1/0/4|gpu:h100:4", "jobs ask for 24 h, and would wait for ever; lower `hours` in resources"),
        ("up|infinite|0/0/4/4|gpu:h100:4", "no job can start there; ask the administrators"),
        ("drain|infinite|0/4/0/4|gpu:h100:4", "no job can start there; ask the administrators"),
    ],
)
def test_a_partition_is_held_against_the_hours(tool: Tool, row: str, advice: str) -> None:
    tool("sinfo", f"echo '{row}'")
    assert check_partition("gpu", 1440).advice == advice


@pytest.mark.parametrize(
    ("limit", "minutes"), [("30:00", 30), ("1-02:00:30", 26 * 60 + 0.5), ("12:00:00", 720), ("infinite", float("inf"))]
)
def test_time_limits_are_read(limit: str, minutes: float) -> None:
    assert read_minutes(limit) == minutes


@pytest.mark.parametrize(("seconds", "is_fine"), [(300, True), (60, False), (0, True)])
def test_slurm_must_remember_ended_jobs_for_longer_than_the_longest_sleep(
    tool: Tool, seconds: int, is_fine: bool
) -> None:
    tool("scontrol", f"echo 'MinJobAge               = {seconds} sec'")
    assert (check_memory_of_jobs().advice == "") is is_fine


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("Requested node configuration is not available", "no node has that; lower gpus"),
        ("Batch job submission failed: Invalid account or account/partition combination specified", "see `sacctmgr"),
        ("Job violates accounting/QOS policy (job submit limit)", "`sacctmgr show qos`"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "lower `hours`"),
        ("something new", "see what SLURM says"),
    ],
)
def test_each_refusal_has_its_advice(tool: Tool, said: str, advice: str) -> None:
    tool("sbatch", f"echo 'sbatch: error: first line' >&2; echo 'allocation failure: {said}' >&2; exit 1")
    finding = check_request("train_sft", Request(ASKED, SETTINGS))
    assert finding.found.startswith("4 x h100, 24 h, 400 GB: ") and said in finding.found
    assert finding.advice.startswith(advice)


def test_fewer_gpus_than_asked_for_are_told() -> None:
    found = {"host": "n1", "versions": "torch 2", "gpus": ["H100"], "why": "look at it", "hub": False}
    assert [finding.advice for finding in describe_node(found, 1, 3.0)] == ["", "", ""]
    assert [finding.advice for finding in describe_node(found, 0, 3.0)] == ["", "", ""], "more than that do no harm"
    assert [finding.advice for finding in describe_node(found, 2, 3.0)] == ["", "torch sees 1 of 2: look at it", ""]


def test_a_job_that_waits_too_long_is_ended_and_counts_as_not_tried(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool("sbatch", "echo 'a word of welcome'; echo 77")
    tool("squeue", "echo PENDING Priority")
    tool("scancel", f"echo $* > {tmp_path}/cancelled")
    monkeypatch.setattr("scripts.cluster.node.WAIT", 1)
    (finding,) = check_node(Request(ASKED, SETTINGS), tmp_path / "work")
    assert (finding.found, finding.mark) == ("not tried: PENDING Priority after 1 s", "??")
    assert (tmp_path / "cancelled").read_text() == "77\n"


def test_a_job_that_dies_is_told_with_its_last_words(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "work/probe.log"
    tool("sbatch", f"echo 'python: not found' > {log}; echo 77")
    tool("squeue", "exit 0")
    tool("scancel", "exit 0")
    monkeypatch.setattr("scripts.cluster.node.LATENCY", 1)
    (finding,) = check_node(Request(ASKED, SETTINGS), tmp_path / "work")
    assert finding.found == "python: not found" and "compute nodes share" in finding.advice


def test_what_is_missing_without_internet(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.cluster.supplies.reaches_hub", lambda: False)
    finding = check_downloads(config, tmp_path / "work")
    assert finding.found == "not here yet: the model, benchmark piqa" and finding.advice
    write_json(tmp_path / "work/models/base/manifest.json", {})
    write_json(tmp_path / "work/benchmarks/piqa/manifest.json", {})
    assert check_downloads(config, tmp_path / "work").advice == ""


def test_what_the_hub_can_bring_is_no_lack(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.cluster.supplies.reaches_hub", lambda: True)
    assert check_downloads(config, tmp_path / "work").advice == ""


def test_a_disk_that_is_too_small(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Qwen3-4B: three models of 4 bytes a weight, and two checkpoints of 14 of the one stage that trains at a time.
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100_000_000_000))
    finding = check_disk(config, tmp_path)
    assert "about 160.9 GB are needed" in finding.found and finding.advice.startswith("free some")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=200_000_000_000))
    assert check_disk(config, tmp_path).advice == ""
