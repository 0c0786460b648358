"""Score one model on one benchmark with lm-eval."""

import argparse
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import torch
import torch.distributed
from lm_eval.api.model import LM
from pydantic import TypeAdapter

from scripts.common.config import Benchmark
from scripts.common.console import make_parser, run_script, say
from scripts.common.errors import UserError
from scripts.common.files import hash_file, hash_json, read_json, write_json
from scripts.common.manifest import describe, find_device, find_model, list_versions
from scripts.common.records import BenchmarkItem, OtherMetric
from scripts.common.torch_setup import prepare_torch
from scripts.evaluate.engines import bounded_memory, find_engine
from scripts.evaluate.scores import Values, describe_values, write_scores
from scripts.evaluate.tasks import check_protocol, enter_mirror, make_manager, require

Sample = dict[str, Any]
"""lm-eval's log of one question with one filter."""

EXTRACTING = ("regex", "multi_choice_regex")
"""lm-eval's filters that extract a part of the answer."""

NOTHING_FOUND = "[invalid]"
"""What they give by default if they find nothing."""

FIRST_SIZE = {"cpu": 16, "cuda": 256}
"""Batch size that `batch_size: auto` starts with. On a CPU, larger batches are not faster."""

ANSWERING = ("torch", "transformers", "lm-eval", "vllm")
"""Packages that generate and score answers. Scores from different versions of them are not compared."""


def main() -> None:
    options = parse_options()
    benchmark = TypeAdapter(Benchmark).validate_json(options.config)
    label = f"run_benchmark {options.model_name} {options.name}"
    device = prepare_torch(options.seed, options.cpus, exact=True)
    prepare_processes(benchmark, options.name, device)

    folder = find_model(options.model).resolve()
    machine = name_machine(folder, options.memory_mb, benchmark)
    model = find_engine(benchmark.engine)(
        name=options.name,
        label=label,
        at_once=choose_batch_size(benchmark, read_batch_sizes(options.batch_sizes).get(machine), device),
        halves=benchmark.batch_size == "auto",
        processes=benchmark.processes,
        pretrained=str(folder),
        dtype=options.dtype,
        device=device,
    )
    memory = options.memory_mb * 1_000_000 // benchmark.processes
    with bounded_memory(memory) if model.halves and device == "cpu" else nullcontext():
        results = evaluate(model, benchmark, options.name, options.tasks, options.mirror, options.seed)
    if model.processes > 1:
        torch.distributed.destroy_process_group()
    if results is None:
        return
    if model.halves:
        keep_batch_size(options.batch_sizes, machine, model.at_once)

    fallbacks = find_fallbacks(results["configs"], benchmark.filter)
    items = read_items(results["samples"], benchmark, options.name, fallbacks, model.cut_answers.by_prompt)
    template = model.tokenizer.chat_template
    score = write_scores(
        options.scores,
        options.items,
        items,
        benchmark=options.name,
        model=options.model_name,
        task=benchmark.task,
        metric=benchmark.metric,
        others=read_others(results["samples"], benchmark, options.name) + count_flaws(items),
        protocol=make_protocol(benchmark, results, items, template) | {"dtype": options.dtype, "seed": options.seed},
        provenance=describe(
            artefact="scores",
            name=f"{options.model_name} on {options.name}",
            config=benchmark.identity(),
            inputs={"model": options.model, "benchmark": options.benchmark},
            facts={"seed": options.seed, "batch_size": model.at_once},
        ),
    )
    say(f"{label}: {benchmark.metric} {score:.3f} of {len(items)} items")


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the benchmark in the configuration")
    parser.add_argument("--config", required=True, help="section of the benchmark, as JSON")
    parser.add_argument("--dtype", required=True, help="precision of the weights")
    parser.add_argument("--seed", type=int, required=True, help="seed that draws the few-shot examples")
    parser.add_argument("--cpus", type=int, required=True, help="number of arithmetic threads")
    parser.add_argument("--memory-mb", type=int, required=True, help="main memory of all processes together, in MB")
    parser.add_argument("--tasks", type=Path, required=True, help="folder with our own task files")
    parser.add_argument("--model", type=Path, required=True, help="manifest of the model")
    parser.add_argument("--model-name", required=True, help="name of the model")
    parser.add_argument("--benchmark", type=Path, required=True, help="manifest of the downloaded benchmark")
    parser.add_argument("--mirror", type=Path, required=True, help="its local mirror of the hub")
    parser.add_argument("--batch-sizes", type=Path, required=True, help="batch sizes that earlier jobs found, JSON")
    parser.add_argument("--scores", type=Path, required=True, help="score to write, JSON")
    parser.add_argument("--items", type=Path, required=True, help="items to write, JSON lines")
    return parser.parse_args()


