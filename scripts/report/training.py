"""What the report says of training: what each stage learnt, what it ran with, what it cost, and what it saw."""

from scripts.report.contents import Json, Tables, describe_memory
from scripts.report.markdown import Cells, Markdown, cut_middle, make_table
from scripts.report.words import DASH, Words, count, duration, gigabytes, loss, magnitude, percent

USAGE = (
    *("processes", "strategy", "attention", "effective_batch", "seconds_per_epoch", "trained_tokens"),
    *("mfu", "energy"),
)
"""Columns of the table of what stages ran with."""

FORECAST = ("steps", "trained_tokens", "trained_parameters", "memory", "time")
"""Columns of the table of what was planned."""


def stage_table(tables: Tables, words: Words) -> Markdown:
    """Table of what each stage trained on, how fast, and from which loss to which."""
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


def stage_row(stage: Json, log: list[Json], words: Words) -> Cells:
    """One line of the stage table."""
    facts = stage["facts"]
    losses = [row["loss"] for row in log if row.get("loss") is not None]
    return [
        stage["name"],
        stage["config"]["method"].upper(),
        count(facts.get("train_rows")),
        count(facts.get("steps")),
        count(facts.get("tokens_per_second")),
        count(facts.get("train_seconds")),
        loss(losses[0] if losses else None),
        loss(losses[-1] if losses else None),
        describe_memory([stage], words),
    ]


def usage_table(stages: list[Json], words: Words) -> Markdown:
    """Table of what each stage really ran with, and what it cost."""
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
    """Table of what each stage was planned to take against what it took: `planned / used`."""
    rows: list[Cells] = []
    for planned, stage in zip(tables.forecast, tables.stages, strict=True):
        facts = stage["facts"]
        memory = stage["peak_gpu_memory_bytes"] or stage["peak_memory_bytes"]
        bound = "≤ " if planned["work_is"] == "at most" else ""
        hours = planned["hours"]
        rows.append(
            [
                stage["name"],
                against(count(planned["steps"]), count(facts["steps"])),
                against(bound + count(planned["tokens"]), count(facts["tokens"])),
                against(magnitude(planned["parameters_trained"]), magnitude(facts["trainable_parameters"])),
                against(gigabytes(planned["memory_bytes"]), gigabytes(memory)),
                against(DASH if hours is None else bound + duration(3600 * hours), duration(facts["train_seconds"])),
            ]
        )
    header = [words(name) for name in ("stage_column", *FORECAST)]
    return make_table(header, rows, "lrrrrr", words("forecast_caption"))


def against(planned: str, used: str) -> Markdown:
    """`planned / used`; both are Markdown."""
    return Markdown(f"{planned} / {used}")


def proof_table(stages: list[Json], words: Words) -> Markdown:
    """Table of what the model sees in training: some templated rows of each stage, with the trained tokens marked."""
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


def training_notes(stages: list[Json], words: Words) -> list[Markdown]:
    """A sentence for each stage that went on from an earlier attempt, or whose schedule was cut to fit its time."""
    notes = []
    for stage in stages:
        facts = stage["facts"]
        if facts.get("resumed_from"):
            notes.append(words("training_resumed", stage=stage["name"], step=count(facts["resumed_from"])))
        budget = facts.get("budget") or {}
        if budget.get("cuts") or budget.get("stopped"):
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
