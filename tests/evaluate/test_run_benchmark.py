"""lm-eval's own scores, item by item, and the same twice."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lm_eval
import pytest
from lm_eval.api.model import TemplateLM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from scripts.common.config import Benchmark
from scripts.common.errors import UserError
from scripts.common.files import read_json, read_json_lines, write_json
from scripts.common.manifest import find_model, write_manifest
from scripts.evaluate.run_benchmark import answer_of, evaluate, read_items, read_share
from scripts.evaluate.tasks import check_protocol
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


def test_items_of_a_task(tmp_path: Path, tiny_model: Path, arc: Path) -> None:
    here = Path.cwd()
    model = HFLM(pretrained=str(find_model(tiny_model)), dtype="float32", device="cpu", batch_size=4)
    benchmark = Benchmark.model_validate(ARC | {"limit": 2})
    found = evaluate(model, benchmark, "mine", OWN_TASKS, arc, 3)
    assert found is not None
    samples = found["samples"]
    assert Path.cwd() == here, "it works in the mirror, and comes back"
    items = read_items(samples, benchmark, "mine")
    assert len(items) == 2
    assert items[0]["answer"] in ("stone", "nothing at all", "saw")
    assert items[0]["prompt"].count("Question:") == 3, "two examples stand before the question"


WRONG = {
    "metric": ("acc_nrom", "metric: task arc_easy has no metric 'acc_nrom'; did you mean 'acc_norm'?"),
    "filter": ("nonee", "filter: task arc_easy has no filter 'nonee'; did you mean 'none'?"),
    "also": (["acc/first"], "also.filter: task arc_easy has no filter 'first'; known: none"),
    "engine": (
        "continuous",
        "engine: continuous is for tasks that write answers, and arc_easy asks how likely given ones are; remove it",
    ),
}


@pytest.mark.parametrize("key", WRONG)
def test_what_the_task_does_not_have_is_refused_before_it_is_asked(arc: Path, key: str) -> None:
    value, words = WRONG[key]
    benchmark = Benchmark.model_validate(ARC | {key: value})
    with pytest.raises(UserError) as caught:
        evaluate(LM(), benchmark, "mine", OWN_TASKS, arc, 3)
    assert str(caught.value) == f"benchmarks.mine.{words}"


class LM(TemplateLM):
    """A model that cannot be asked."""

    eot_token_id = tok_encode = _loglikelihood_tokens = loglikelihood_rolling = generate_until = None


LIKELY = {"arguments": [("Q", " a long choice"), ("Q", " b")], "resps": [[(-4.0, False)], [(-3.0, False)]]}


@pytest.mark.parametrize(
    ("sample", "metric", "answer"),
    [
        (LIKELY, "acc", "b"),
        (LIKELY, "acc_norm", "a long choice"),
        (LIKELY | {"arguments": [("Ann was", " late."), ("Bob was", " late.")]}, "acc", "Bob was"),
        ({"resps": [["42"]]}, "exact_match", "42"),
    ],
)
def test_the_answer_is_the_choice_that_the_metric_counts(sample: dict[str, Any], metric: str, answer: str) -> None:
    assert answer_of(sample, metric) == answer


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
    benchmark = Benchmark.model_validate({"task": "both", "metric": "acc", "filter": "strict"})
    one, two = (
        SimpleNamespace(
            task_name=name,
            OUTPUT_TYPE="generate_until",
            _filters=[SimpleNamespace(name=chosen)],
            aggregation=lambda: {"acc": None},
            config=SimpleNamespace(metric_list=[{"metric": "acc"}]),
        )
        for name, chosen in (("one", "strict"), ("two", "none"))
    )
    check_protocol([one], benchmark, "mine")
    check_protocol([one], benchmark.model_copy(update={"engine": "vllm"}), "mine")
    with pytest.raises(UserError, match=r"^benchmarks\.mine\.filter: task two has no filter 'strict'"):
        check_protocol([one, two], benchmark, "mine")


def test_a_metric_that_only_the_answers_tell_is_refused_after_them() -> None:
    """A function of the task's gave it, under names of its own."""
    benchmark = Benchmark.model_validate({"task": "humaneval", "metric": "pass@2", "filter": "create_test"})
    task = SimpleNamespace(
        task_name="humaneval",
        OUTPUT_TYPE="generate_until",
        _filters=[SimpleNamespace(name="create_test")],
        aggregation=lambda: {"pass_at_k": None},
        config=SimpleNamespace(metric_list=[{"metric": len}]),
    )
    check_protocol([task], benchmark, "mine")
    sample = {"filter": "create_test", "metrics": ["pass@1"], "pass@1": 1.0}
    with pytest.raises(UserError, match=r"^benchmarks.mine.metric: task humaneval has no metric 'pass@2'"):
        read_items({"humaneval": [sample]}, benchmark, "mine")
