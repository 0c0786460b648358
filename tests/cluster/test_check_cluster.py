"""Compare what a run requests with what the cluster offers. tests/slurm has tests on a real Slurm."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.cluster.check_cluster import (
    check_account,
    check_cluster,
    check_ended_jobs,
    check_partition,
    check_request,
    choose_probe,
    group_requests,
    read_minutes,
)
from scripts.cluster.node import Needs, check_node, describe_node, leave_marks
from scripts.cluster.prerequisites import check_disk, check_downloads, check_files, find_missing, find_readable
from scripts.cluster.probe_node import NodeReport, find_unseen, find_unwritable, try_vllm
from scripts.cluster.request import Request
from scripts.common.config import Config, FileModel
from scripts.common.config.loader import load_config
from scripts.common.errors import UserError
from scripts.common.files import write_json, write_text
from scripts.common.paths import RunPaths
from tests.cluster.conftest import Tool
from tests.common.running import call_main
from tests.workflow.running import read_recipe

REQUESTED: dict[str, Any] = {
    **{"_cores": 8, "cpus_per_task": 8, "gpu": 4, "gpu_model": "h100", "gpus_at_once": 4, "nodes": 1, "runtime": 1440},
    **{"mem_mb": 400_000, "slurm_partition": "gpu", "slurm_account": "me", "slurm_extra": "--open-mode=append"},
}

SETTINGS: dict[str, Any] = {"qos": None, "reservation": None, "requeue": None, "no_requeue": None}
SETTINGS |= {"status_command": "squeue"}

NOTHING: dict[str, Any] = {"requests": {}, "settings": {}, "latency_wait": 60}


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """The files of the run."""
    return RunPaths("smoke", tmp_path)


@pytest.fixture
def needs(paths: RunPaths) -> Needs:
    """A run without caches, on a file system that is not shared."""
    return Needs(folders=[paths.work], cache=[], vllm="", latency=1, report=paths.probe_report, log=paths.probe_log)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The smoke recipe with a model and a benchmark from the hub, and its own cache."""
    recipe = read_recipe("smoke")
    recipe["model"]["source"] = {"kind": "hub", "repository": "Qwen/Qwen3-4B-Base", "revision": "0" * 40}
    recipe["benchmarks"]["piqa"] = {"task": "piqa", "source": {"kind": "hub"}, "metric": "acc", "filter": "none"}
    recipe["run"]["cache"] = str(tmp_path / "cache")
    return load_config(recipe)


def test_a_request_becomes_the_command_of_the_executor() -> None:
    command = Request(REQUESTED, SETTINGS | {"qos": "long"}).command()
    assert command[:2] == ["sbatch", "--parsable"]
    words = " ".join(command)
    for option in ("-A me", "-p gpu", "-t 1440", "--mem 400000", "--nodes=1", "--gpus=h100:4", "--qos=long"):
        assert option in words
    assert "-t 10" in " ".join(Request(REQUESTED, SETTINGS).command(runtime=10))


@pytest.mark.parametrize(
    ("resources", "gpus", "described"),
    [
        ({}, 4, "4 x h100, 24 h, 400 GB"),
        ({"gpu_model": None}, 4, "4 x GPU, 24 h, 400 GB"),
        ({"gpu": 0, "gres": "gpu:h100:2", "gpu_model": None}, 2, "gpu:h100:2, 24 h, 400 GB"),
        ({"gpu": 0, "gres": "gpu:h100:2", "gpu_model": None, "nodes": 2}, 4, "gpu:h100:2, 24 h, 400 GB"),
        ({"gpu": 0, "gpu_model": None}, 0, "no GPU, 24 h, 400 GB"),
    ],
)
def test_gpus_are_counted_however_they_are_requested(resources: dict[str, Any], gpus: int, described: str) -> None:
    request = Request(REQUESTED | resources, SETTINGS)
    assert (request.gpus, request.describe()) == (gpus, described)


def test_a_gpu_model_alone_requests_one_gpu() -> None:
    request = Request({key: value for key, value in REQUESTED.items() if key != "gpu"}, SETTINGS)
    assert request.gpus == 1 and "--gpus=h100:1" in request.command()


