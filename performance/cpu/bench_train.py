"""Measure the speed of a training stage. `make bench-train` runs this.

SmolLM2-135M trains on the same 256 conversations for one epoch with a batch size of 8, with all weights and with LoRA:
by our stage, by a plain TRL script with TRL's defaults (bench_train_plain.py), and, if `--llamafactory` names its
command, by LLaMA-Factory with the most similar settings (activations are kept, rows are padded to the longest of their
batch). All three multiply matrices in bfloat16. Each measurement is a complete process, from its start to the saved
model. They run one after another, several times (`--rounds`). The conversations consist of words of the model's
vocabulary, with lengths like those of instruction data. Each trained model is scored by its loss on 64 held-out
conversations. The output has seconds of each process, trained samples per second, ratios and losses.

LLaMA-Factory needs a separate environment: `pip install llamafactory==0.9.5 torch==2.13.0`. It imports torchaudio,
which text models do not need; if there is no build for this torch, uninstall it and torchvision, and create an empty
`torchaudio.py` instead.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from performance.cpu.bench_data import draw, prepare_model, read_vocabulary
from scripts.common.files import write_json, write_json_lines
from scripts.common.manifest import find_model
from scripts.common.paths import REPOSITORY
from scripts.common.torch_setup import prepare_torch
from scripts.data.schemas import SCHEMAS

SAMPLES, HELD_OUT, BATCH = 256, 64, 8
LONGEST = 1024

SEED = 42
"""The default of TRL and LLaMA-Factory."""

LEARNING_RATE = {"full": 2e-5, "lora": 2e-4}
LORA = {"r": 16, "alpha": 32}

MEDIAN_WORDS, SPREAD = 30, 0.7
"""Words of an answer are log-normally distributed, with this median and this standard deviation of the logarithm."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="number of measurements of each")
    parser.add_argument("--folder", type=Path, default=Path("work/bench-train"), help="folder for all files")
    parser.add_argument("--llamafactory", help="path of `llamafactory-cli` in its environment")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    model = prepare_model(folder)
    rows = make_rows(model, folder)

    commands: dict[str, Any] = {"ours": our_command, "trl": trl_command}
    if options.llamafactory:
        commands["llamafactory"] = lambda *given: factory_command(options.llamafactory, *given)
    runs: dict[str, list[float]] = {}
    losses: dict[str, float] = {}
    for number in range(options.rounds):
        for tuning in ("full", "lora"):
            for name, command in commands.items():
                output = folder / f"{name}-{tuning}"
                shutil.rmtree(output, ignore_errors=True)
                output.mkdir()
                seconds = run_whole(command(model, rows, tuning, output), output / "log.txt")
                runs.setdefault(output.name, []).append(seconds)
                losses[output.name] = held_out_loss(model, output / "model", rows["held_out"])
                print(f"round {number}: {output.name} {seconds:.1f} s, loss {losses[output.name]:.4f}", flush=True)
    losses["base"] = held_out_loss(model, find_model(model), rows["held_out"])
    table = {
        name: {
            "seconds": [round(value, 1) for value in seconds],
            "samples_per_second": round(SAMPLES / statistics.median(seconds), 2),
            "ours_faster_by": round(
                statistics.median(seconds) / statistics.median(runs[f"ours-{name.split('-')[1]}"]), 2
            ),
            "held_out_loss": round(losses[name], 4),
        }
        for name, seconds in runs.items()
    } | {"base": {"held_out_loss": round(losses["base"], 4)}}
    write_json(folder / "figures.json", table)
    print(json.dumps(table, indent=2))


