"""Score one model on one benchmark with lm-eval, under the benchmark's protocol."""

import json
import logging
import os
import re
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
from scripts.common.torch_setup import prepare_torch
from scripts.evaluate.engines import bounded_memory, find_engine
from scripts.evaluate.scores import describe_values, write_scores
from scripts.evaluate.tasks import check_protocol, enter_mirror, make_manager, require

Values = np.ndarray[Any, np.dtype[np.float64]]
FIRST_SIZE = {"cpu": 16, "cuda": 256}
"""Items in one forward pass that `batch_size: auto` begins with. On a CPU more of them save no time."""

ANSWERING = ("torch", "transformers", "lm-eval", "vllm")
"""Packages that make and score answers: what different versions of them gave is not compared."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the benchmark in the configuration")
    parser.add_argument("--config", required=True, help="the benchmark's section, as JSON")
    parser.add_argument("--dtype", required=True, help="precision of the weights")
    parser.add_argument("--seed", type=int, required=True, help="seed of the few-shot examples")
    parser.add_argument("--cpus", type=int, required=True, help="arithmetic threads")
    parser.add_argument("--memory-mb", type=int, required=True, help="main memory of all processes together")
    parser.add_argument("--tasks", type=Path, required=True, help="folder with our own task files")
    parser.add_argument("--model", type=Path, required=True, help="manifest of the model")
    parser.add_argument("--model-name", required=True, help="name of the model")
    parser.add_argument("--benchmark", type=Path, required=True, help="manifest of the downloaded benchmark")
    parser.add_argument("--scores", type=Path, required=True, help="score to write, JSON")
    parser.add_argument("--items", type=Path, required=True, help="item by item, JSON lines")
    options = parser.parse_args()
    benchmark = TypeAdapter(Benchmark).validate_json(options.config)
    device = prepare_torch(options.seed, options.cpus, exact=True)
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    if device == "cuda" and torch.cuda.device_count() < benchmark.processes:
        raise UserError(
            f"benchmarks.{options.name}.processes: {benchmark.processes} of them, and the job has"
            f" {torch.cuda.device_count()} GPUs; set as many where the profile asks for them"
        )
    if device == "cpu" and benchmark.processes > 1:
        os.environ["ACCELERATE_USE_CPU"] = "true"  # else it would not see that there are several

    folder = find_model(options.model).resolve()
    label = f"run_benchmark {options.model_name} {options.name}"
    kept = options.benchmark.parent / "batch_sizes.json"
    sizes = read_json(kept) if kept.is_file() else {}
    model_kind = hash_file(folder / "config.json")[:16]
    machine = f"{find_device()}, {options.memory_mb} MB, {benchmark.engine}, model {model_kind}"
    model = find_engine(benchmark.engine)(
        name=options.name,
        label=label,
        at_once=sizes.get(machine, FIRST_SIZE[device]) if benchmark.batch_size == "auto" else benchmark.batch_size,
        halves=benchmark.batch_size == "auto",
        processes=benchmark.processes,
        pretrained=str(folder),
        dtype=options.dtype,
        device=device,
    )
    memory = options.memory_mb * 1_000_000 // benchmark.processes
    with bounded_memory(memory) if model.halves and device == "cpu" else nullcontext():
        results = evaluate(model, benchmark, options.name, options.tasks, options.benchmark, options.seed)
    if model.processes > 1:
        torch.distributed.destroy_process_group()
    if results is None:
        return
    if model.halves:
        sizes = read_json(kept) if kept.is_file() else {}  # another job may have found one meanwhile
        write_json(kept, sizes | {machine: min(model.at_once, sizes.get(machine, model.at_once))})
    items = read_items(results["samples"], benchmark, options.name)

    unused = {"source", "batch_size", "processes", "unsafe_code", "also", "ability", "margin", "cost"}
    protocol = benchmark.model_dump(exclude=unused) | {
        "chat_template_sha256": hash_json(model.tokenizer.chat_template) if benchmark.chat_template else None,
        "task_versions": results["versions"],
        "task_sha256": hash_tasks(results["configs"]),
        "documents_sha256": hash_json([item["key"] for item in items]),
        "dtype": options.dtype,
        "seed": options.seed,
        "versions": {name: listed for name, listed in list_versions().items() if name in ANSWERING},
    }
    score = write_scores(
        options.scores,
        options.items,
        items,
        benchmark=options.name,
        model=options.model_name,
        task=benchmark.task,
        metric=benchmark.metric,
        others=read_others(results["samples"], benchmark, options.name),
        protocol=protocol,
        provenance=describe(
            artefact="scores",
            name=f"{options.model_name} on {options.name}",
            config=benchmark.identity(),
            inputs={"model": options.model, "benchmark": options.benchmark},
            facts={"seed": options.seed, "batch_size": model.at_once},
        ),
    )
    say(f"{label}: {benchmark.metric} {score:.3f} of {len(items)} items")


def evaluate(
    model: LM, benchmark: Benchmark, name: str, own_tasks: Path, manifest: Path, seed: int
) -> dict[str, Any] | None:
    """What lm-eval returns for this benchmark, run in the benchmark's mirror of the hub.

    Of processes that share the questions, the first gets it, and the others None.

    Raises:
        UserError: the task has no such filter or metric, or is not for this engine.
    """
    with enter_mirror(manifest.parent / "mirror", benchmark.unsafe_code):
        manager = make_manager(benchmark.task, own_tasks.resolve())
        loaded = manager.load([benchmark.task])
        check_protocol(loaded["tasks"].values(), benchmark, name)
        # Reading the questions takes a while, and lm-eval would do it again.
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
            confirm_run_unsafe_code=True,  # our metric of that name runs it in a sandbox
        )
    return results


def hash_tasks(configs: dict[str, dict[str, Any]]) -> str:
    """A hash of what lm-eval says that its tasks are: prompts, filters, metrics, how answers are generated.

    Left out is where this stands on this machine and in this process' memory.
    """
    described = {
        task: {key: value for key, value in config.items() if key != "metadata"} for task, config in configs.items()
    }
    return hash_json(re.sub(r" at 0x[0-9a-f]+", "", json.dumps(described, sort_keys=True, default=str)))


def read_others(samples: dict[str, list[dict[str, Any]]], benchmark: Benchmark, name: str) -> list[dict[str, Any]]:
    """The further metrics that the benchmark reports, with n and interval.

    An item may have several values, such as one for each instruction of IFEval; n counts them, and the interval is a
    bootstrap over items.

    Raises:
        UserError: the task has no such metric, or it is no number.
    """
    others = []
    for wanted in benchmark.also:
        metric, _, chosen = wanted.partition("/")
        where = f"benchmarks.{name}.also"
        values = [
            read_values(sample[metric], f"{where}: metric '{metric}'")
            for _, sample in choose_samples(samples, chosen or benchmark.filter, metric, where)
        ]
        is_share = all(0 <= value <= 1 for item in values for value in item)
        others.append({"metric": metric, "filter": chosen or benchmark.filter} | describe_values(values, is_share))
    return others


def read_items(samples: dict[str, list[dict[str, Any]]], benchmark: Benchmark, name: str) -> list[dict[str, Any]]:
    """One item a question, over all tasks of a group.

    Returns:
        Items with `key` (task and hash of the document, by which two models are paired), `prompt`, `target`, `answer`
        and `score`.

    Raises:
        UserError: the task has no such metric, or it is no number from 0 to 1.
    """
    return [
        {
            "key": f"{task}/{sample['doc_id']}/{sample['doc_hash'][:16]}",
            "prompt": str(sample["arguments"][0][0]),
            "target": str(sample["target"]),
            "answer": answer_of(sample, benchmark.metric),
            "score": read_share(sample[benchmark.metric], f"benchmarks.{name}.metric: metric '{benchmark.metric}'"),
        }
        for task, sample in choose_samples(samples, benchmark.filter, benchmark.metric, f"benchmarks.{name}.metric")
    ]


def read_values(value: Any, what: str) -> Values:
    """The numbers that a metric gives for an item, shape (values,). Raises UserError when it gives something else."""
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(isinstance(number, bool | int | float | np.number | np.bool_) for number in numbers):
        raise UserError(f"{what} is no number for each question; choose another")
    return np.array(numbers, dtype=float)


def read_share(value: Any, what: str) -> float:
    """The score of an item. Raises UserError when it is no single number from 0 to 1."""
    numbers = read_values(value, what)
    if len(numbers) > 1 or not 0 <= numbers[0] <= 1:
        raise UserError(f"{what} is no number from 0 to 1 for each question; choose another")
    return float(numbers[0])


def choose_samples(
    samples: dict[str, list[dict[str, Any]]], wanted: str, metric: str, where: str
) -> list[tuple[str, dict[str, Any]]]:
    """The samples of one filter, each with its task. Raises UserError when they do not have the metric."""
    chosen = [(task, sample) for task, rows in samples.items() for sample in rows if sample["filter"] == wanted]
    for task, sample in chosen:
        require(metric, set(sample["metrics"]), f"{where}: task {task} has no metric")
    return chosen


def answer_of(sample: dict[str, Any], metric: str) -> str:
    """The text that the model wrote, or the choice that it found likeliest as the metric counts it.

    `acc_norm` divides a log-likelihood by the letters of its choice. Choices that are continued alike, as WinoGrande's
    are, are told by what stands before.
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