def test_fewer_gpus_than_the_configuration_needs_are_reported() -> None:
    alone = REQUESTED | {"gpu": 0, "gres": "gpu:h100:1", "gpu_model": None}
    finding = check_request("run_benchmark", Request(alone, SETTINGS))
    assert finding.found.endswith("GPUs: 1 requested from SLURM, 4 needed by the configuration")
    assert finding.advice == "set the number needed in `gres` of these rules in the profile"


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"gpu_model": "a100-40g"}, "Invalid GPU model format"),
        ({"slurm_extra": "--gres=gpu:1"}, "not allowed in the 'slurm_extra' parameter"),
    ],
)
def test_a_request_that_the_executor_refuses_is_reported(resources: dict[str, Any], message: str) -> None:
    finding = check_request("train_sft", Request(REQUESTED | resources, SETTINGS))
    assert message in finding.found and finding.advice == "correct the profile"


def test_rules_with_the_same_request_share_a_line() -> None:
    one, other = Request(REQUESTED, SETTINGS), Request(REQUESTED | {"gpu": 1}, SETTINGS)
    groups = group_requests({"train_sft": one, "run_benchmark": other, "train_dpo": one})
    assert list(groups) == ["train_sft, train_dpo", "run_benchmark"]
    many = dict.fromkeys(["sample_rejections", "run_benchmark", "score_preferences"], other)
    assert list(group_requests(many)) == ["sample_rejections and 2 more"]


def test_without_slurm_the_error_says_where_to_run_it(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no SLURM here: sbatch is not in PATH; run this on"):
        call_main("cluster.check_cluster", tmp_path, config=config.as_dict(), **NOTHING)


def test_without_the_profile_the_error_names_it(tmp_path: Path, config: Config, tool: Tool) -> None:
    tool("sbatch", "exit 0")
    with pytest.raises(UserError, match="run this with `--profile slurm`"):
        call_main("cluster.check_cluster", tmp_path, config=config.as_dict(), **NOTHING)


def test_a_missing_partition_is_reported() -> None:
    assert check_partition("", 60).advice == "set slurm_partition in the profile"


def test_an_unknown_partition_is_reported_with_the_existing_ones(tool: Tool) -> None:
    tool("sinfo", 'case "$*" in *--partition*) ;; *) echo cpu; echo a100; echo cpu ;; esac')
    assert check_partition("gpu", 60).advice == "set slurm_partition in the profile to one of: cpu, a100"


@pytest.mark.parametrize(
    ("row", "advice"),
    [
        ("up|2-00:00:00|3/1/0/4|gpu:h100:4", ""),
        ("up|infinite|0/4/0/4|gpu:h100:4", ""),
        ("up|12:00:00|3/1/0/4|gpu:h100:4", "jobs request 24 h and would wait forever; lower `hours` in resources"),
        ("up|infinite|0/0/4/4|gpu:h100:4", "no job can start there; ask the administrators"),
        ("drain|infinite|0/4/0/4|gpu:h100:4", "no job can start there; ask the administrators"),
    ],
)
def test_a_partition_must_be_up_and_allow_the_hours(tool: Tool, row: str, advice: str) -> None:
    tool("sinfo", f"echo '{row}'")
    assert check_partition("gpu", 1440).advice == advice


@pytest.mark.parametrize(
    ("limit", "minutes"), [("30:00", 30), ("1-02:00:30", 26 * 60 + 0.5), ("12:00:00", 720), ("infinite", float("inf"))]
)
def test_time_limits_of_sinfo_are_read(limit: str, minutes: float) -> None:
    assert read_minutes(limit) == minutes


SCONTROL = "echo 'AccountingStorageType   = {storage}'; echo 'MinJobAge               = {seconds} sec'"


@pytest.mark.parametrize(("seconds", "is_fine"), [(300, True), (60, False), (0, True)])
@pytest.mark.parametrize("storage", ["accounting_storage/slurmdbd", "accounting_storage/none", "(null)"])
def test_slurm_must_remember_ended_jobs_long_enough(tool: Tool, seconds: int, is_fine: bool, storage: str) -> None:
    tool("scontrol", SCONTROL.format(storage=storage, seconds=seconds))
    advice = check_ended_jobs("squeue").advice
    assert (advice == "") is is_fine
    assert ("sacct" in advice) is (not is_fine and "slurmdbd" in storage), "sacct reports nothing without slurmdbd"


def test_sacct_as_status_command_needs_slurmdbd(tool: Tool) -> None:
    tool("scontrol", SCONTROL.format(storage="accounting_storage/none", seconds=300))
    assert check_ended_jobs("sacct").advice == "set slurm-status-command to squeue in the profile"
    tool("scontrol", SCONTROL.format(storage="accounting_storage/slurmdbd", seconds=60))
    assert check_ended_jobs("sacct").advice == "", "MinJobAge does not matter to sacct"


def test_an_account_that_the_executor_refuses_is_reported(tool: Tool) -> None:
    tool("sacctmgr", "echo posttrain; echo other")
    assert check_account(("posttrain",)).advice == ""
    finding = check_account(("posttrain", "absent"))
    assert finding.what == "account posttrain, absent" and "account absent appears to be invalid" in finding.found
    assert finding.advice.endswith("set slurm_account in the profile")


def test_without_slurmdbd_the_account_must_be_removed(tool: Tool) -> None:
    for name in ("sacctmgr", "sshare"):
        tool(name, "echo 'You are not running a supported accounting_storage plugin' >&2; exit 1")
    finding = check_account(("posttrain",))
    assert "would submit nothing" in finding.found and finding.advice.startswith("remove slurm_account")
    assert check_account(()).advice == ""


def test_jobs_are_submitted_under_the_first_account() -> None:
    words = Request(REQUESTED | {"slurm_account": "one, two"}, SETTINGS).command()
    assert words[words.index("-A") + 1] == "one" and "two" not in words


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("Requested node configuration is not available", "no node has that; lower gpus"),
        ("Batch job submission failed: Invalid account or account/partition combination specified", "see `sacctmgr"),
        ("Job violates accounting/QOS policy (job submit limit)", "`sacctmgr show qos`"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "lower `hours`"),
        ("something new", "see SLURM's message"),
    ],
)
def test_each_refusal_has_its_advice(tool: Tool, message: str, advice: str) -> None:
    tool("sbatch", f"echo 'sbatch: error: first line' >&2; echo 'allocation failure: {message}' >&2; exit 1")
    finding = check_request("train_sft", Request(REQUESTED, SETTINGS))
    assert finding.found.startswith("4 x h100, 24 h, 400 GB: ") and message in finding.found
    assert finding.advice.startswith(advice)