def run_whole(command: list[Any], log: Path) -> float:
    """Run a command, and return its seconds from start to end."""
    started = time.monotonic()
    given = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(os.cpu_count())}
    environment = os.environ | given
    with log.open("w") as output:
        ended = subprocess.run(
            list(map(str, command)),
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if ended.returncode:
        sys.exit(f"error: {log.parent.name} failed; see {log}")
    return time.monotonic() - started


# --- commands -----------------------------------------------------------------------------------


def our_command(model: Path, rows: dict[str, Path], tuning: str, output: Path) -> list[Any]:
    """A stage as the pipeline runs it, without padding and without activation checkpointing."""
    args = {
        "learning_rate": LEARNING_RATE[tuning],
        "num_train_epochs": 1,
        "per_device_train_batch_size": BATCH,
        "max_length": None,
        "padding_free": True,
        "bf16": True,
        "lr_scheduler_type": "linear",
    }
    stage = {"method": "sft", "from": "base", "dataset": "rows", "tuning": tuning, "lora": LORA, "args": args}
    return [
        *(sys.executable, "-m", "scripts.train.train_sft", "--name", "bench", "--config", json.dumps(stage)),
        *("--seed", SEED, "--dtype", "float32", "--cpus", os.cpu_count(), "--parent", model, "--train", rows["train"]),
        *("--validation", rows["nothing"], "--steps", output / "steps.parquet"),
        *("--tensorboard", output / "tensorboard", "--checkpoints", output / "checkpoints"),
        *("--proof", output / "proof.json", "--manifest", output / "manifest.json"),
    ]


def trl_command(model: Path, rows: dict[str, Path], tuning: str, output: Path) -> list[Any]:
    """A plain TRL script with TRL's defaults."""
    return [
        *(sys.executable, "-m", "performance.cpu.bench_train_plain", find_model(model), rows["json"], output / "model"),
        *(tuning, LEARNING_RATE[tuning], BATCH, LORA["r"], LORA["alpha"]),
    ]


def factory_command(program: str, model: Path, rows: dict[str, Path], tuning: str, output: Path) -> list[Any]:
    """LLaMA-Factory with the same batches, without its packing, which is slower on a CPU."""
    config = {
        "model_name_or_path": str(find_model(model)),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": tuning,
        "dataset": "rows",
        "dataset_dir": str(rows["json"].parent),
        "template": "chatml",
        "cutoff_len": LONGEST,
        "output_dir": str(output / "model"),
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "learning_rate": LEARNING_RATE[tuning],
        "num_train_epochs": 1,
        "lr_scheduler_type": "linear",
        "bf16": True,
        "use_cpu": True,
        "disable_gradient_checkpointing": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "overwrite_output_dir": True,
        "overwrite_cache": True,
    }
    if tuning == "lora":
        config |= {"lora_rank": LORA["r"], "lora_alpha": LORA["alpha"], "lora_target": "all"}
    path = output / "factory.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return [program, "train", path]


# --- rows and losses ----------------------------------------------------------------------------


def make_rows(model: Path, folder: Path) -> dict[str, Path]:
    """Generate training conversations, in the formats of all three programs, and held-out ones."""
    words = read_vocabulary(model)
    rng = np.random.default_rng(0)
    cumulative = np.cumsum(1 / np.arange(1, len(words) + 1))
    cumulative /= cumulative[-1]
    rows = []
    for number in range(SAMPLES + HELD_OUT):
        length = min(round(math.exp(rng.normal(math.log(MEDIAN_WORDS), SPREAD))), 700)
        question, answer = (" ".join(next(draw(words, cumulative, rng, 1, size))) for size in (length // 3 + 3, length))
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        rows.append({"source_index": number, "messages": turns, "answer": None})
    paths = {name: folder / f"{name}.parquet" for name in ("train", "held_out", "nothing")}
    parts = {"train": rows[:SAMPLES], "held_out": rows[SAMPLES:], "nothing": []}
    for name, path in paths.items():
        pq.write_table(pa.Table.from_pylist(parts[name], schema=SCHEMAS["messages"]), path)
    paths["json"] = folder / "rows.jsonl"
    write_json_lines(paths["json"], [{"messages": row["messages"]} for row in rows[:SAMPLES]])
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    about = {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    write_json(folder / "dataset_info.json", {"rows": about})
    return paths


def held_out_loss(base: Path, folder: Path, rows: Path) -> float:
    """Mean loss of a model over the assistant's tokens of held-out conversations, with the run's chat template."""
    prepare_torch(0, os.cpu_count() or 1)
    tokenizer = AutoTokenizer.from_pretrained(find_model(base))
    adapters = folder / "adapter_config.json"
    model = AutoModelForCausalLM.from_pretrained(find_model(base) if adapters.is_file() else folder, dtype="float32")
    if adapters.is_file():
        model.load_adapter(str(folder))
    model.eval()
    total = count = 0.0
    for row in pq.read_table(rows).to_pylist():
        encoded = tokenizer.apply_chat_template(
            row["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
        )
        ids, mask = encoded["input_ids"], torch.as_tensor(encoded["assistant_masks"]).view(1, -1).bool()
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")[mask[0, 1:]]
        total, count = total + float(losses.sum()), count + losses.numel()
    return total / count


if __name__ == "__main__":
    main()