def prepare_processes(benchmark: Benchmark, name: str, device: str) -> None:
    """Let the processes that share the questions find each other. Raises UserError if they lack GPUs."""
    if device == "cuda" and torch.cuda.device_count() < benchmark.processes:
        raise UserError(
            f"benchmarks.{name}.processes: {benchmark.processes} processes need as many GPUs, but the job has "
            f"{torch.cuda.device_count()}; request more in the profile, or lower processes"
        )
    if device == "cpu" and benchmark.processes > 1:
        os.environ["ACCELERATE_USE_CPU"] = "true"  # without it, accelerate sees only one process
    logging.getLogger("lm_eval").setLevel(logging.WARNING)


def name_machine(model: Path, memory_mb: int, benchmark: Benchmark) -> str:
    """What a batch size that fits depends on: device, memory, engine and the kind of model."""
    model_kind = hash_file(model / "config.json")[:16]
    return f"{find_device()}, {memory_mb} MB, {benchmark.engine}, model {model_kind}"


def choose_batch_size(benchmark: Benchmark, found: int | None, device: str) -> int:
    """The batch size of the configuration; with `auto`, the one that an earlier job found, else the first to try."""
    if benchmark.batch_size != "auto":
        return benchmark.batch_size
    return FIRST_SIZE[device] if found is None else found


def make_protocol(
    benchmark: Benchmark, results: dict[str, Any], items: list[BenchmarkItem], template: str | None
) -> dict[str, Any]:
    """How the model was asked and scored: the section, what lm-eval did with it, and the versions of the packages."""
    unused = {"source", "batch_size", "protocols", "processes", "unsafe_code", "also", "ability", "margin", "cost"}
    return benchmark.model_dump(exclude=unused) | {
        "chat_template_sha256": hash_json(template) if benchmark.chat_template else None,
        "task_versions": results["versions"],
        "task_sha256": hash_tasks(results["configs"]),
        "documents_sha256": hash_json([item["key"] for item in items]),
        "versions": {name: listed for name, listed in list_versions().items() if name in ANSWERING},
    }


def keep_batch_size(path: Path, machine: str, size: int) -> None:
    """Write down the batch size that fits. Another job may have found a smaller one meanwhile."""
    sizes = read_batch_sizes(path)
    write_json(path, sizes | {machine: min(size, sizes.get(machine, size))})


def read_batch_sizes(path: Path) -> dict[str, int]:
    """Batch sizes that earlier jobs found, by machine and kind of model."""
    return dict(read_json(path)) if path.is_file() else {}


def evaluate(
    model: LM, benchmark: Benchmark, name: str, own_tasks: Path, mirror: Path, seed: int
) -> dict[str, Any] | None:
    """Run lm-eval on a benchmark, inside its mirror of the hub.

    Returns:
        lm-eval's results. If several processes share the questions, all but the first get None.

    Raises:
        UserError: the task does not have the filter or metric, or does not work with the engine.
    """
    with enter_mirror(mirror, benchmark.unsafe_code):
        manager = make_manager(benchmark.task, own_tasks.resolve())
        loaded = manager.load([benchmark.task])
        check_protocol(loaded["tasks"].values(), benchmark, name)
        # lm-eval would load the questions once more, which takes a while.
        manager.load = lambda names: loaded
        results: dict[str, Any] | None = lm_eval.simple_evaluate(
            model=model,
            tasks=[benchmark.task],
            task_manager=manager,
            num_fewshot=benchmark.shots,
            limit=benchmark.limit,
            gen_kwargs={"max_gen_toks": benchmark.max_new_tokens} if benchmark.max_new_tokens else None,
            apply_chat_template=benchmark.chat_template,
            fewshot_as_multiturn=benchmark.chat_template,
            bootstrap_iters=0,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            confirm_run_unsafe_code=True,  # our own metric runs the code in a sandbox
        )
    return results


def hash_tasks(configs: dict[str, dict[str, Any]]) -> str:
    """Hash of lm-eval's task descriptions: prompts, filters, metrics and generation settings.

    Paths on this machine and addresses in memory are left out.
    """
    described = {
        task: {key: value for key, value in config.items() if key != "metadata"} for task, config in configs.items()
    }
    return hash_json(re.sub(r" at 0x[0-9a-f]+", "", json.dumps(described, sort_keys=True, default=str)))


def read_others(samples: dict[str, list[Sample]], benchmark: Benchmark, name: str) -> list[OtherMetric]:
    """The metrics in `also`, with n and interval.

    An item may have several values, such as one for each instruction of IFEval. Then n counts values, and the interval
    is a bootstrap over items.

    Raises:
        UserError: the task does not have the metric, or its values are not numbers.
    """
    others: list[OtherMetric] = []
    for wanted in benchmark.also:
        metric, _, chosen = wanted.partition("/")
        where = f"benchmarks.{name}.also"
        values = [
            read_values(sample[metric], f"{where}: metric '{metric}'")
            for _, sample in choose_samples(samples, chosen or benchmark.filter, metric, where)
        ]
        is_share = all(0 <= value <= 1 for item in values for value in item)
        estimate = describe_values(values, is_share)
        others.append({"metric": metric, "filter": chosen or benchmark.filter, **estimate})
    return others