FOUND: NodeReport = {
    "host": "n1",
    "versions": "torch 2",
    "gpus": ["H100"],
    "why": "look at it",
    "hub": False,
    "problems": [],
    "vllm": None,
}


def test_fewer_gpus_on_the_node_than_requested_are_reported() -> None:
    assert not any(finding.advice for finding in describe_node(FOUND, 1, 3.0))
    assert not any(finding.advice for finding in describe_node(FOUND, 0, 3.0)), "more than needed are fine"
    advice = [finding.advice for finding in describe_node(FOUND, 2, 3.0) if finding.advice]
    assert advice == ["torch sees 1 of 2: look at it"]


def test_folders_and_engines_that_are_not_shared_are_reported() -> None:
    found: NodeReport = {**FOUND, "problems": ["/hf is not visible", "cannot write to logs: Read-only file system"]}
    (folders,) = [finding for finding in describe_node(found, 1, 3.0) if finding.advice]
    assert folders.found == "/hf is not visible; cannot write to logs: Read-only file system"
    found = {**FOUND, "vllm": {"works": False, "said": "No module named 'vllm'"}}
    (engine,) = [finding for finding in describe_node(found, 1, 3.0) if finding.advice]
    assert engine.what == "vLLM on the node" and "POSTTRAIN_VLLM" in engine.advice


def test_invisible_files_and_unwritable_folders_are_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    marks = [tmp_path / "file", tmp_path / "cache" / "mark"]
    assert list(find_unseen(marks, seconds=0)) == [f"{tmp_path / 'cache'} is not visible"]
    assert list(find_unwritable([tmp_path / "logs"])) == []
    (problem,) = find_unwritable([tmp_path / "file"])
    assert problem == f"cannot write to {tmp_path / 'file'}: File exists"


def test_marks_are_created_and_removed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with leave_marks([tmp_path / "cache", tmp_path / "file"]) as marks:
        assert marks[0].is_file() and marks[0].parent == tmp_path / "cache"
    assert not marks[0].exists() and len(marks) == 2


def test_vllm_is_imported_with_its_own_python(tool: Tool, tmp_path: Path) -> None:
    tool("fine", "echo 'a warning' >&2; echo vllm 0.9")
    tool("broken", "echo \"ModuleNotFoundError: No module named 'vllm'\" >&2; exit 1")
    assert try_vllm("fine") == {"works": True, "said": "vllm 0.9"}
    assert try_vllm("broken") == {"works": False, "said": "ModuleNotFoundError: No module named 'vllm'"}
    assert not try_vllm(str(tmp_path / "absent"))["works"]


