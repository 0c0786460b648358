"""The tables of a small run, as the other rooms write them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.train.measure import write_steps

Json = dict[str, Any]

MODELS = ("base", "sft", "dpo")
VERSIONS = {"python": "3.11.7", "torch": "2.9.0", "transformers": "5.0.0", "trl": "1.0.0"}


def make_manifest(artefact: str, name: str, config: Json, facts: Json, minute: int = 0) -> Json:
    """A manifest as `scripts.common.manifest.describe` gives it."""
    return {
        "artefact": artefact,
        "name": name,
        "config": config,
        "inputs": {},
        "facts": facts,
        "versions": VERSIONS,
        "git_commit": "0123456789abcdef0123456789abcdef01234567+",
        "device": "CPU (x86_64)",
        "seconds": 65.0,
        "peak_memory_bytes": 1_400_000_000,
        "peak_gpu_memory_bytes": None,
        "created": f"2026-01-02T03:{minute:02}:05+00:00",
    }


def make_funnel(dataset: str = "sums", form: str = "messages") -> Json:
    """652 rows, of which 12 are too long, 3 are duplicates and 37 are held out."""
    steps = [("read", 0), ("schema", 0), ("empty", 0), ("max_tokens", 12), ("duplicates", 3), ("benchmark_overlap", 0)]
    left, rows = 652, []
    for step, removed in steps:
        left -= removed
        rows.append({"step": step, "removed": removed, "rows": left})
    return {"dataset": dataset, "form": form, "steps": rows, "splits": {"train": 600, "validation": 25, "test": 12}}


def make_summary(dataset: str = "sums", form: str = "messages") -> Json:
    """What `scripts.data.summarise_rows` says of the rows of `make_funnel`; no benchmark was found in them."""
    lengths = {"mean": 27.4, "min": 20, "p5": 22, "median": 27, "p95": 33, "max": 40}
    return {
        "dataset": dataset,
        "read": 652,
        "tokens": {
            "edges": [20, 25, 30, 41],
            "splits": {
                "train": {"rows": 600, "counted": 600, "total": 16_440, **lengths, "counts": [150, 350, 100]},
                "validation": {"rows": 25, "counted": 25, "total": 685, **lengths, "counts": [10, 10, 5]},
                "test": {"rows": 12, "counted": 12, "total": 329, **lengths, "counts": [4, 4, 4]},
            },
        },
        "languages": {"en": 610, "zh": 20, "de": 4, "fr": 3},
        "groups": {},
        "parts": {},
        "labels": {"true": 300, "false": 300} if form == "kto" else {},
        "problems": [],
        "benchmarks": [make_overlap("sums"), make_overlap("mmlu-dev", items=285)],
    }


def make_overlap(benchmark: str, items: int = 200, hits: int = 0, removed: bool = True) -> Json:
    """What of a benchmark stands in the rows that were read: `hits` of its items, each in two rows."""
    examples = [
        {
            "item": hit,
            "share": 1 - 0.1 * hit,
            "span": f"janet has {hit} ducks",
            "source_index": 2 * hit,
            "removed": removed,
        }
        for hit in range(hits)
    ]
    return {
        "benchmark": benchmark,
        "items": items,
        "items_hit": hits,
        "rows_hit": 2 * hits,
        "share": 2 * hits / 652,
        "removed": removed and hits > 0,
        "examples": examples[:5],
    }


def make_card(dataset: str, facts: Json, form: str = "messages") -> Json:
    """The card of a data set, as `scripts.data.describe_dataset` writes it."""
    return {
        "source": make_manifest("dataset", dataset, {}, facts),
        "funnel": make_funnel(dataset, form),
        "summary": make_summary(dataset, form),
    }


def make_base() -> Json:
    facts = {
        "origin": "package tiny-model 1.0",
        "sha256": "ab" * 32,
        "note": "dequantised from GGUF: not the original weights",
        "parameters": 134_515_008,
    }
    return make_manifest("model", "base", {}, facts)


def make_stage(name: str, method: str, parent: str, dataset: str) -> Json:
    config = {
        "method": method,
        "from": parent,
        "dataset": dataset,
        "tuning": "lora" if method == "dpo" else "full",
        "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": "all-linear"},
        "args": {},
        "seed": 42,
    }
    facts = {
        "steps": 20,
        "train_rows": 600,
        "tokens": 16_000,
        "train_seconds": 120.4,
        "tokens_per_second": 132.9,
        "resumed_from": 0,
        "parameters": 134_515_008,
        "trainable_parameters": 134_515_008,
        "processes": 1,
        "strategy": "ddp",
        "attention": "sdpa",
        "effective_batch": 8,
        "seconds_per_epoch": 60.2,
        "mfu": None,
        "energy_kwh": None,
        "trained_token_share": 0.25,
        "proof": [{"row": row, "texts": [f"<|im_start|>user\nask {row}⟦yes<|im_end|>⟧"]} for row in range(3)],
    }
    return make_manifest("model", name, config, facts, minute=7)


def make_log(method: str) -> list[Json]:
    """Twenty steps with a validation in the middle and at the end."""
    log: list[Json] = []
    for step in range(1, 21):
        row: Json = {"step": step, "loss": 2.5 / step**0.5, "learning_rate": 1e-4}
        if method == "sft":
            row["mean_token_accuracy"] = 0.5 + 0.02 * step
        else:
            row |= {
                "loss": 0.693 - 0.01 * step,
                "rewards/accuracies": 0.5 + 0.015 * step,
                "rewards/margins": 0.03 * step,
            }
        log.append(row)
        if step % 10 == 0:
            log.append({"step": step} | {f"eval_{key}": value * 1.05 for key, value in row.items() if key[0] in "lmr"})
    return log


def make_score(model: str, benchmark: str, metric: str, share: float, n: int = 200) -> Json:
    return {
        "benchmark": benchmark,
        "model": model,
        "task": f"{benchmark}_task",
        "metric": metric,
        "n": n,
        "score": share,
        "ci_low": max(0.0, share - 0.06),
        "ci_high": min(1.0, share + 0.07),
        "others": make_others(metric),
        "protocol": {"shots": 5, "limit": None, "max_new_tokens": 32, "chat_template": True, "filter": "last-number"},
        "provenance": make_manifest("scores", f"{model} on {benchmark}", {}, {}, minute=9),
    }


def make_others(metric: str) -> list[Json]:
    """What a held-out preference data set is scored by beside its accuracy; nothing for all else."""
    if metric != "preference_accuracy":
        return []
    share = {"metric": "preference_accuracy_by_mean", "filter": "none", "n": 200, "is_share": True}
    number = {"metric": "margin", "filter": "none", "n": 200, "is_share": False}
    return [
        share | {"score": 0.6, "ci_low": 0.5, "ci_high": 0.7},
        number | {"score": 12.5, "ci_low": -1.25, "ci_high": 26.0},
    ]


def make_forecast(name: str, hours: float | None) -> Json:
    """What a stage was planned to take."""
    numbers = {"tokens": 12_345.6, "steps": 300, "epochs": 1.5, "parameters_trained": 820_992, "flops": 1e12}
    sure = {"work_is": "measured" if hours is None else "at most", "pace": "unknown"}
    return {"name": name, "memory_bytes": 1.25e9, "hours": hours} | numbers | sure


def make_abilities(models: Sequence[str] = MODELS) -> list[Json]:
    """The mean of two benchmarks, better from model to model."""
    grades = ("weak", "good", "strong")
    return [
        {
            "ability": "mathematics",
            "model": model,
            "benchmarks": ["sums", "mmlu-dev"],
            "n": 485,
            "score": 0.2 + 0.3 * place,
            "ci_low": 0.15 + 0.3 * place,
            "ci_high": 0.25 + 0.3 * place,
            "grade": grades[min(place, 2)],
        }
        for place, model in enumerate(models)
    ]


def make_items(model: str) -> list[Json]:
    """Five items; the base model has none of them right, every other has all."""
    right = model != "base"
    return [
        {
            "key": f"sums/{place}",
            "prompt": f"What is 4 + {place}?",
            "target": str(4 + place),
            "answer": f"4 + {place}\n= {4 + place}" if right else "I do not know",
            "score": float(right),
        }
        for place in range(5)
    ]


def make_comparison(baseline: str, model: str, benchmark: str, scores: tuple[float, float], verdict: str) -> Json:
    before, after = scores
    return {
        "benchmark": benchmark,
        "metric": "exact_match",
        "baseline": baseline,
        "model": model,
        "n": 200,
        "baseline_score": before,
        "model_score": after,
        "difference": after - before,
        "ci_low": after - before - 0.05,
        "ci_high": after - before + 0.05,
        "smallest_difference": 0.071,
        "margin": None,
        "is_held": None,
        "p_value": 0.2 if verdict == "no difference found" else 0.0001,
        "p_adjusted": 0.4 if verdict == "no difference found" else 0.0006,
        "verdict": verdict,
    }


def make_tables() -> Json:
    """All tables of a run of two stages, two data sets and three benchmarks, by the names of Tables' fields."""
    shares = {"base": (0.05, 0.31, 0.52), "sft": (0.345, 0.30, 0.53), "dpo": (0.365, 0.32, 0.71)}
    benchmarks = (("sums", "exact_match"), ("mmlu-dev", "acc"), ("pairs", "preference_accuracy"))
    none = "no difference found"
    outcomes = {
        ("base", "sft"): ("improved", none, none),
        ("sft", "dpo"): (none, none, "improved"),
        ("base", "dpo"): ("improved", none, "improved"),
    }
    return {
        "cards": [
            make_card(
                "sums", {"origin": "package reasoning-gym, task chain_sum", "sha256": "cd" * 32, "licence": "MIT"}
            ),
            make_card("pairs", {"origin": "model sft on sums", "sha256": "ef" * 32}, "preference"),
        ],
        "models": [make_base(), make_stage("sft", "sft", "base", "sums"), make_stage("dpo", "dpo", "sft", "pairs")],
        "forecast": [make_forecast("sft", hours=None), make_forecast("dpo", hours=0.25)],
        "logs": [make_log("sft"), make_log("dpo")],
        "scores": [
            make_score(model, name, metric, shares[model][place])
            for place, (name, metric) in enumerate(benchmarks)
            for model in MODELS
        ],
        "comparisons": [
            make_comparison(
                baseline, model, name, (shares[baseline][place], shares[model][place]), outcomes[baseline, model][place]
            )
            for baseline, model in outcomes
            for place, (name, _) in enumerate(benchmarks)
        ],
        "seed_comparisons": [],
        "abilities": make_abilities(),
    }


