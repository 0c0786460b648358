"""Parts of the report on training: each number is in its place."""

from dataclasses import replace
from typing import Any

from scripts.common.records import BudgetFacts, StageManifest, TrainingStep
from scripts.report.training import forecast_table, proof_table, stage_table, training_notes, usage_table
from scripts.report.words import Words
from tests.report.conftest import plain, table_rows
from tests.report.tables import change, make_stage, make_tables

USED = {
    "processes": 4,
    "strategy": "fsdp2",
    "attention": "flash_attention_2",
    "effective_batch": 64,
    "seconds_per_epoch": 1200.4,
    "tokens": 3_456_789,
    "mfu": 0.4321,
    "energy_kwh": 1.256,
}
"""Settings and cost of a stage on four GPUs."""


def _stage(**facts: Any) -> StageManifest:
    return make_stage("sft", "sft", "base", "sums", **facts)


def test_settings_and_cost(words: Words) -> None:
    table = usage_table([_stage(**USED), _stage()], words)
    header = "| Stage | Processes | Strategy | Attention | Effective batch | Seconds per epoch | Tokens | MFU (%) "
    assert plain(table).splitlines()[0] == header + "| Energy (kWh) |"
    assert table_rows(table) == [
        "| sft | 4 | fsdp2 | flash_attention_2 | 64 | 1,200 | 3,456,789 | 43.2 | 1.26 |",
        "| sft | 1 | ddp | sdpa | 8 | 60 | 16,000 | – | – |",
    ]


def test_first_and_last_loss_come_from_the_log(words: Words) -> None:
    """The last loss, not the lowest. Rows of validation have no loss."""
    log: list[TrainingStep] = [
        {"step": 0, "eval_loss": 9.0},
        {"step": 1, "loss": 3.25},
        {"step": 2, "loss": 1.5},
        {"step": 3, "loss": 1.75},
        {"step": 3, "loss": None, "eval_loss": 0.5},
    ]
    stage = _stage(train_rows=1200, steps=75, tokens_per_second=987.6, train_seconds=130.2)
    assert table_rows(stage_table(replace(make_tables(), stages=[stage], logs=[log]), words)) == [
        "| sft | SFT | 1,200 | 75 | 988 | 130 | 3.250 | 1.750 | 1.4 GB |"
    ]


def test_forecast_and_use_are_side_by_side(words: Words) -> None:
    tables = make_tables()
    tables.forecast[1] |= {
        "work_is": "at most",
        "hours": 1.5,
        "memory_bytes": 12.5e9,
        "trainable_parameters": 2_500_000,
    }
    facts = {"steps": 250, "tokens": 9_876, "trainable_parameters": 2_400_000, "train_seconds": 4500.0}
    dpo = make_stage("dpo", "dpo", "sft", "pairs", **facts)
    tables.stages[1] = change(dpo, peak_memory_bytes=3 * 10**9, peak_gpu_memory_bytes=10_250_000_000)
    assert table_rows(forecast_table(tables, words)) == [
        "| sft | 300 / 20 | 12,346 / 16,000 | 821.0 K / 134.5 M | 1.2 GB / 1.4 GB | – / 2 min 0 s |",
        "| dpo | 300 / 250 | ≤ 12,346 / 9,876 | 2.5 M / 2.4 M | 12.5 GB / 10.2 GB | ≤ 1 h 30 min / 1 h 15 min |",
    ]
    tables.forecast[0]["memory_is"] = "at most"
    assert "| 300 / 20 | 12,346 / 16,000 | 821.0 K / 134.5 M | ≤ 1.2 GB / 1.4 GB | – " in plain(
        forecast_table(tables, words)
    )


def test_templated_rows(words: Words) -> None:
    proof = [{"row": 3, "texts": ["x⟦good⟧", "x⟦bad⟧"]}, {"row": 7, "texts": ["y⟦fine⟧"]}]
    stages = [_stage(proof=proof, trained_token_share=0.125), _stage(proof=[], trained_token_share=None)]
    assert table_rows(proof_table(stages, words)) == [
        "| sft | 3, chosen | x⟦good⟧ |",
        "| sft | 3, rejected | x⟦bad⟧ |",
        "| sft | 7 | y⟦fine⟧ |",
        "| sft | trained tokens (%) | 12.5 |",
        "| sft | trained tokens (%) | – |",
    ]


BUDGET: BudgetFacts = {
    "planned": 4_000,
    "limit_seconds": 7_200.0,
    "seconds": 7_080.0,
    "attempts": 3,
    "cuts": [[100, 1500]],
    "stopped": False,
}


def test_note_on_a_cut_schedule(words: Words) -> None:
    (note,) = training_notes([_stage(steps=1_500, budget=BUDGET)], words)
    assert plain(note) == (
        "Stage sft was planned with 4,000 steps, which do not fit its time limit of 2 h 0 min. Its schedule was "
        "shortened, and it completed the schedule of the learning rate at step 1,500, after 1 h 58 min in 3 attempt(s)."
    )


def test_note_on_a_stopped_schedule(words: Words) -> None:
    for cuts in ([], [[100, 1500]]):
        (note,) = training_notes([_stage(steps=1_400, budget=change(BUDGET, stopped=True, cuts=cuts))], words)
        expected = "reached its time limit of 2 h 0 min before the end of its schedule. It stopped at step 1,400"
        assert expected in plain(note)
        assert "before the learning rate reached its final value" in plain(note)


def test_notes_only_on_changed_schedules_and_resumed_stages(words: Words) -> None:
    assert training_notes([_stage(), _stage(budget=change(BUDGET, cuts=[]))], words) == []
    (note,) = training_notes([_stage(resumed_from=1_250), _stage()], words)
    assert "Stage sft resumed from step 1,250 of an earlier attempt" in plain(note)
