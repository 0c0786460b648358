"""How fast is the data room, and how much memory does it take? `make bench-data` runs this.

It makes instruction rows (1,000,000 of about 1.5 kB unless told otherwise) and a benchmark of 2,000 questions, and runs
download_dataset, inspect_rows and filter_dataset on them as the pipeline does. Then, on the first of the same rows, a
plain script (bench_data_plain.py) does the same steps one row at a time with the same libraries. With a Python that has
datatrove (`--datatrove PYTHON`), its MinHash runs on the same rows too. Printed are the rows a second of each step, the
most memory that a step held, and the ratios.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from scripts.common.files import write_json, write_json_lines
from scripts.common.manifest import find_model
from scripts.data.filters import Candidate
from scripts.data.inspect_rows import PERMUTATIONS, sign
from scripts.data.near_duplicates import find_near_duplicates

REPOSITORY = Path(__file__).parents[1]

FILTERS: dict[str, Any] = {
    "refusals": True,
    "max_repetition": 0.3,
    "languages": ["en"],
    "min_tokens": 8,
    "max_tokens": 2048,
    "near_duplicates": 0.8,
}
QUESTION, ANSWER = 70, 230
"""Words of a question and of an answer: about 1.5 kB together."""

COPIES, NEAR_COPIES = 0.02, 0.03
"""Shares of rows that repeat an earlier one, word for word or with every eightieth word changed."""

ITEMS = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--plain-rows", type=int, default=20_000, help="rows for the plain script and for datatrove")
    parser.add_argument("--folder", type=Path, default=Path("work/bench-data"))
    parser.add_argument("--datatrove", help="a Python that has datatrove")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)

    model = folder / "base" / "manifest.json"
    if not model.is_file():
        source = yaml.safe_load((REPOSITORY / "recipes" / "demo.yaml").read_text(encoding="utf-8"))["model"]
        run("download_model", [{"config": json.dumps(source), "cache": folder / "cache", "output": model}])
    rows = folder / f"{options.rows}.jsonl"
    questions = folder / "made_up" / "questions.jsonl"
    make_rows(model, rows, options.rows, questions)
    few = folder / "few.jsonl"
    with rows.open("rb") as whole, few.open("wb") as part:
        part.writelines(islice(whole, options.plain_rows))

    seconds = run_ours(folder, rows, model, questions)
    table: dict[str, Any] = {"rows": options.rows, "bytes": rows.stat().st_size, "steps": seconds}
    for step in seconds.values():
        step["rows_per_second"] = round(options.rows / step["seconds"])
    ours = options.rows / sum(step["seconds"] for step in seconds.values())
    plain = run_timed(
        [[sys.executable, "-m", "benchmarks_cpu.bench_data_plain", few, model, questions, json.dumps(FILTERS)]]
    )
    table["ours_rows_per_second"] = ours
    table["plain_rows_per_second"] = options.plain_rows / plain["seconds"]
    table["ratio_to_plain"] = ours / table["plain_rows_per_second"]
    table["on_the_same_rows"] = compare_same_rows(folder, few, model, questions, plain["seconds"])
    if options.datatrove:
        table["datatrove"] = compare_minhash(options.datatrove, folder, few)
    write_json(folder / "figures.json", table)
    print(json.dumps(table, indent=2))


# --- the pipeline's steps -----------------------------------------------------------------------


def run_ours(folder: Path, rows: Path, model: Path, questions: Path, **changes: Any) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of the three steps; the rows are inspected in as many jobs as there are cores."""
    config = {"source": {"kind": "file", "path": str(rows)}}
    filters = FILTERS | changes
    shards = os.cpu_count() or 1
    inspected = [folder / f"{shard}.parquet" for shard in range(shards)]
    signatures = [folder / f"{shard}.signatures" for shard in range(shards)]
    common = {"name": "bench", "form": "messages"}
    source = folder / "source.parquet"
    download = {"config": json.dumps(config), "output": source, "manifest": folder / "source.json"}
    inspect = {"config": json.dumps(filters), "shards": shards, "rows": source, "model": model, "questions": questions}
    decide = (
        {"config": json.dumps(config | {"filters": filters, "validation": 1000}), "seed": 0, "rows": source}
        | {"inspected": inspected, "signatures": signatures, "questions": questions}
        | {split: folder / f"{split}.parquet" for split in ("train", "validation", "test", "rejected", "contamination")}
        | {name: folder / f"{name}.json" for name in ("funnel", "summary", "manifest")}
    )
    each = zip(range(shards), inspected, signatures, strict=True)
    return {
        "download_dataset": run("download_dataset", [common | download]),
        "inspect_rows": run(
            "inspect_rows", [common | inspect | {"shard": n, "output": o, "signatures": s} for n, o, s in each]
        ),
        "filter_dataset": run("filter_dataset", [common | decide]),
    }


