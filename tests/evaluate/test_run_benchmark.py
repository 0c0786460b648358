"""lm-eval's own scores, item by item, and the same twice."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from scripts.common.config import Benchmark
from scripts.common.errors import UserError
from scripts.common.files import read_json, read_json_lines, write_json
from scripts.common.manifest import find_model, write_manifest
from scripts.evaluate.run_benchmark import choose_samples, evaluate, read_items, read_share
from tests.common.running import OWN_TASKS, call_main, run_script, script_command, script_environment

ARC = {"task": "arc_easy", "metric": "acc_norm", "shots": 2, "chat_template": False, "batch_size": 4}


@pytest.fixture
def arc(tmp_path: Path, hub_mirror: Path) -> Path:
    """Manifest of a downloaded benchmark; its mirror stands beside it."""
    folder = tmp_path / "benchmark"
    folder.mkdir()
    (folder / "mirror").symlink_to(hub_mirror)
    write_manifest(folder / "manifest.json", artefact="benchmark", name="arc", config={}, inputs={})
    return folder / "manifest.json"


def _options(model: Path, benchmark: Path, config: dict[str, Any], name: str) -> dict[str, Any]:
    made = {"scores": f"{name}.json", "items": f"{name}.items.jsonl"}
    given = {
        "dtype": "float32",
        "seed": 3,
        "cpus": 1,
        "memory_mb": 6000,
        "tasks": OWN_TASKS,
        "model": model,
        "benchmark": benchmark,
    }
    return {"name": name, "config": config, "model_name": "base"} | given | made


@pytest.mark.slow
def test_a_stock_task_twice_and_by_lm_eval_itself(
    tmp_path: Path, tiny_model: Path, arc: Path, hub_mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = _options(tiny_model, arc, ARC, "first")
    run = run_script("evaluate.run_benchmark", tmp_path, log="first.log", **options)
    assert run.returncode == 0, run.stderr
    call_main("evaluate.run_benchmark", tmp_path, **_options(tiny_model, arc, ARC, "second"))
    first, second = ((tmp_path / f"{name}.items.jsonl").read_bytes() for name in ("first", "second"))
    assert first == second

    scores, items = read_json(tmp_path / "first.json"), read_json_lines(tmp_path / "first.items.jsonl")
    assert scores["n"] == len(items) == len({item["key"] for item in items}) == 12
    assert scores["protocol"]["shots"] == 2 and scores["protocol"]["chat_template_sha256"] is None
    assert run.stderr.splitlines()[-1] == f"run_benchmark base first: acc_norm {scores['score']:.3f} of 12 items"

    # lm-eval without us: its own task manager, its own model class.
    monkeypatch.chdir(hub_mirror)
    stock = Path(lm_eval.__file__).parent / "tasks" / "arc"
    seeds = {f"{library}_seed": 3 for library in ("random", "numpy_random", "torch_random", "fewshot_random")}
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(find_model(tiny_model)), dtype="float32", device="cpu", batch_size=4),
        tasks=["arc_easy"],
        task_manager=TaskManager(include_defaults=False, include_path=str(stock)),
        num_fewshot=2,
        bootstrap_iters=0,
        **seeds,
    )
    assert scores["score"] == pytest.approx(found["results"]["arc_easy"]["acc_norm,none"], abs=1e-12)
    theirs = {sample["doc_id"]: sample["acc_norm"] for sample in found["samples"]["arc_easy"]}
    assert [item["score"] for item in items] == [theirs[i] for i in range(12)]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["chosen", "written", "written continuously"])
def test_processes_that_share_the_questions_find_the_same(
    tmp_path: Path, tiny_model: Path, arc: Path, task: str
) -> None:
    """Few-shot examples and answers are those of one process, and no process answers all eleven questions."""
    written = {"task": "traps", "metric": "rule_points", "max_new_tokens": 4}
    config = (ARC if task == "chosen" else written) | {"limit": 11, "batch_size": 1}
    if task == "written continuously":
        config |= {"engine": "continuous"}
    if task != "chosen":
        arc = tmp_path / "traps" / "manifest.json"
        source = {"task": "traps", "source": {"kind": "own"}, "unsafe_code": False}
        made = {"questions": tmp_path / "traps" / "questions.jsonl", "manifest": arc}
        call_main("data.download_benchmark", tmp_path, name="traps", config=source, tasks=OWN_TASKS, **made)
    alone = _options(tiny_model, arc, config, "alone")
    run = run_script("evaluate.run_benchmark", tmp_path, log="alone.log", **alone)
    assert run.returncode == 0, run.stderr
    together = _options(tiny_model, arc, config | {"processes": 2}, "together") | {"log": "together.log"}
    module, *arguments = script_command("evaluate.run_benchmark", together)[2:]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    run = subprocess.run(
        [*torchrun, module, *arguments],
        cwd=tmp_path,
        env=script_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    log = (tmp_path / "together.log").read_text()
    assert run.returncode == 0, run.stderr + log
    first, second = ((tmp_path / f"{name}.items.jsonl").read_bytes() for name in ("alone", "together"))
    assert first == second and len(first.splitlines()) == 11
    scores = [read_json(tmp_path / f"{name}.json") for name in ("alone", "together")]
    assert scores[0]["score"] == scores[1]["score"] and scores[0]["protocol"] == scores[1]["protocol"]
    assert len(re.findall("^run_benchmark base together: ", run.stderr, re.MULTILINE)) == 1, "told by one of them"
    answered = re.compile(r"Running \w+ requests:.*?/(\d+) \[")
    assert set(answered.findall((tmp_path / "alone.log").read_text())) == {"33" if task == "chosen" else "11"}
    assert set(answered.findall(log)) == ({"16", "17"} if task == "chosen" else {"5", "6"})


def test_the_batch_size_that_was_found_is_kept(tmp_path: Path, tiny_model: Path, arc: Path) -> None:
    """The next job on such a machine begins with it, and one with a number of its own does not touch it."""
    config = ARC | {"limit": 2, "batch_size": "auto"}
    kept = arc.parent / "batch_sizes.json"

    def run(name: str, config: dict[str, Any]) -> int:
        call_main("evaluate.run_benchmark", tmp_path, **_options(tiny_model, arc, config, name))
        return int(read_json(tmp_path / f"{name}.json")["provenance"]["facts"]["batch_size"])

    assert run("first", config) == 16
    (machine,) = read_json(kept)
    write_json(kept, {machine: 4, "another machine": 64})
    assert run("second", config) == 4
    assert run("third", ARC | {"limit": 2, "batch_size": 3}) == 3
    assert read_json(kept) == {machine: 4, "another machine": 64}
    first, second = (read_json(tmp_path / f"{name}.json") for name in ("first", "second"))
    assert first["protocol"] == second["protocol"], "the size of a batch is no part of it"


def test_wrong_metric_and_filter_and_the_right_ones(tmp_path: Path, tiny_model: Path, arc: Path) -> None:
    here = Path.cwd()
    model = HFLM(pretrained=str(find_model(tiny_model)), dtype="float32", device="cpu", batch_size=4)
    benchmark = Benchmark.model_validate(ARC | {"limit": 2})
    found = evaluate(model, benchmark, OWN_TASKS, arc, 3)
    assert found is not None
    samples = found["samples"]
    assert Path.cwd() == here, "it works in the mirror, and comes back"
    items = read_items(samples, benchmark, "mine")
    assert len(items) == 2
    assert items[0]["answer"] in ("stone", "nothing at all", "saw")
    assert items[0]["prompt"].count("Question:") == 3, "two examples stand before the question"
    wrong = {
        "metric": ("acc_nrom", "has no metric 'acc_nrom'; did you mean 'acc_norm'?"),
        "filter": ("nonee", "has no filter 'nonee'; did you mean 'none'?"),
    }
    for key, (value, words) in wrong.items():
        with pytest.raises(UserError) as caught:
            read_items(samples, Benchmark.model_validate(ARC | {key: value}), "mine")
        assert str(caught.value) == f"benchmarks.mine.{key}: task arc_easy {words}"


def test_generation_in_a_chat(tmp_path: Path, tiny_model: Path) -> None:
    source = {"kind": "package", "package": "reasoning-gym", "task": "chain_sum", "size": 5, "seed": 5}
    config = {
        "task": "chain_sum",
        "source": source,
        "metric": "exact_match",
        "filter": "last-number",
        "max_new_tokens": 6,
    }
    call_main(
        "data.download_benchmark",
        tmp_path,
        name="sums",
        config={"task": "chain_sum", "source": source, "unsafe_code": False},
        tasks=OWN_TASKS,
        questions="benchmark/questions.jsonl",
        manifest="benchmark/manifest.json",
    )
    manifest = tmp_path / "benchmark" / "manifest.json"
    call_main("evaluate.run_benchmark", tmp_path, **_options(tiny_model, manifest, config, "sums"))
    items = read_json_lines(tmp_path / "sums.items.jsonl")
    questions = [row["question"] for row in read_json_lines(tmp_path / "benchmark" / "questions.jsonl")]
    assert [item["prompt"] for item in items] == [
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" for question in questions
    ]
    # One byte a token here, so that no answer can be longer than six.
    assert all(len(item["answer"].encode()) <= 6 * 3 for item in items)
    scores = read_json(tmp_path / "sums.json")
    assert scores["n"] == 5 and scores["score"] == sum(item["score"] for item in items) / 5
    assert scores["protocol"]["chat_template_sha256"]
    assert set(scores["provenance"]["inputs"]) == {"model", "benchmark"}


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (("gold", "said"), "benchmarks.mine.metric: metric 'f1' is no number for each question; choose another"),
        ([1.0, 0.0], "benchmarks.mine.metric: metric 'f1' is no number from 0 to 1 for each question; choose another"),
        (-3.7, "benchmarks.mine.metric: metric 'f1' is no number from 0 to 1 for each question; choose another"),
    ],
)
def test_metrics_that_are_no_shares_are_refused(value: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        read_share(value, "benchmarks.mine.metric: metric 'f1'")
    assert str(caught.value) == line


def test_a_member_of_a_group_without_the_filter_is_told() -> None:
    benchmark = Benchmark.model_validate(ARC | {"metric": "acc", "filter": "strict"})
    sample = {"filter": "strict", "metrics": ["acc"], "acc": 1.0}
    samples = {"one": [sample], "two": [sample | {"filter": "none"}]}
    with pytest.raises(UserError, match=r"^benchmarks\.mine\.filter: task two has no filter 'strict'"):
        choose_samples(samples, benchmark, "benchmarks.mine", "strict", "acc")
