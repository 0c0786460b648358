"""Parts of the report on training: losses, settings, cost, forecast and templated rows of each stage."""

from scripts.common.formats import DASH, count, duration, gigabytes, loss, magnitude, percent
from scripts.common.markdown import Cells, Markdown, cut_middle, make_table
from scripts.common.records import StageManifest, TrainingStep
from scripts.report.contents import Tables, describe_memory
from scripts.report.words import Words

USAGE = (
    *("processes", "strategy", "attention", "effective_batch", "seconds_per_epoch", "trained_tokens"),
    *("mfu", "energy"),
)
"""Columns of the table of settings and cost."""

FORECAST = ("steps", "trained_tokens", "trained_parameters", "memory", "time")
"""Columns of the table of the forecast."""


def stage_table(tables: Tables, words: Words) -> Markdown:
    """Table of the rows, steps, speed, first and last loss, and memory of each stage."""
    rows = [stage_row(stage, log, words) for stage, log in zip(tables.stages, tables.logs, strict=True)]
    header = [
        words("stage_column"),
        words("method"),
        words("rows"),
        words("steps"),
        words("tokens_per_second"),
        words("seconds"),
        words("first_loss"),
        words("last_loss"),
        words("peak_memory"),
    ]
    return make_table(header, rows, "llrrrrrrr", words("stages_caption"))


def stage_row(stage: StageManifest, log: list[TrainingStep], words: Words) -> Cells:
    """One row of this table."""
    facts = stage["facts"]
    losses = [value for row in log if (value := row.get("loss")) is not None]
    return [
        stage["name"],
        stage["config"]["method"].upper(),
        count(facts["train_rows"]),
        count(facts["steps"]),
        count(facts["tokens_per_second"]),
        count(facts["train_seconds"]),
        loss(losses[0] if losses else None),
        loss(losses[-1] if losses else None),
        describe_memory([stage], words),
    ]


def usage_table(stages: list[StageManifest], words: Words) -> Markdown:
    """Table of the settings that each stage used, and of its cost."""
    rows: list[Cells] = []
    for stage in stages:
        facts = stage["facts"]
        mfu, energy = facts["mfu"], facts["energy_kwh"]
        rows.append(
            [
                stage["name"],
                count(facts["processes"]),
                facts["strategy"],
                facts["attention"],
                count(facts["effective_batch"]),
                count(facts["seconds_per_epoch"]),
                count(facts["tokens"]),
                DASH if mfu is None else percent(mfu),
                DASH if energy is None else f"{energy:.2f}",
            ]
        )
    header = [words(name) for name in ("stage_column", *USAGE)]
    return make_table(header, rows, "lrllrrrrr", words("usage_caption"))


def forecast_table(tables: Tables, words: Words) -> Markdown:
    """Table of the forecast of each stage and of what it used: `planned / used`."""
    rows: list[Cells] = []
    for planned, stage in zip(tables.forecast, tables.stages, strict=True):
        facts = stage["facts"]
        memory = stage["peak_gpu_memory_bytes"] or stage["peak_memory_bytes"]
        bound = "≤ " if planned["work_is"] == "at most" else ""
        memory_bound = "≤ " if planned["memory_is"] == "at most" else ""
        hours = planned["hours"]
        rows.append(
            [
                stage["name"],
                against(count(planned["steps"]), count(facts["steps"])),
                against(bound + count(planned["tokens"]), count(facts["tokens"])),
                against(magnitude(planned["trainable_parameters"]), magnitude(facts["trainable_parameters"])),
                against(memory_bound + gigabytes(planned["memory_bytes"]), gigabytes(memory)),
                against(DASH if hours is None else bound + duration(3600 * hours), duration(facts["train_seconds"])),
            ]
        )
    header = [words(name) for name in ("stage_column", *FORECAST)]
    return make_table(header, rows, "lrrrrr", words("forecast_caption"))


def against(planned: str, used: str) -> Markdown:
    """`planned / used`."""
    return Markdown(f"{planned} / {used}")


def proof_table(stages: list[StageManifest], words: Words) -> Markdown:
    """Table of some templated rows of each stage, with the trained tokens marked."""
    rows: list[Cells] = []
    for stage in stages:
        share = stage["facts"]["trained_token_share"]
        for shown in stage["facts"]["proof"]:
            texts = shown["texts"]
            names = ("chosen", "rejected") if len(texts) > 1 else ("whole_row",)
            for name, text in zip(names, texts, strict=True):
                rows.append([stage["name"], words(name, row=shown["row"]), cut_middle(text)])
        rows.append([stage["name"], words("trained_share"), DASH if share is None else percent(share)])
    return make_table([words("stage_column"), words("row"), words("templated")], rows, "lrw", words("proof_caption"))


def training_notes(stages: list[StageManifest], words: Words) -> list[Markdown]:
    """Sentences on stages that resumed from an earlier attempt, or whose schedule was cut to fit their time limit."""
    notes = []
    for stage in stages:
        facts = stage["facts"]
        if facts["resumed_from"]:
            notes.append(words("training_resumed", stage=stage["name"], step=count(facts["resumed_from"])))
        budget = facts["budget"]
        if budget["cuts"] or budget["stopped"]:
            notes.append(
                words(
                    "training_stopped" if budget["stopped"] else "training_cut",
                    stage=stage["name"],
                    planned=count(budget["planned"]),
                    limit=duration(budget["limit_seconds"]),
                    steps=count(facts["steps"]),
                    seconds=duration(budget["seconds"]),
                    attempts=count(budget["attempts"]),
                )
            )
    return notes
