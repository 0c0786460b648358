"""Measure speed and memory of the data room. `make bench-data` runs this.

It generates instruction rows (by default 1,000,000 of about 1.5 kB) and a benchmark with 2,000 questions, and runs
download_dataset, inspect_rows and filter_dataset on them as the pipeline does. filter_dataset is the only step that
needs all rows at once, so it also runs on several times as many rows (`--times`): the same rows with other keys and
signatures. A plain script (bench_data_plain.py) then runs the same steps on the first rows, one row at a time, with the
same libraries. If `--datatrove` names a Python that has datatrove, its MinHash runs on these rows too. The output has
rows per second and peak memory of each step, and the ratios.
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
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from scripts.common.files import write_json, write_json_lines
from scripts.common.manifest import find_model
from scripts.common.paths import REPOSITORY
from scripts.data.filters import Candidate
from scripts.data.inspect_rows import PERMUTATIONS, sign
from scripts.data.near_duplicates import find_near_duplicates

FILTERS: dict[str, Any] = {
    "refusals": True,
    "max_repetition": 0.3,
    "languages": ["en"],
    "min_tokens": 8,
    "max_tokens": 2048,
    "near_duplicates": 0.8,
}
QUESTION, ANSWER = 70, 230
"""Words of a question and of an answer, about 1.5 kB together."""

COPIES, NEAR_COPIES = 0.02, 0.03
"""Shares of rows that repeat an earlier row, exactly or with every eightieth word changed."""

ITEMS = 2_000

COMMON: dict[str, Any] = {"name": "bench", "row_type": "messages"}
COMPARED: dict[str, Any] = {"benchmarks": "made_up"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows to generate")
    parser.add_argument("--plain-rows", type=int, default=20_000, help="rows for the plain script and for datatrove")
    parser.add_argument("--times", type=int, default=8, help="factor by which filter_dataset gets more rows")
    parser.add_argument("--folder", type=Path, default=Path("work/bench-data"), help="folder for all files")
    parser.add_argument("--datatrove", help="path of a Python that has datatrove")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)

    model = prepare_model(folder)
    rows = folder / f"{options.rows}.jsonl"
    questions = folder / "made_up" / "questions.jsonl"
    make_rows(model, rows, options.rows, questions)
    few = folder / "few.jsonl"
    with rows.open("rb") as source, few.open("wb") as part:
        part.writelines(islice(source, options.plain_rows))

    seconds = run_ours(folder, rows, model, questions)
    table: dict[str, Any] = {"rows": options.rows, "bytes": rows.stat().st_size, "steps": seconds}
    for step in seconds.values():
        step["rows_per_second"] = round(options.rows / step["seconds"])
    table["filter_dataset_on_more"] = {"rows": options.rows * options.times} | decide(
        repeat_rows(folder, options.times), rows, questions
    )
    ours = options.rows / sum(step["seconds"] for step in seconds.values())
    plain = run_timed(
        [[sys.executable, "-m", "performance.cpu.bench_data_plain", few, model, questions, json.dumps(FILTERS)]]
    )
    table["ours_rows_per_second"] = ours
    table["plain_rows_per_second"] = options.plain_rows / plain["seconds"]
    table["ratio_to_plain"] = ours / table["plain_rows_per_second"]
    table["on_the_same_rows"] = compare_same_rows(folder, few, model, questions, plain["seconds"])
    if options.datatrove:
        table["datatrove"] = compare_minhash(options.datatrove, folder, few)
    write_json(folder / "figures.json", table)
    print(json.dumps(table, indent=2))


def prepare_model(folder: Path) -> Path:
    """Download the demo's base model into a folder, once. Returns the path of its manifest."""
    manifest = folder / "base" / "manifest.json"
    if not manifest.is_file():
        model = yaml.safe_load((REPOSITORY / "recipes" / "demo.yaml").read_text(encoding="utf-8"))["model"]
        run("download_model", [{"config": json.dumps(model), "cache": folder / "cache", "output": manifest}])
    return manifest


# --- the pipeline's steps -----------------------------------------------------------------------


