"""Records of a small run, as the other rooms write them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from scripts.common.config import ExpectedChange, RowType
from scripts.common.records import (
    Ability,
    BaseFacts,
    BaseManifest,
    BenchmarkOverlap,
    Comparison,
    DataCard,
    Funnel,
    FunnelStep,
    Item,
    Lengths,
    Manifest,
    OriginFacts,
    OtherMetric,
    Overlap,
    Registration,
    Score,
    SeedComparison,
    SourceFacts,
    StageConfig,
    StageFacts,
    StageForecast,
    StageManifest,
    Summary,
    TrainingStep,
    Verdict,
)
from scripts.report.contents import Tables
from scripts.train.meter import write_steps

Record = TypeVar("Record", bound=Mapping[str, object])
Facts = TypeVar("Facts")
SectionType = TypeVar("SectionType")

MODELS = ("base", "sft", "dpo")
VERSIONS = {"python": "3.11.7", "torch": "2.9.0", "transformers": "5.0.0", "trl": "1.0.0"}


def change(record: Record, **changes: Any) -> Record:
    """A copy of a record with some values changed."""
    assert changes.keys() <= record.keys()
    return cast(Record, {**record, **changes})


def make_manifest(
    artefact: str, name: str, config: SectionType, facts: Facts, minute: int = 0
) -> Manifest[SectionType, Facts]:
    """A manifest as `scripts.common.manifest.describe` returns it."""
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


def make_funnel(dataset: str = "sums", row_type: RowType = "messages") -> Funnel:
    """The funnel of 652 rows: 12 are too long, 3 are duplicates, and 37 are held out."""
    steps = [("read", 0), ("schema", 0), ("empty", 0), ("max_tokens", 12), ("duplicates", 3), ("benchmark_overlap", 0)]
    left = 652
    rows: list[FunnelStep] = []
    for step, removed in steps:
        left -= removed
        rows.append({"step": step, "removed": removed, "rows": left})
    return {
        "dataset": dataset,
        "row_type": row_type,
        "steps": rows,
        "splits": {"train": 600, "validation": 25, "test": 12},
    }


def make_summary(dataset: str = "sums", row_type: RowType = "messages") -> Summary:
    """The summary of the rows of `make_funnel`, as `scripts.data.row_summary` returns it. No benchmark overlaps."""
    return {
        "dataset": dataset,
        "read": 652,
        "tokens": {
            "edges": [20, 25, 30, 41],
            "splits": {
                "train": make_lengths(600, 16_440, [150, 350, 100]),
                "validation": make_lengths(25, 685, [10, 10, 5]),
                "test": make_lengths(12, 329, [4, 4, 4]),
            },
        },
        "languages": {"en": 610, "zh": 20, "de": 4, "fr": 3},
        "groups": {},
        "parts": {},
        "labels": {"true": 300, "false": 300} if row_type == "kto" else {},
        "problems": [],
        "benchmarks": [make_overlap("sums"), make_overlap("mmlu-dev", items=285)],
    }


def make_lengths(rows: int, total: int, counts: list[int]) -> Lengths:
    """Lengths of a split in which every row was counted."""
    return {
        "rows": rows,
        "counted": rows,
        "total": total,
        "mean": 27.4,
        "min": 20,
        "p5": 22,
        "median": 27,
        "p95": 33,
        "max": 40,
        "counts": counts,
    }


def make_overlap(benchmark: str, items: int = 200, hits: int = 0, removed: bool = True) -> BenchmarkOverlap:
    """Overlap with a benchmark: `hits` of its items are in two rows each."""
    examples: list[Overlap] = [
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


def make_card(dataset: str, origin: OriginFacts, row_type: RowType = "messages") -> DataCard:
    """The card of a data set, as `scripts.data.describe_dataset` writes it."""
    facts = cast(SourceFacts, {**origin, "rows": 652, "malformed": 0})
    return {
        "source": make_manifest("dataset", dataset, {}, facts),
        "funnel": make_funnel(dataset, row_type),
        "summary": make_summary(dataset, row_type),
        "columns": {"messages": "list<struct>", "answer": "string"},
        "examples": [],
    }


def make_base() -> BaseManifest:
    facts: BaseFacts = {
        "origin": "package tiny-model 1.0",
        "sha256": "ab" * 32,
        "note": "dequantised from GGUF: not the original weights",
        "parameters": 134_515_008,
    }
    return make_manifest("model", "base", {}, facts)


def make_stage(name: str, method: str, parent: str, dataset: str, **changes: Any) -> StageManifest:
    """A stage of 20 steps. `changes` apply to its facts."""
    config: StageConfig = {
        "method": method,
        "from": parent,
        "dataset": dataset,
        "tuning": "lora" if method == "dpo" else "full",
        "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": "all-linear"},
        "strategy": "ddp",
        "attention": "sdpa",
        "args": {},
        "seed": 42,
        "dtype": "float32",
    }
    facts: StageFacts = {
        "steps": 20,
        "epochs": 0.25,
        "train_rows": 600,
        "tokens": 16_000,
        "train_seconds": 120.4,
        "tokens_per_second": 132.9,
        "seconds_per_epoch": 60.2,
        "budget": {
            "seconds": 120.4,
            "attempts": 1,
            "planned": 20,
            "cuts": [],
            "stopped": False,
            "limit_seconds": None,
        },
        "resumed_from": 0,
        "parameters": 134_515_008,
        "trainable_parameters": 134_515_008,
        "processes": 1,
        "strategy": "ddp",
        "attention": "sdpa",
        "effective_batch": 8,
        "flops": None,
        "mfu": None,
        "energy_kwh": None,
        "peak_train_memory_gb": 1.4,
        "trained_token_share": 0.25,
        "cut_rows": 0,
        "proof": [{"row": row, "texts": [f"<|im_start|>user\nask {row}⟦yes<|im_end|>⟧"]} for row in range(3)],
        "weights_sha256": "ef" * 32,
        "reload_difference": 0.0,
    }
    return make_manifest("model", name, config, change(facts, **changes), minute=7)


def make_log(method: str) -> list[TrainingStep]:
    """Twenty steps, with validation after steps 10 and 20."""
    log: list[TrainingStep] = []
    for step in range(1, 21):
        row = {"step": step, "loss": 2.5 / step**0.5, "learning_rate": 1e-4}
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


def make_score(model: str, benchmark: str, metric: str, share: float, n: int = 200) -> Score:
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


def make_other(metric: str, score: float | None, low: float | None, high: float | None, is_share: bool) -> OtherMetric:
    """A further metric of 200 items."""
    return {
        "metric": metric,
        "filter": "none",
        "n": 200,
        "score": score,
        "ci_low": low,
        "ci_high": high,
        "is_share": is_share,
    }


def make_others(metric: str) -> list[OtherMetric]:
    """The further metrics of held-out preference pairs; none for any other data."""
    if metric != "preference_accuracy":
        return []
    return [
        make_other("preference_accuracy_by_mean", 0.6, 0.5, 0.7, is_share=True),
        make_other("margin", 12.5, -1.25, 26.0, is_share=False),
    ]


def make_forecast(name: str, hours: float | None) -> StageForecast:
    """The forecast of a stage. If the hours are known, its work is an upper bound."""
    return {
        "name": name,
        "work_is": "measured" if hours is None else "at most",
        "tokens": 12_345.6,
        "steps": 300,
        "epochs": 1.5,
        "trainable_parameters": 820_992,
        "flops": 1e12,
        "memory_bytes": 1.25e9,
        "memory_is": "expected",
        "hours": hours,
        "pace": "unknown",
    }


def make_abilities(models: Sequence[str] = MODELS) -> list[Ability]:
    """Means of two benchmarks, which increase from model to model."""
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


def make_items(model: str) -> list[Item]:
    """Five items. The base model answers none of them right, any other model all of them."""
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


def make_comparison(
    baseline: str, model: str, benchmark: str, scores: tuple[float, float], verdict: Verdict, **changes: Any
) -> Comparison:
    """A comparison on 200 items. `scores` are before and after."""
    before, after = scores
    row: Comparison = {
        "benchmark": benchmark,
        "metric": "exact_match",
        "baseline": baseline,
        "model": model,
        "n": 200,
        "baseline_score": before,
        "model_score": after,
        "difference": after - before,
        "origin": None,
        "ci_low": after - before - 0.05,
        "ci_high": after - before + 0.05,
        "smallest_difference": 0.071,
        "margin": None,
        "is_held": None,
        "p_margin": None,
        "p_beyond": None,
        "p_value": 0.2 if verdict == "no difference found" else 0.0001,
        "family": "all",
        "expected": None,
        "outcome": None,
        "p_adjusted": 0.4 if verdict == "no difference found" else 0.0006,
        "verdict": verdict,
    }
    return change(row, **changes)


def make_seed_comparison(**changes: Any) -> SeedComparison:
    """The comparison of a stage that improved over three seeds."""
    row: SeedComparison = {
        "benchmark": "sums",
        "metric": "acc",
        "baseline": "base",
        "stage": "sft",
        "pairs": [("base", "sft"), ("base", "sft_b"), ("base", "sft_c")],
        "n": 200,
        "seeds": 3,
        "differences": [0.2, 0.3, 0.25],
        "difference": 0.25,
        "seed_deviation": 0.05,
        "ci_low": 0.1,
        "ci_high": 0.4,
        "p_value": 0.004,
        "family": "all",
        "expected": None,
        "outcome": None,
        "p_adjusted": 0.004,
        "verdict": "improved",
    }
    return change(row, **changes)


def make_registration(*expectations: ExpectedChange, **changes: Any) -> Registration:
    """Expectations that were registered before training."""
    entry: Registration = {
        "created": "2026-11-28T09:30:00+00:00",
        "commit": "0123456789abcdef",
        "config_sha256": "12" * 32,
        "after_training": False,
        "expectations": list(expectations),
    }
    return change(entry, **changes)


def make_tables() -> Tables:
    """All tables of a run with two stages, two data sets and three benchmarks."""
    shares = {"base": (0.05, 0.31, 0.52), "sft": (0.345, 0.30, 0.53), "dpo": (0.365, 0.32, 0.71)}
    benchmarks = (("sums", "exact_match"), ("mmlu-dev", "acc"), ("pairs", "preference_accuracy"))
    none: Verdict = "no difference found"
    outcomes: dict[tuple[str, str], tuple[Verdict, Verdict, Verdict]] = {
        ("base", "sft"): ("improved", none, none),
        ("sft", "dpo"): (none, none, "improved"),
        ("base", "dpo"): ("improved", none, "improved"),
    }
    return Tables(
        cards=[
            make_card(
                "sums", {"origin": "package reasoning-gym, task chain_sum", "sha256": "cd" * 32, "licence": "MIT"}
            ),
            make_card("pairs", {"origin": "model sft on sums", "sha256": "ef" * 32}, "preference"),
        ],
        base=make_base(),
        stages=[make_stage("sft", "sft", "base", "sums"), make_stage("dpo", "dpo", "sft", "pairs")],
        forecast=[make_forecast("sft", hours=None), make_forecast("dpo", hours=0.25)],
        logs=[make_log("sft"), make_log("dpo")],
        scores=[
            make_score(model, name, metric, shares[model][place])
            for place, (name, metric) in enumerate(benchmarks)
            for model in MODELS
        ],
        comparisons=[
            make_comparison(
                baseline, model, name, (shares[baseline][place], shares[model][place]), outcomes[baseline, model][place]
            )
            for baseline, model in outcomes
            for place, (name, _) in enumerate(benchmarks)
        ],
        seed_comparisons=[],
        registered=[make_registration()],
        abilities=make_abilities(),
    )


def write_tables(folder: Path, tables: Tables, items: Mapping[str, Sequence[Item]]) -> dict[str, list[str]]:
    """Write tables to files, and return the options of write_report for them."""
    options: dict[str, list[str]] = {}
    lists: dict[str, Sequence[object]] = {"cards": tables.cards, "models": tables.models, "scores": tables.scores}
    for name, records in lists.items():
        paths = [folder / f"{name}-{place}.json" for place in range(len(records))]
        for path, record in zip(paths, records, strict=True):
            path.write_text(json.dumps(record), encoding="utf-8")
        options[f"--{name}"] = list(map(str, paths))
    logs = [folder / f"log-{place}.parquet" for place in range(len(tables.logs))]
    for path, log in zip(logs, tables.logs, strict=True):
        write_steps(path, list(map(dict, log)))
    item_paths = [folder / f"scores-{place}.items.jsonl" for place in range(len(tables.scores))]
    rows = {path: items[score["model"]] for path, score in zip(item_paths, tables.scores, strict=True)}
    for path, lines in rows.items():
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    single: dict[str, Sequence[object]] = {
        "comparison": tables.comparisons,
        "seed-comparison": tables.seed_comparisons,
        "expectations": tables.registered,
        "abilities": tables.abilities,
        "forecast": tables.forecast,
    }
    for option, records in single.items():
        (folder / f"{option}.json").write_text(json.dumps(records), encoding="utf-8")
        options[f"--{option}"] = [str(folder / f"{option}.json")]
    return options | {
        "--logs": list(map(str, logs)),
        "--items": list(map(str, item_paths)),
    }
