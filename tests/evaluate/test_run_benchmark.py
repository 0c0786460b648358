"""Scores equal lm-eval's own, item by item, and are the same in every run."""

import re
import subprocess
import sys
from collections.abc import Callable
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
from scripts.common.files import hash_json, read_json, read_json_lines, write_json
from scripts.common.manifest import describe, find_model
from scripts.common.records import AnyManifest
from scripts.evaluate import run_benchmark
from scripts.evaluate.run_benchmark import (
    answer_of,
    count_flaws,
    evaluate,
    find_fallbacks,
    hash_tasks,
    read_items,
    read_others,
    read_share,
)
from scripts.evaluate.tasks import check_protocol
from tests.common.running import OWN_TASKS, call_main, run_script, script_command, script_environment

ARC = {"task": "arc_easy", "metric": "acc_norm", "shots": 2, "chat_template": False, "batch_size": 4}


@pytest.fixture
def arc(tmp_path: Path, hub_mirror: Path) -> Path:
    """Manifest of a downloaded benchmark, next to its mirror."""
    folder = tmp_path / "benchmark"
    folder.mkdir()
    (folder / "mirror").symlink_to(hub_mirror)
    manifest: AnyManifest = describe(artefact="benchmark", name="arc", config={}, inputs={}, facts={})
    write_json(folder / "manifest.json", manifest)
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
        "mirror": benchmark.parent / "mirror",
        "batch_sizes": benchmark.parent / "batch_sizes.json",
    }
    return {"name": name, "config": config, "model_name": "base"} | given | made