def run_ours(folder: Path, rows: Path, model: Path, questions: Path) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of the three steps. The rows are inspected in one job per core."""
    folder.mkdir(exist_ok=True)
    config = {"source": {"kind": "file", "path": str(rows)}}
    shards = os.cpu_count() or 1
    source = folder / "source.parquet"
    download = {"config": json.dumps(config), "output": source, "manifest": folder / "source.json"}
    inspect = (
        {"config": json.dumps(FILTERS), "shards": shards, "rows": source, "model": model}
        | COMPARED
        | {"questions": questions}
    )
    outputs = [{"output": folder / f"{n}.parquet", "signatures": folder / f"{n}.signatures"} for n in range(shards)]
    return {
        "download_dataset": run("download_dataset", [COMMON | download]),
        "inspect_rows": run("inspect_rows", [COMMON | inspect | {"shard": n} | o for n, o in enumerate(outputs)]),
        "filter_dataset": decide(folder, rows, questions),
    }


def decide(folder: Path, rows: Path, questions: Path) -> dict[str, float]:
    """Seconds and peak memory of filter_dataset on the inspected tables of a folder."""
    config = {"source": {"kind": "file", "path": str(rows)}, "filters": FILTERS, "validation": 1000}
    signatures = sorted(folder.glob("*.signatures"))
    options = (
        {"config": json.dumps(config), "seed": 0, "rows": folder / "source.parquet", "questions": questions}
        | COMPARED
        | {"inspected": [path.with_suffix(".parquet") for path in signatures], "signatures": signatures}
        | {split: folder / f"{split}.parquet" for split in ("train", "validation", "test", "rejected", "contamination")}
        | {name: folder / f"{name}.json" for name in ("funnel", "summary", "manifest")}
    )
    return run("filter_dataset", [COMMON | options])


def repeat_rows(folder: Path, times: int) -> Path:
    """A new folder in which the rows and inspected tables of `folder` are repeated, each time with other keys."""
    more = folder / "more"
    more.mkdir(exist_ok=True)
    salts = np.random.default_rng(0).integers(0, 2**32, (times, 4), np.uint32)
    rows = pq.read_metadata(folder / "source.parquet").num_rows
    turns = [(turn * rows, salt) for turn, salt in enumerate(salts)]
    copy_table(folder / "source.parquet", more / "source.parquet", turns)
    for turn, salt in turns:
        for path in sorted(folder.glob("*.signatures")):
            copy = more / f"{turn:012}-{path.name}"
            (np.memmap(path, np.uint32, "r") ^ salt[0]).tofile(copy)
            copy_table(path.with_suffix(".parquet"), copy.with_suffix(".parquet"), [(turn, salt)])
    return more


def copy_table(path: Path, copy: Path, turns: list[tuple[int, NDArray[np.uint32]]]) -> None:
    """Write a copy of a table for each turn: (number to add to the numbers of its rows, salt that changes its keys)."""
    with pq.ParquetFile(path) as file, pq.ParquetWriter(copy, file.schema_arrow, compression="zstd") as writer:
        for first, salt in turns:
            for batch in file.iter_batches(10_000):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                columns["source_index"] = pc.add(columns["source_index"], first)
                for key in {"text_key", "prompt_key"} & columns.keys():
                    filled = pc.fill_null(columns[key], bytes(16))
                    salted = np.frombuffer(filled.buffers()[1], np.uint32).reshape(-1, 4) ^ salt
                    columns[key] = pa.array(salted.view("S16").ravel(), filled.type)
                writer.write_batch(pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema))


def run(script: str, jobs: list[dict[str, Any]]) -> dict[str, float]:
    """Run the jobs of a script of the data room in parallel."""
    commands = []
    for options in jobs:
        command: list[Any] = [sys.executable, "-m", f"scripts.data.{script}"]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", *(value if isinstance(value, list) else [value])]
        commands.append(command)
    return run_timed(commands)


def run_timed(commands: list[list[Any]]) -> dict[str, float]:
    """Seconds of commands that run in parallel, and the sum of their peak resident memory, in GB."""
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
    """Compare our steps with the plain script on the same rows, including all imports."""
    ours = sum(step["seconds"] for step in run_ours(folder / "few", few, model, questions).values())
    return {"ours_seconds": ours, "plain_seconds": plain, "ratio": plain / ours}


def compare_minhash(python: str, folder: Path, few: Path) -> dict[str, float]:
    """Compare the removal of near duplicates alone: ours, in this process, and datatrove's MinHash."""
    start = time.monotonic()
    signatures = [np.empty((0, PERMUTATIONS), np.uint32)]
    with few.open(encoding="utf-8") as file:
        while batch := [json.loads(line) for line in islice(file, 1_000)]:
            signatures.append(sign([Candidate(row) for row in batch]))
    together = np.concatenate(signatures)
    rows = np.arange(len(together))
    firsts = find_near_duplicates(together, rows, FILTERS["near_duplicates"])
    ours = time.monotonic() - start
    theirs = run_timed([[python, "-m", "performance.cpu.bench_data_datatrove", few, folder / "datatrove"]])
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
    """Generate conversations from the model's vocabulary, by Zipf's law. Some are copies, some contain a question."""
    if path.is_file() and questions.is_file():
        return
    print(f"generating {count:,} rows", flush=True)
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
    """Yield rows of words, drawn with the given cumulative probabilities."""
    for places in np.searchsorted(cumulative, rng.random((rows, length))):
        yield [words[place] for place in places]


def read_vocabulary(model: Path) -> list[str]:
    """The tokens of a tokenizer that are complete words, most frequent first."""
    from transformers import AutoTokenizer

    vocabulary = AutoTokenizer.from_pretrained(find_model(model)).get_vocab()
    known = sorted(vocabulary, key=lambda token: vocabulary[token])
    return [token[1:] for token in known if token.startswith("Ġ") and token[1:].isascii() and token[1:].isalpha()]


if __name__ == "__main__":
    main()