def run(script: str, jobs: list[dict[str, Any]]) -> dict[str, float]:
    """Run the jobs of a script of the data room side by side."""
    commands = []
    for options in jobs:
        command: list[Any] = [sys.executable, "-m", f"scripts.data.{script}"]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", *(value if isinstance(value, list) else [value])]
        commands.append(command)
    return run_timed(commands)


def run_timed(commands: list[list[Any]]) -> dict[str, float]:
    """Seconds of commands that run side by side, and the sum of the most resident memory of each, in GB."""
    start = time.monotonic()
    processes = [subprocess.Popen([str(word) for word in command], cwd=REPOSITORY) for command in commands]
    memory = 0.0
    for process in processes:
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"error: {commands[0][2]} failed")
        memory += usage.ru_maxrss * 1024 / 1e9
    return {"seconds": round(time.monotonic() - start, 1), "peak_memory_gb": round(memory, 2)}


def compare_same_rows(folder: Path, few: Path, model: Path, questions: Path, plain: float) -> dict[str, float]:
    """Our steps on exactly the rows of the plain script, imports and all."""
    ours = sum(step["seconds"] for step in run_ours(folder, few, model, questions).values())
    return {"ours_seconds": ours, "plain_seconds": plain, "ratio": plain / ours}


def compare_minhash(python: str, folder: Path, few: Path) -> dict[str, float]:
    """Near duplicates alone, from the texts to the rows that go: ours in this process, and datatrove's MinHash."""
    start = time.monotonic()
    signatures = [np.empty((0, PERMUTATIONS), np.uint32)]
    with few.open(encoding="utf-8") as file:
        while batch := [json.loads(line) for line in islice(file, 1_000)]:
            signatures.append(sign([Candidate(row) for row in batch]))
    together = np.concatenate(signatures)
    rows = np.arange(len(together))
    firsts = find_near_duplicates(together, rows, FILTERS["near_duplicates"])
    ours = time.monotonic() - start
    theirs = run_timed([[python, "-m", "benchmarks_cpu.bench_data_datatrove", few, folder / "datatrove"]])
    kept = sum(1 for path in (folder / "datatrove" / "kept").iterdir() for _ in path.open("rb"))
    return {
        "rows": len(rows),
        "ours_seconds": round(ours, 2),
        "ours_removed": int((firsts != rows).sum()),
        "datatrove_seconds": theirs["seconds"],
        "datatrove_removed": len(rows) - kept,
        "ratio": theirs["seconds"] / ours,
    }


# --- rows ---------------------------------------------------------------------------------------


def make_rows(model: Path, path: Path, count: int, questions: Path) -> None:
    """Messages rows of words of the model's own vocabulary, by Zipf's law; some are copies, some hold a question."""
    if path.is_file() and questions.is_file():
        return
    print(f"making {count:,} rows", flush=True)
    words = read_vocabulary(model)
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, len(words) + 1)
    cumulative = np.cumsum(weights) / weights.sum()
    asked = [" ".join(line) for line in draw(words, cumulative, rng, ITEMS, 50)]
    questions.parent.mkdir(parents=True, exist_ok=True)
    write_json_lines(questions, [{"question": text, "texts": [text]} for text in asked])
    chance = random.Random(0)
    kept: list[list[str]] = []
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, count, 10_000):
            for drawn in draw(words, cumulative, rng, min(10_000, count - start), QUESTION + ANSWER):
                row = drawn
                dice = chance.random()
                if kept and dice < COPIES + NEAR_COPIES:
                    row = list(chance.choice(kept))
                    if dice > COPIES:
                        row[::80] = [chance.choice(words) for _ in row[::80]]
                elif dice < COPIES + NEAR_COPIES + 0.001:
                    row[:50] = chance.choice(asked).split()
                elif len(kept) < 50_000:
                    kept.append(row)
                turns = [("user", " ".join(row[:QUESTION])), ("assistant", " ".join(row[QUESTION:]))]
                messages = [{"role": role, "content": content} for role, content in turns]
                file.write(json.dumps({"messages": messages}) + "\n")


def draw(words: list[str], cumulative: Any, rng: np.random.Generator, rows: int, length: int) -> Iterator[list[str]]:
    """Rows of words, each drawn by its weight."""
    for places in np.searchsorted(cumulative, rng.random((rows, length))):
        yield [words[place] for place in places]


def read_vocabulary(model: Path) -> list[str]:
    """The whole words of a tokenizer, the most frequent first."""
    from transformers import AutoTokenizer

    vocabulary = AutoTokenizer.from_pretrained(find_model(model)).get_vocab()
    known = sorted(vocabulary, key=lambda token: vocabulary[token])
    return [token[1:] for token in known if token.startswith("Ġ") and token[1:].isascii() and token[1:].isalpha()]


if __name__ == "__main__":
    main()