def test_the_needs_of_jobs_follow_from_the_configuration(
    config: Config, paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTTRAIN_VLLM", "/vllm/python")
    needs = Needs.of(config, paths, latency=60)
    assert needs.folders == [paths.root / folder / "smoke" for folder in ("work", "results", "logs")]
    assert needs.report.parent == needs.log.parent == paths.work and needs.latency == 60
    assert [path.name for path in needs.cache] == [Path(os.environ["HF_HOME"]).name, "hub"] and not needs.vllm
    recipe = read_recipe("smoke")
    recipe["benchmarks"]["traps"]["engine"] = "vllm"
    needs = Needs.of(load_config(recipe), paths, latency=60)
    assert needs.cache == [Path("work/cache")] and needs.vllm == "/vllm/python"


def test_a_probe_that_waits_too_long_is_cancelled_and_counts_as_not_tried(
    tool: Tool, tmp_path: Path, needs: Needs, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool("sbatch", "echo 'a greeting'; echo 77")
    tool("squeue", "echo PENDING Priority")
    tool("scancel", f"echo $* > {tmp_path}/cancelled")
    monkeypatch.setattr("scripts.cluster.node.WAIT", 1)
    (finding,) = check_node(Request(REQUESTED, SETTINGS), needs)
    assert (finding.found, finding.mark) == ("not tried: PENDING Priority after 1 s", "??")
    assert (tmp_path / "cancelled").read_text() == "77\n"


def test_a_probe_that_fails_is_reported_with_its_last_line(tool: Tool, needs: Needs) -> None:
    tool("sbatch", f"echo 'python: not found' > {needs.log}; echo 77")
    tool("squeue", "exit 0")
    tool("scancel", "exit 0")
    (finding,) = check_node(Request(REQUESTED, SETTINGS), needs)
    assert finding.found == "python: not found" and "compute nodes share" in finding.advice


@pytest.mark.parametrize(
    ("rules", "chosen"),
    [
        ({"train_sft": 4, "run_benchmark": 2, "score_preferences": 1}, "run_benchmark"),
        ({"train_sft": 4, "filter_dataset": 0, "score_preferences": 1}, "score_preferences"),
        ({"filter_dataset": 0}, "filter_dataset"),
    ],
)
def test_the_small_job_asks_for_what_a_benchmark_does_or_else_little(rules: dict[str, int], chosen: str) -> None:
    requests = {rule: Request(REQUESTED | {"gpu": gpus, "gpu_model": None}, SETTINGS) for rule, gpus in rules.items()}
    assert choose_probe(requests) is requests[chosen]


def test_a_run_without_benchmarks_is_checked_completely(
    config: Config, tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool("sinfo", "echo 'up|infinite|0/4/0/4|gpu:h100:4'")
    tool("sacctmgr", "echo me")
    tool("scontrol", SCONTROL.format(storage="accounting_storage/slurmdbd", seconds=300))
    tool("sbatch", "exit 1")
    monkeypatch.setattr("scripts.cluster.prerequisites.reaches_hub", lambda: True)
    monkeypatch.chdir(tmp_path)
    requests = {"train_sft": Request(REQUESTED, SETTINGS)}
    bare = config.model_copy(update={"benchmarks": {}})
    checked = [finding.what for finding in check_cluster(bare, requests, SETTINGS, latency=1)]
    assert checked == [
        *("partition gpu", "account me", "ended jobs", "train_sft", "compute node", "downloads", "disk"),
    ]


def test_missing_downloads_are_reported_without_internet(
    config: Config, paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.cluster.prerequisites.reaches_hub", lambda: False)
    monkeypatch.setattr("scripts.cluster.prerequisites.find_readable", lambda _: {"another"})
    finding = check_downloads(config, paths)
    assert finding.found == "not here yet: benchmark piqa, the model" and finding.advice
    write_json(paths.model("base"), {})
    monkeypatch.setattr("scripts.cluster.prerequisites.find_readable", set)
    assert check_downloads(config, paths).advice == "", "the hub's cache has it"
    monkeypatch.setattr("scripts.cluster.prerequisites.find_readable", lambda _: set())
    write_json(paths.benchmark("piqa"), {})
    assert check_downloads(config, paths).advice == ""


def test_nothing_is_missing_if_the_hub_is_reachable(
    config: Config, paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.cluster.prerequisites.reaches_hub", lambda: True)
    assert check_downloads(config, paths).advice == ""


def test_benchmarks_that_would_run_without_internet_are_found(config: Config) -> None:
    assert find_readable({name: config.benchmarks[name] for name in ("traps", "piqa")}) == {"traps"}


def with_rows(config: Config, source: dict[str, Any]) -> Config:
    """The same run with another source for the data set `sums`."""
    return load_config(config.as_dict() | {"datasets": config.as_dict()["datasets"] | {"sums": {"source": source}}})


def test_a_model_needs_a_complete_snapshot(config: Config, paths: RunPaths, tmp_path: Path) -> None:
    missing = "the model"
    cache = tmp_path / "hub"
    snapshot = cache / f"models--Qwen--Qwen3-4B-Base/snapshots/{'0' * 40}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        assert missing in find_missing(config, paths)
        write_json(snapshot / "config.json", {})
        write_json(snapshot / "tokenizer.json", {})
        assert missing in find_missing(config, paths), "AutoConfig.from_pretrained downloads only this"
        shards = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
        write_json(snapshot / "model.safetensors.index.json", {"weight_map": shards})
        write_text(snapshot / shards["a"], "weights")
        assert missing in find_missing(config, paths), "a shard is missing"
        write_text(snapshot / shards["b"], "weights")
        assert missing not in find_missing(config, paths)


def test_a_data_set_needs_a_snapshot_with_files_of_rows(config: Config, paths: RunPaths, tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    source = {"kind": "hub", "repository": "some/rows", "revision": "0" * 40, "split": "train"}
    changed = with_rows(config, source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        snapshot = cache / f"datasets--some--rows/snapshots/{'0' * 40}"
        write_text(snapshot / "README.md", "# Rows")
        assert "data set sums" in find_missing(changed, paths)
        write_text(snapshot / "data/train.parquet", "rows")
        assert "data set sums" not in find_missing(changed, paths)


@pytest.mark.parametrize("relative", [True, False])
def test_a_local_folder_in_the_layout_of_the_hub_needs_no_download(
    config: Config, paths: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my/rows").mkdir(parents=True)
    repository = "my/rows" if relative else str(tmp_path / "my/rows")
    changed = with_rows(config, {"kind": "hub", "repository": repository, "revision": "main", "split": "train"})
    assert "data set sums" not in find_missing(changed, paths)


def test_missing_local_files_are_reported(config: Config, paths: RunPaths, tmp_path: Path) -> None:
    assert not list(check_files(config))
    changed = with_rows(config, {"kind": "file", "path": f"{tmp_path}/*.jsonl"})
    changed = changed.model_copy(
        update={"model": changed.model.model_copy(update={"source": FileModel(kind="file", path=f"{tmp_path}/typo")})}
    )
    model, rows = check_files(changed)
    assert model.advice and model.found == f"{tmp_path}/typo is not a complete model folder"
    assert rows.advice and rows.found == f"no file matches {tmp_path}/*.jsonl"
    assert tmp_path / "typo" not in Needs.of(changed, paths, latency=1).cache, "no mark is left in its place"


def test_a_work_folder_that_is_not_writable_is_reported(
    tmp_path: Path, config: Config, paths: RunPaths, needs: Needs
) -> None:
    (tmp_path / "work").symlink_to(tmp_path / "purged/scratch")
    (finding,) = check_node(Request(REQUESTED, SETTINGS), needs)
    assert finding.found == f"not tried: cannot write to {paths.work}: File exists" and "work/" in finding.advice
    assert check_disk(config, paths).mark == "??"


def test_gpus_that_nothing_uses_are_reported(tool: Tool) -> None:
    tool("sbatch", "exit 1")
    cpu = {key: value for key, value in REQUESTED.items() if key not in ("gpu", "gpus_at_once")}
    finding = check_request("run_benchmark", Request(cpu, SETTINGS))
    assert finding.found.endswith("GPUs: 1 requested from SLURM, 0 needed by the configuration")
    assert finding.advice.startswith("nothing would use them; remove gpu_model")


def test_disk_space_for_adapters(config: Config, paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen3-4B: three models with 4 bytes a weight, and checkpoints of LoRA's weights."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=60_000_000_000))
    lora = config.stages["sft"].model_copy(update={"tuning": "lora"})
    finding = check_disk(config.model_copy(update={"stages": config.stages | {"sft": lora}}), paths)
    assert "about 49.2 GB needed" in finding.found and finding.advice == ""


def test_a_disk_that_is_too_small_is_reported(config: Config, paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    # Qwen3-4B: three models with 4 bytes a weight. One stage trains at a time, with two checkpoints of 14.
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100_000_000_000))
    finding = check_disk(config, paths)
    assert "about 160.9 GB needed" in finding.found and finding.advice.startswith("free up space")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=200_000_000_000))
    assert check_disk(config, paths).advice == ""