@pytest.mark.slow
def test_a_stock_task_twice_and_with_lm_eval_itself(
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

    # lm-eval without our code, with its own task manager and model class.
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


@pytest.mark.parametrize(
    "task",
    [
        pytest.param("chosen", marks=pytest.mark.long),
        pytest.param("written", marks=pytest.mark.slow),
        pytest.param("written continuously", marks=pytest.mark.long),
    ],
)
def test_processes_that_share_the_questions_give_the_same_scores(
    tmp_path: Path, tiny_model: Path, arc: Path, task: str
) -> None:
    """Few-shot examples and answers are the same as with one process, and each process answers a part."""
    written = {"task": "traps", "metric": "rule_points", "max_new_tokens": 4}
    config = (ARC if task == "chosen" else written) | {"limit": 11, "batch_size": 1}
    if task == "written continuously":
        config |= {"engine": "continuous"}
    if task != "chosen":
        arc = tmp_path / "traps" / "manifest.json"
        source = {"task": "traps", "source": {"kind": "own"}, "unsafe_code": False}
        made = {"questions": arc.parent / "questions.jsonl", "mirror": arc.parent / "mirror", "manifest": arc}
        call_main("evaluate.download_benchmark", tmp_path, name="traps", config=source, tasks=OWN_TASKS, **made)
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
    assert len(re.findall("^run_benchmark base together: ", run.stderr, re.MULTILINE)) == 1, (
        "only one process reports the score"
    )
    answered = re.compile(r"Running \w+ requests:.*?/(\d+) \[")
    assert set(answered.findall((tmp_path / "alone.log").read_text())) == {"33" if task == "chosen" else "11"}
    assert set(answered.findall(log)) == ({"16", "17"} if task == "chosen" else {"5", "6"})


def test_batch_sizes_are_kept_for_later_jobs(
    tmp_path: Path, tiny_model: Path, arc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next job on such a machine starts with the size. A job with a configured size does not change it."""
    config = ARC | {"limit": 2, "batch_size": "auto"}
    kept = arc.parent / "batch_sizes.json"

    def run(name: str, config: dict[str, Any]) -> int:
        call_main("evaluate.run_benchmark", tmp_path, **_options(tiny_model, arc, config, name))
        return int(read_json(tmp_path / f"{name}.json")["provenance"]["facts"]["batch_size"])

    assert run("first", config) == 16
    (machine,) = read_json(kept)
    assert ", 6000 MB, hf, model " in machine, "the size depends on memory and engine"
    write_json(kept, {machine: 4, "another machine": 64})
    assert run("second", config) == 4
    assert run("third", ARC | {"limit": 2, "batch_size": 3}) == 3
    assert read_json(kept) == {machine: 4, "another machine": 64}
    first, second = (read_json(tmp_path / f"{name}.json") for name in ("first", "second"))
    assert first["protocol"] == second["protocol"], "the batch size is not part of the protocol"

    def evaluate_while_another_job_ends(*given: Any) -> dict[str, Any] | None:
        results = evaluate(*given)
        write_json(kept, {machine: 2})
        return results

    monkeypatch.setattr(run_benchmark, "evaluate", evaluate_while_another_job_ends)
    assert run("fourth", config) == 4
    assert read_json(kept) == {machine: 2}, "the smaller one fits both jobs"


def test_items_of_a_task(tmp_path: Path, tiny_model: Path, arc: Path) -> None:
    here = Path.cwd()
    model = HFLM(pretrained=str(find_model(tiny_model)), dtype="float32", device="cpu", batch_size=4)
    benchmark = Benchmark.model_validate(ARC | {"limit": 2})
    found = evaluate(model, benchmark, "mine", OWN_TASKS, arc.parent / "mirror", 3)
    assert found is not None
    samples = found["samples"]
    assert Path.cwd() == here, "the working directory is restored"
    items = read_items(samples, benchmark, "mine", {}, {})
    assert len(items) == 2
    assert items[0]["answer"] in ("stone", "nothing at all", "saw")
    assert items[0]["prompt"].count("Question:") == 3, "two examples come before the question"


WRONG = {
    "metric": ("acc_nrom", "metric: task arc_easy has no metric 'acc_nrom'; did you mean 'acc_norm'?"),
    "filter": ("nonee", "filter: task arc_easy has no filter 'nonee'; did you mean 'none'?"),
    "also": (["acc/first"], "also.filter: task arc_easy has no filter 'first'; known: none"),
    "engine": (
        "continuous",
        "engine: continuous is for tasks with generated answers, but arc_easy compares the likelihoods of given ones; "
        "remove this key",
    ),
}


def test_the_seed_determines_the_few_shot_examples(tmp_path: Path, tiny_model: Path, arc: Path) -> None:
    model = HFLM(pretrained=str(find_model(tiny_model)), dtype="float32", device="cpu", batch_size=4)
    benchmark = Benchmark.model_validate(ARC | {"limit": 1})
    found = [evaluate(model, benchmark, "mine", OWN_TASKS, arc.parent / "mirror", seed) for seed in (3, 3, 4)]
    first, again, other = (read_items(one["samples"], benchmark, "mine", {}, {})[0]["prompt"] for one in found if one)
    assert first == again and first != other
    last = [prompt.rsplit("Question:", 1)[1] for prompt in (first, other)]
    assert last[0] == last[1], "the question does not change"


def test_few_shot_examples_are_turns_of_the_chat(tmp_path: Path, tiny_model: Path, arc: Path) -> None:
    model = HFLM(pretrained=str(find_model(tiny_model)), dtype="float32", device="cpu", batch_size=4)
    benchmark = Benchmark.model_validate(ARC | {"limit": 1, "chat_template": True})
    found = evaluate(model, benchmark, "mine", OWN_TASKS, arc.parent / "mirror", 3)
    assert found is not None
    ((item,),) = [read_items(found["samples"], benchmark, "mine", {}, {})]
    turns = re.findall(r"<\|im_start\|>(\w+)\n(Question)?", item["prompt"])
    assert turns == [("user", "Question"), ("assistant", "")] * 3


@pytest.mark.parametrize("key", WRONG)
def test_refuses_bad_options_before_asking_the_model(arc: Path, key: str) -> None:
    value, words = WRONG[key]
    benchmark = Benchmark.model_validate(ARC | {key: value})
    with pytest.raises(UserError) as caught:
        evaluate(LM(), benchmark, "mine", OWN_TASKS, arc.parent / "mirror", 3)
    assert str(caught.value) == f"benchmarks.mine.{words}"


class LM(TemplateLM):
    """A model that cannot answer."""

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
def test_the_answer_is_the_likeliest_choice_by_the_metric(sample: dict[str, Any], metric: str, answer: str) -> None:
    assert answer_of(sample, metric) == answer


def test_generated_answers_in_a_chat(tmp_path: Path, tiny_model: Path) -> None:
    source = {"kind": "package", "package": "reasoning-gym", "task": "chain_sum", "size": 5, "seed": 5}
    config = {
        "task": "chain_sum",
        "source": source,
        "metric": "exact_match",
        "filter": "last-number",
        "max_new_tokens": 6,
    }
    call_main(
        "evaluate.download_benchmark",
        tmp_path,
        name="sums",
        config={"task": "chain_sum", "source": source, "unsafe_code": False},
        tasks=OWN_TASKS,
        questions="benchmark/questions.jsonl",
        mirror="benchmark/mirror",
        manifest="benchmark/manifest.json",
    )
    manifest = tmp_path / "benchmark" / "manifest.json"
    call_main("evaluate.run_benchmark", tmp_path, **_options(tiny_model, manifest, config, "sums"))
    items = read_json_lines(tmp_path / "sums.items.jsonl")
    questions = [row["question"] for row in read_json_lines(tmp_path / "benchmark" / "questions.jsonl")]
    assert [item["prompt"] for item in items] == [
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" for question in questions
    ]
    # A token is one byte here, so no answer has more than six bytes before decoding.
    assert all(len(item["answer"].encode()) <= 6 * 3 for item in items)
    scores = read_json(tmp_path / "sums.json")
    assert scores["n"] == 5 and scores["score"] == sum(item["score"] for item in items) / 5
    protocol = scores["protocol"]
    assert protocol["chat_template_sha256"]
    assert protocol.keys() == {
        *("task", "metric", "filter", "shots", "limit", "max_new_tokens", "chat_template", "engine"),
        *("chat_template_sha256", "task_versions", "task_sha256", "documents_sha256", "dtype", "seed", "versions"),
    }, "everything that scores depend on, and nothing else, since models with different protocols are not compared"
    assert (protocol["filter"], protocol["max_new_tokens"], protocol["seed"]) == ("last-number", 6, 3)
    assert protocol["documents_sha256"] == hash_json([item["key"] for item in items])
    assert set(scores["provenance"]["inputs"]) == {"model", "benchmark"}


def _sample(number: int, chosen: str, answer: str, score: Any, document: str = "0f") -> dict[str, Any]:
    """A sample as lm-eval logs it: an answer to one question after one filter."""
    return {
        "doc_id": number,
        "doc_hash": document * 32,
        "arguments": [(f"What is {number}?", {})],
        "target": number,
        "resps": [[answer]],
        "filter": chosen,
        "metrics": ["right", "words"],
        "right": score,
        "words": len(answer.split()),
    }


TWO_FILTERS = {
    "sums": [
        *(_sample(0, "strict", "is 0", 0.0), _sample(1, "strict", "is it 1", 1.0)),
        *(_sample(0, "loose", "0", 1.0), _sample(1, "loose", "1", 1.0)),
    ],
    "products": [_sample(0, "strict", "it is not 5", 0.0), _sample(0, "loose", "5", 0.0)],
}
"""Three questions of two tasks, with each answer once for each filter."""


def test_answers_in_which_a_filter_finds_nothing_are_marked() -> None:
    """The filter `strict` extracts, with its own fallback for one of the tasks; `loose` does not extract."""
    extract = {"function": "regex", "regex_pattern": "x"}
    configs = {
        "sums": {"filter_list": [{"name": "strict", "filter": [extract, {"function": "take_first"}]}]},
        "products": {"filter_list": [{"name": "strict", "filter": [extract | {"fallback": "none"}]}]},
        "talk": {"filter_list": [{"name": "strict", "filter": [{"function": "take_first"}]}]},
        "choices": {},
    }
    fallbacks = find_fallbacks(configs, "strict")
    assert fallbacks == {"sums": {"[invalid]"}, "products": {"none"}, "talk": set(), "choices": set()}
    assert set(map(len, find_fallbacks(configs, "loose").values())) == {0}
    found = {"sums": ["[invalid]"], "products": [["none"]], "talk": ["[invalid]"]}
    samples = {task: [_sample(0, "strict", "a", 0.0) | {"filtered_resps": one}] for task, one in found.items()}
    samples["sums"].append(_sample(1, "strict", "b", 1.0) | {"filtered_resps": ["4"]})
    benchmark = Benchmark.model_validate({"task": "all", "metric": "right", "filter": "strict"})
    items = read_items(samples, benchmark, "mine", fallbacks, {"What is 1?": True})
    assert [item.get("is_readable") for item in items] == [False, True, False, None]
    assert [item.get("is_cut") for item in items] == [None, True, None, None], "of generated answers"
    unreadable, cut = count_flaws(items)
    assert (unreadable["metric"], unreadable["n"], unreadable["is_share"]) == ("unreadable", 3, True)
    assert unreadable["score"] == pytest.approx(2 / 3) and unreadable["ci_low"] is not None
    assert (cut["metric"], cut["n"], cut["score"]) == ("cut_answers", 1, 1.0)
    assert count_flaws(items[3:]) == []


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [("strict", [("is 0", 0.0), ("is it 1", 1.0), ("it is not 5", 0.0)]), ("loose", [("0", 1), ("1", 1), ("5", 0)])],
)
def test_items_come_from_the_configured_filter(chosen: str, expected: list[tuple[str, float]]) -> None:
    benchmark = Benchmark.model_validate({"task": "both", "metric": "right", "filter": chosen})
    items = read_items(TWO_FILTERS, benchmark, "mine", {}, {})
    assert [(item["answer"], item["score"]) for item in items] == expected
    assert [(item["prompt"], item["target"]) for item in items] == [
        ("What is 0?", "0"),
        ("What is 1?", "1"),
        ("What is 0?", "0"),
    ]
    hashed = "0f" * 8
    assert [item["key"] for item in items] == [f"sums/0/{hashed}", f"sums/1/{hashed}", f"products/0/{hashed}"]


def test_keys_depend_on_the_document() -> None:
    """Versions of a benchmark may have different questions with the same number, which must not be paired."""
    benchmark = Benchmark.model_validate({"task": "sums", "metric": "right", "filter": "strict"})
    keys = {
        read_items({"sums": [_sample(0, "strict", "4", 1.0, document)]}, benchmark, "mine", {}, {})[0]["key"]
        for document in ("0f", "0e")
    }
    assert len(keys) == 2


def test_further_metrics_come_from_their_own_filters() -> None:
    """Shares of 1/3 and 2/3, and 2, 3 and 4 words. Without a filter, that of the benchmark applies."""
    also = ["right/loose", "right", "words", "words/loose"]
    benchmark = Benchmark.model_validate({"task": "both", "metric": "right", "filter": "strict", "also": also})
    others = read_others(TWO_FILTERS, benchmark, "mine")
    assert [(other["metric"], other["filter"], other["n"], other["score"], other["is_share"]) for other in others] == [
        ("right", "loose", 3, pytest.approx(2 / 3), True),
        ("right", "strict", 3, pytest.approx(1 / 3), True),
        ("words", "strict", 3, 3.0, False),
        ("words", "loose", 3, 1.0, True),
    ]
    half = 4.302653 / 3**0.5  # Student's t with two degrees of freedom; 2, 3 and 4 have the deviation 1
    assert (others[2]["ci_low"], others[2]["ci_high"]) == pytest.approx((3 - half, 3 + half))


def test_a_metric_is_a_share_only_if_all_values_are() -> None:
    """Items may have several values, as in IFEval, and n counts values."""
    benchmark = Benchmark.model_validate({"task": "t", "metric": "right", "filter": "strict", "also": ["right"]})
    for last, is_share in ((0.0, True), (12.0, False), (-0.5, False)):
        samples = {"t": [_sample(0, "strict", "a", [1.0, 0.5]), _sample(1, "strict", "b", [last])]}
        (other,) = read_others(samples, benchmark, "mine")
        assert (other["n"], other["is_share"]) == (3, is_share) and other["score"] == pytest.approx((1.5 + last) / 3)


def test_the_hash_of_a_task_does_not_depend_on_machine_or_process() -> None:
    """Folders of task files and addresses of functions differ between machines and processes."""

    def make_metric() -> Callable[[float], float]:
        return lambda value: value

    one, other = make_metric(), make_metric()
    assert str(one) != str(other)
    config = {"task": "sums", "doc_to_text": "{{question}}", "process_results": one, "metadata": {"folder": "/here"}}
    before = hash_tasks({"sums": config})
    assert hash_tasks({"sums": config | {"metadata": {"folder": "/there"}}}) == before
    assert hash_tasks({"sums": config | {"process_results": other}}) == before
    assert hash_tasks({"sums": config | {"doc_to_text": "{{question}}?"}}) != before
    assert hash_tasks({"sums": config | {"process_results": "other"}}) != before
    assert hash_tasks({"products": config}) != before


NOT_NUMBERS = "benchmarks.mine.metric: metric 'f1' does not give numbers for each question; choose another metric"
NOT_A_SHARE = (
    "benchmarks.mine.metric: metric 'f1' does not give one number from 0 to 1 for each question; choose another metric"
)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (("gold", "said"), NOT_NUMBERS),
        ([1.0, 0.0], NOT_A_SHARE),
        (-3.7, NOT_A_SHARE),
    ],
)
def test_refuses_metrics_that_are_not_shares(value: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        read_share(value, "benchmarks.mine.metric: metric 'f1'")
    assert str(caught.value) == line


def test_every_member_of_a_group_needs_the_filter() -> None:
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


def test_refuses_an_unknown_metric_of_a_function_after_scoring() -> None:
    """The names of the results of a function are known only after scoring."""
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
        read_items({"humaneval": [sample]}, benchmark, "mine", {}, {})
