"""Measure speed, utilisation and memory of training stages on one GPU: `python -m performance.gpu.bench_train`.

A Qwen3-4B with random weights trains through our stages on generated rows: packed SFT at 4,096 tokens, with LoRA and
with all weights, with and without activation checkpointing and compilation, with each attention that is installed; DPO;
and GRPO, including its sampling. The output has, for each case, trained (and sampled) tokens per second, MFU and peak
memory after the warm-up steps. For a case that fails, for example because memory runs out, it has the last line of the
error. `--layers 2 --length 256` tries it on a small machine.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from scripts.common.files import write_json
from scripts.common.manifest import find_model
from scripts.common.paths import REPOSITORY
from scripts.data.schemas import SCHEMAS
from scripts.train import varlen_attention

STEPS, WARM_UP = 12, 4
"""Optimiser steps of each measurement, and how many of them, at the beginning, do not count."""

ROWS = 2_000


class Case(NamedTuple):
    """One measurement."""

    method: str
    tuning: str
    attention: str
    args: dict[str, Any]

    @property
    def label(self) -> str:
        """Name of the case in the output."""
        on = [name for name in ("gradient_checkpointing", "torch_compile") if self.args.get(name)]
        return " ".join([self.method, self.tuning, self.attention, *on])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=36, help="layers of the model")
    parser.add_argument("--length", type=int, default=4096, help="tokens of a packed row")
    parser.add_argument("--only", default="", help="measure only cases whose label contains this text")
    parser.add_argument("--folder", type=Path, default=Path("work/bench-gpu"), help="folder for all files")
    options = parser.parse_args()
    folder = options.folder.resolve()
    model = make_model(folder, options.layers)
    make_rows(folder, options.length)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    table: dict[str, Any] = {"device": device, "date": f"{datetime.now(UTC):%Y-%m-%d}", "layers": options.layers}
    for case in cases(options.length):
        if options.only in case.label:
            table[case.label] = measure(case, model, folder)
            print(case.label, json.dumps(table[case.label]), flush=True)
            write_json(folder / "figures.json", table)


def cases(length: int) -> Iterator[Case]:
    """All cases, packed SFT first."""
    attentions = [varlen_attention.NAME, "sdpa", "flex_attention"]
    attentions += ["flash_attention_2"] if is_flash_attn_2_available() else []
    attentions += ["flash_attention_3"] if is_flash_attn_3_available() else []
    packed = {"packing": True, "max_length": length, "per_device_train_batch_size": 2}
    for tuning, attention, checkpointing, compiled in itertools.product(
        ("lora", "full"), attentions, (False, True), (False, True)
    ):
        args = packed | {"gradient_checkpointing": checkpointing, "torch_compile": compiled}
        yield Case("sft", tuning, attention, args)
    for tuning in ("lora", "full"):
        pairs = {"max_length": length // 2, "per_device_train_batch_size": 4, "gradient_checkpointing": True}
        yield Case("dpo", tuning, "auto", pairs)
    sampled = {"num_generations": 8, "per_device_train_batch_size": 32, "max_completion_length": length // 16}
    yield Case("grpo", "lora", "auto", sampled | {"gradient_checkpointing": True})


def measure(case: Case, model: Path, folder: Path) -> dict[str, Any]:
    """Run one stage, and return the means of its steps after the warm-up; `failed` and the error if it fails."""
    row_type = {"sft": "messages", "dpo": "preference", "grpo": "prompt"}[case.method]
    output = folder / "stage"
    args = case.args | {"max_steps": STEPS, "learning_rate": 1e-5, "save_strategy": "no"}
    stage = {"method": case.method, "from": "base", "dataset": "rows", "tuning": case.tuning, "args": args}
    stage |= {"attention": case.attention, "rewards": {"answer": False, "max_characters": 100}}
    command = [
        *(sys.executable, "-m", f"scripts.train.train_{case.method}", "--name", "bench", "--config", json.dumps(stage)),
        *("--seed", 0, "--dtype", "bfloat16", "--cpus", os.cpu_count(), "--parent", model),
        *("--train", folder / f"{row_type}.parquet", "--validation", folder / f"no_{row_type}.parquet"),
        *("--steps", output / "steps.parquet", "--tensorboard", output / "tensorboard"),
        *("--checkpoints", output / "checkpoints", "--proof", output / "proof.json"),
        *("--manifest", output / "manifest.json"),
    ]
    ended = subprocess.run(list(map(str, command)), cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if ended.returncode:
        return {"failed": (ended.stderr.strip().splitlines() or ["no message"])[-1]}
    steps = [row for row in pq.read_table(output / "steps.parquet").to_pylist() if row["loss"] is not None][WARM_UP:]
    seconds = sum(row["seconds"] for row in steps)
    mfu = sum((row.get("mfu") or 0) * row["seconds"] for row in steps) / seconds
    sampled = sum(row.get("completions/mean_length") or 0 for row in steps) * case.args["per_device_train_batch_size"]
    return {
        "sampled_tokens_per_second": round(sampled / seconds) or None,
        "tokens_per_second": round(sum(row["tokens"] for row in steps) / seconds),
        "mfu": round(mfu, 3) or None,
        "peak_memory_gb": round(max(row["memory_gb"] for row in steps), 1),
        "seconds_per_step": round(seconds / len(steps), 2),
    }


def make_model(folder: Path, layers: int) -> Path:
    """Create a Qwen3-4B with random weights and a byte tokenizer, as a base model. Returns its manifest."""
    manifest = folder / f"base-{layers}" / "manifest.json"
    if manifest.is_file():
        return manifest
    tiny = {"source": {"kind": "random"}, "dtype": "bfloat16"}
    download(tiny, folder, folder / "tiny" / "manifest.json")
    weights = folder / f"weights-{layers}"
    config = Qwen3Config(
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151_936,
        tie_word_embeddings=True,
        max_position_embeddings=32_768,
    )
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(weights)
    AutoTokenizer.from_pretrained(find_model(folder / "tiny" / "manifest.json")).save_pretrained(weights)
    download({"source": {"kind": "file", "path": str(weights)}, "dtype": "bfloat16"}, folder, manifest)
    return manifest


def download(model: dict[str, Any], folder: Path, manifest: Path) -> None:
    """Prepare a base model as the pipeline does."""
    command = [sys.executable, "-m", "scripts.data.download_model", "--config", json.dumps(model)]
    subprocess.run([*command, "--cache", str(folder), "--output", str(manifest)], cwd=REPOSITORY, check=True)


def make_rows(folder: Path, length: int) -> None:
    """Generate rows of letters, one token each. Their lengths vary around an eighth of `length`."""
    rng = np.random.default_rng(0)

    def turn(role: str) -> list[dict[str, str]]:
        size = min(int(rng.lognormal(np.log(length / 8), 0.7)) + 1, length // 3)
        return [{"role": role, "content": "".join(rng.choice(list("abcdefgh "), size))}]

    for row_type, sides in (("messages", ()), ("preference", ("chosen", "rejected")), ("prompt", ())):
        rows: list[dict[str, Any]] = []
        for number in range(ROWS):
            row: dict[str, Any] = {"source_index": number}
            if row_type == "messages":
                row["messages"] = turn("user") + turn("assistant")
            else:
                row |= {"prompt": turn("user")} | {side: turn("assistant") for side in sides}
            rows.append(row)
        for name, given in ((row_type, rows), (f"no_{row_type}", [])):
            pq.write_table(pa.Table.from_pylist(given, schema=SCHEMAS[row_type]), folder / f"{name}.parquet")  # type: ignore[index]


if __name__ == "__main__":
    main()