def find_fallbacks(configs: dict[str, dict[str, Any]], wanted: str) -> dict[str, set[str]]:
    """What the filters of each task give if they find nothing in an answer; empty for filters that extract nothing.

    Args:
        configs: lm-eval's task configurations.
        wanted: name of the filter.
    """
    return {
        task: {
            str(step.get("fallback", NOTHING_FOUND))
            for entry in config.get("filter_list") or []
            if entry["name"] == wanted
            for step in entry["filter"]
            if step["function"] in EXTRACTING
        }
        for task, config in configs.items()
    }


def count_flaws(items: Sequence[BenchmarkItem]) -> list[OtherMetric]:
    """Shares of answers in which the filter found nothing, and of answers cut at the length limit, where known."""
    flaws = {
        "unreadable": [not item["is_readable"] for item in items if "is_readable" in item],
        "cut_answers": [item["is_cut"] for item in items if "is_cut" in item],
    }
    return [
        {"metric": metric, "filter": "none", **describe_values([np.array([float(flaw)]) for flaw in found])}
        for metric, found in flaws.items()
        if found
    ]


def read_items(
    samples: dict[str, list[Sample]],
    benchmark: Benchmark,
    name: str,
    fallbacks: Mapping[str, set[str]],
    are_cut: Mapping[str, bool],
) -> list[BenchmarkItem]:
    """One item for each question, over all tasks of a group.

    Args:
        fallbacks: what the filters of each task give if they find nothing.
        are_cut: whether the generated answer to a prompt was cut at the length limit.

    Returns:
        Items with keys `<task>/<number>/<hash of the document>`.

    Raises:
        UserError: the task does not have the metric, or its values are not numbers from 0 to 1.
    """
    items: list[BenchmarkItem] = []
    for task, sample in choose_samples(samples, benchmark.filter, benchmark.metric, f"benchmarks.{name}.metric"):
        item: BenchmarkItem = {
            "key": f"{task}/{sample['doc_id']}/{sample['doc_hash'][:16]}",
            "prompt": str(sample["arguments"][0][0]),
            "target": str(sample["target"]),
            "answer": answer_of(sample, benchmark.metric),
            "score": read_share(sample[benchmark.metric], f"benchmarks.{name}.metric: metric '{benchmark.metric}'"),
        }
        if nothing := fallbacks.get(task):
            item["is_readable"] = not nothing.issuperset(map(str, np.ravel(sample["filtered_resps"])))
        if item["prompt"] in are_cut:
            item["is_cut"] = are_cut[item["prompt"]]
        items.append(item)
    return items


def read_values(value: Any, what: str) -> Values:
    """Values of a metric for an item, shape (values,). Raises UserError if they are not numbers."""
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(isinstance(number, bool | int | float | np.number | np.bool_) for number in numbers):
        raise UserError(f"{what} does not give numbers for each question; choose another metric")
    return np.array(numbers, dtype=float)


def read_share(value: Any, what: str) -> float:
    """The score of an item. Raises UserError if it is not one number from 0 to 1."""
    numbers = read_values(value, what)
    if len(numbers) > 1 or not 0 <= numbers[0] <= 1:
        raise UserError(f"{what} does not give one number from 0 to 1 for each question; choose another metric")
    return float(numbers[0])


def choose_samples(samples: dict[str, list[Sample]], wanted: str, metric: str, where: str) -> list[tuple[str, Sample]]:
    """The samples of one filter, each with its task. Raises UserError if one does not have the metric."""
    chosen = [(task, sample) for task, rows in samples.items() for sample in rows if sample["filter"] == wanted]
    for task, sample in chosen:
        require(metric, set(sample["metrics"]), f"{where}: task {task} has no metric")
    return chosen


def answer_of(sample: Sample, metric: str) -> str:
    """The generated text, or the choice that is most likely by the metric.

    `acc_norm` divides a log-likelihood by the length of its choice in characters. If all choices have the same text, as
    in WinoGrande, where they differ in their context, the answer is the context.
    """
    response = sample["resps"][0][0]
    if isinstance(response, str):
        return response
    asked = [(str(context), str(choice)) for context, choice, *_ in sample["arguments"]]
    is_same = len({choice for _, choice in asked}) == 1
    choices = [context if is_same else choice for context, choice in asked]
    likelihoods = [float(answers[0][0]) for answers in sample["resps"]][: len(choices)]
    if metric == "acc_norm":
        likelihoods = [value / max(1, len(choice)) for value, (_, choice) in zip(likelihoods, asked, strict=True)]
    return choices[likelihoods.index(max(likelihoods))].strip()


if __name__ == "__main__":
    run_script(main)
