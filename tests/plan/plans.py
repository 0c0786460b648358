"""A hand-made plan, with a different number in each column."""

from typing import Any

from scripts.common.records import BenchmarkPlan, Fit, RunPlan, StagePlan

FITS: Fit = {"fits_memory": True, "fits_time": True, "over_time": "fit"}


def make_stage_plan(name: str, **changes: Any) -> StagePlan:
    """A stage of a plan, with a different number in each column."""
    stage: StagePlan = {
        "name": name,
        "method": "sft",
        "tuning": "full",
        "rows": 12_345,
        "rows_are": "expected",
        "tokens": 6.78e6,
        "tokens_are": "at most",
        "work_is": "at most",
        "steps": 771,
        "steps_are": "expected",
        "epochs": 2.0,
        "trainable_parameters": 4_022_000_000,
        "effective_batch": 32,
        "flops": 1.6e17,
        "memory": {"weights": 8.1e9, "gradients": 16.2e9},
        "memory_bytes": 24.3e9,
        "memory_is": "at most",
        "memory_limit_bytes": 80e9,
        "hours": 3.25,
        "hours_limit": 24.0,
        "pace": "MFU 30%: assumed",
        "gpu_hours": 13.0,
        "energy_kwh": 9.1,
        "money": 32.5,
        "verdict": FITS,
        "used": None,
    }
    return {**stage, **changes}  # type: ignore[typeddict-item]


def make_benchmark_plan(name: str, **changes: Any) -> BenchmarkPlan:
    """A benchmark of a plan, with a different number in each column."""
    benchmark: BenchmarkPlan = {
        "name": name,
        "rows": 1_319,
        "rows_are": "expected",
        "models": 3,
        "read_tokens": 1_230_000,
        "answers": True,
        "generated_tokens": 337_664,
        "flops": 1.3e16,
        "memory": {"weights": 8.1e9, "logits": 1.9e9},
        "memory_bytes": 10.0e9,
        "memory_limit_bytes": 80e9,
        "job_hours": 0.52,
        "hours": 1.56,
        "hours_are": "assumed: MFU 15%",
        "hours_limit": 12.0,
        "work_is": "at most",
        "gpu_hours": 1.56,
        "energy_kwh": 1.09,
        "money": 3.9,
        "verdict": {**FITS, "over_time": "end"},
        "estimated_job_hours": 0.52,
        "used_job_hours": None,
    }
    return {**benchmark, **changes}  # type: ignore[typeddict-item]


def make_run_plan(**changes: Any) -> RunPlan:
    """A plan with a finished stage, one that does not fit, and two benchmarks, of which one is scored."""
    dpo = make_stage_plan(
        "dpo",
        rows=None,
        rows_are="unknown",
        tokens=None,
        tokens_are="unknown",
        work_is="unknown",
        steps=None,
        steps_are="unknown",
        epochs=None,
        trainable_parameters=132_100_000,
        flops=None,
        memory_bytes=91.5e9,
        memory_is="expected",
        memory={"weights": 8.1e9, "gradients": 83.4e9},
        hours=None,
        hours_limit=8.0,
        pace="unknown: no rows",
        gpu_hours=None,
        energy_kwh=None,
        money=None,
        verdict={"fits_memory": False, "fits_time": None, "over_time": "fit"},
    )
    sft = make_stage_plan(
        "sft",
        used={
            "steps": 768,
            "epochs": 1.99,
            "tokens": 6_540_000,
            "flops": 1.5e17,
            "hours": 3.5,
            "memory_bytes": 25_100_000_000,
            "energy_kwh": 9.4,
            "trainable_parameters": 4_021_000_000,
            "device": "4 x H100",
        },
    )
    mmlu = make_benchmark_plan(
        "mmlu",
        rows=14_042,
        rows_are="measured",
        read_tokens=9_876_543,
        answers=False,
        generated_tokens=None,
        flops=7.9e16,
        job_hours=0.31,
        hours=0.93,
        hours_are="measured on 2 of 3 models",
        work_is="measured",
        gpu_hours=0.93,
        energy_kwh=0.65,
        money=2.33,
        estimated_job_hours=0.4,
        used_job_hours=0.31,
    )
    plan: RunPlan = {
        "run": "mine",
        "device": "4 x H100",
        "model": {"parameters": 4_022_000_000, "found_in": "shapes.yaml"},
        "currency": "EUR",
        "stages": [sft, dpo],
        "benchmarks": [make_benchmark_plan("gsm8k"), mmlu],
        "expectations": [
            {
                "model": "sft",
                "baseline": "base",
                "benchmark": "gsm8k",
                "expected": "improves",
                "margin": None,
                "n": 1_319,
                "n_is": "expected",
                "detectable": 0.043,
                "smallest": 0.0053,
                "is_enough": True,
            },
            {
                "model": "dpo",
                "baseline": "sft",
                "benchmark": "mmlu",
                "expected": "holds",
                "margin": 0.02,
                "n": 14_042,
                "n_is": "measured",
                "detectable": 0.0112,
                "smallest": None,
                "is_enough": True,
            },
        ],
        "changed_share": 0.2,
        "totals": {
            "gpu_hours": 15.49,
            "energy_kwh": 10.84,
            "money": 38.73,
            "training_gpu_hours": 13.0,
            "evaluation_gpu_hours": 2.49,
        },
    }
    return {**plan, **changes}  # type: ignore[typeddict-item]