def write_tables(folder: Path, tables: Json, items: dict[str, list[Json]]) -> dict[str, list[str]]:
    """Write tables as files, and give the options of write_report that name them."""
    options: dict[str, list[str]] = {}
    for name in ("cards", "models", "scores"):
        paths = [folder / f"{name}-{place}.json" for place in range(len(tables[name]))]
        for path, table in zip(paths, tables[name], strict=True):
            path.write_text(json.dumps(table), encoding="utf-8")
        options[f"--{name}"] = list(map(str, paths))
    logs = [folder / f"log-{place}.parquet" for place in range(len(tables["logs"]))]
    for path, log in zip(logs, tables["logs"], strict=True):
        write_steps(path, log)
    item_paths = [folder / f"scores-{place}.items.jsonl" for place in range(len(tables["scores"]))]
    rows = {path: items[score["model"]] for path, score in zip(item_paths, tables["scores"], strict=True)}
    for path, lines in rows.items():
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    single = {"comparison": "comparisons", "seed-comparison": "seed_comparisons"}
    single |= {name: name for name in ("abilities", "forecast")}
    for option, name in single.items():
        (folder / f"{option}.json").write_text(json.dumps(tables[name]), encoding="utf-8")
        options[f"--{option}"] = [str(folder / f"{option}.json")]
    return options | {
        "--logs": list(map(str, logs)),
        "--items": list(map(str, item_paths)),
    }
