"""The plan for people: aligned text for a terminal, Markdown for the report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from scripts.report.markdown import escape, make_table

Json = dict[str, Any]

UNKNOWN = "?"
"""Stands for what nobody knows yet."""

MARKS = {"measured": "", "expected": "*", "at most": "≤", "unknown": ""}
"""How sure a number is."""

OVER_TIME = {"fit": ", will be cut", "refuse": ", will be refused", "end": " for its jobs"}
"""What becomes of what takes too long."""

WIDTH = 120
"""Characters of a line on the terminal."""

LEGEND = "? unknown, * expected by the configuration or estimated, ≤ at most; GB of one GPU, or of one process on CPUs"

SHARES = {"training_gpu_hours": "training", "evaluation_gpu_hours": "evaluation"}
"""What the GPU-hours are made of."""


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, and how its cell is made of an entry. Numbers stand right."""

    head: str
    cell: Callable[[Json], str]
    is_text: bool = False


def render_text(plan: Json) -> str:
    """The whole plan for a terminal of 120 columns."""
    return "\n".join(
        [
            *_wrap(_introduce(plan)),
            *(part for title, columns, entries in _tables(plan) for part in ("", title, _align(columns, entries))),
            "",
            LEGEND,
            *_wrap(_explain(plan)),
        ]
    )


def render_markdown(plan: Json) -> str:
    """The whole plan as Markdown, with a table of what the memory is held for."""
    tables = [*_tables(plan), *_memory_tables(plan)]
    return "\n".join(
        [
            f"# Plan of {escape(plan['run'])}",
            "",
            *(f"{escape(line)}\n" for line in _introduce(plan)),
            *(
                make_table(
                    [column.head for column in columns],
                    [[column.cell(entry) for column in columns] for entry in entries],
                    "".join("l" if column.is_text else "r" for column in columns),
                    title,
                )
                for title, columns, entries in tables
            ),
            escape(LEGEND),
            "",
            *(f"- {escape(line)}" for line in _explain(plan)),
            "",
        ]
    )


def _wrap(lines: list[str]) -> list[str]:
    return [part for line in lines for part in wrap(line, WIDTH, subsequent_indent="  ")]


def _introduce(plan: Json) -> list[str]:
    model, totals = plan["model"], plan["totals"]
    sizes = f"{magnitude(model['parameters'])} parameters (from {model['found_in']})"
    lines = [f"{plan['run']} on {plan['device']}; model of {sizes}"]
    if totals["gpu_hours"] is not None:
        shares = [f"{quantity(totals[key])} of {what}" for key, what in SHARES.items() if totals[key] is not None]
        known = [
            f"{quantity(totals['gpu_hours'])} GPU-hours ({', '.join(shares)})",
            *([f"{quantity(totals['energy_kwh'])} kWh"] if totals["energy_kwh"] is not None else []),
            *([f"{quantity(totals['money'])} {plan['currency']}"] if totals["money"] is not None else []),
        ]
        bound = "at most " if any(one["work_is"] == "at most" for one in plan["stages"] + plan["benchmarks"]) else ""
        lines.append(f"all whose hours are known, together: {bound}{', '.join(known)}")
    return lines


def _tables(plan: Json) -> list[tuple[str, list[Column], list[Json]]]:
    """Title, columns and entries of each table that has entries."""
    finished = [stage for stage in plan["stages"] if stage["used"]]
    scored = [one for one in plan["benchmarks"] if one["used_job_hours"] is not None]
    tables = [
        ("Stages", _stage_columns(plan), plan["stages"]),
        (_benchmark_title(plan), _benchmark_columns(plan), plan["benchmarks"]),
        ("Planned against used", _used_columns(), finished),
        ("Planned against used: hours of a benchmark's job", _used_hours_columns(), scored),
    ]
    return [table for table in tables if table[2]]


def _stage_columns(plan: Json) -> list[Column]:
    return [
        Column("stage", lambda s: s["name"], True),
        Column("rows", lambda s: mark(s["rows_are"], whole(s["rows"]))),
        Column("tokens", lambda s: mark(s["work_is"], magnitude(s["tokens"]))),
        Column("steps", lambda s: mark(s["steps_are"], whole(s["steps"]))),
        Column("epochs", lambda s: quantity(s["epochs"])),
        Column("trained", lambda s: magnitude(s["parameters_trained"])),
        Column("GB", lambda s: gigabytes(s["memory_bytes"])),
        Column("of", lambda s: gigabytes(s["memory_limit_bytes"])),
        Column("FLOPs", lambda s: operations(s["flops"])),
        Column("hours", lambda s: mark(s["work_is"], quantity(s["hours"]))),
        Column("of", lambda s: quantity(s["hours_limit"])),
        *_cost_columns(plan, plan["stages"]),
        Column("verdict", lambda s: describe_verdict(s["verdict"]), True),
    ]


def _cost_columns(plan: Json, entries: Sequence[Json]) -> list[Column]:
    """GPU-hours, energy and money, each where something is known of it."""
    heads = {"gpu_hours": "GPU-h", "energy_kwh": "kWh", "money": plan["currency"]}
    return [
        Column(head, lambda entry, key=key: quantity(entry[key]))  # type: ignore[misc]
        for key, head in heads.items()
        if any(entry[key] is not None for entry in entries)
    ]


def _benchmark_title(plan: Json) -> str:
    models = plan["benchmarks"][0]["models"] if plan["benchmarks"] else 0
    costs = _cost_columns(plan, plan["benchmarks"])
    told = f"; {', '.join(column.head for column in costs)} of all of them together" if costs else ""
    return f"Benchmarks: one job each for each of {models} models{told}"


def _benchmark_columns(plan: Json) -> list[Column]:
    return [
        Column("benchmark", lambda b: b["name"], True),
        Column("items", lambda b: mark(b["rows_are"], whole(b["rows"]))),
        Column("read", lambda b: mark("expected", magnitude(b["read_tokens"]))),
        Column("written", lambda b: mark("at most", magnitude(b["generated_tokens"])) if b["answers"] else "-"),
        Column("GB", lambda b: gigabytes(b["memory_bytes"])),
        Column("of", lambda b: gigabytes(b["memory_limit_bytes"])),
        Column("FLOPs", lambda b: operations(b["flops"])),
        Column("hours", lambda b: mark(b["work_is"], quantity(b["job_hours"]))),
        Column("of", lambda b: quantity(b["hours_limit"])),
        *_cost_columns(plan, plan["benchmarks"]),
        Column("verdict", lambda b: describe_verdict(b["verdict"]), True),
    ]


def _used_columns() -> list[Column]:
    def pair(key: str, show: Callable[[Any], str]) -> Callable[[Json], str]:
        return lambda stage: f"{show(stage[key])} / {show(stage['used'][key])}"

    return [
        Column("stage", lambda s: s["name"], True),
        Column("steps", pair("steps", whole)),
        Column("epochs", pair("epochs", quantity)),
        Column("tokens", pair("tokens", magnitude)),
        Column("trained", pair("parameters_trained", magnitude)),
        Column("hours", pair("hours", quantity)),
        Column("GB", pair("memory_bytes", gigabytes)),
        Column("kWh", pair("energy_kwh", quantity)),
    ]


def _used_hours_columns() -> list[Column]:
    return [
        Column("benchmark", lambda b: b["name"], True),
        Column("planned", lambda b: quantity(b["estimated_job_hours"])),
        Column("used", lambda b: quantity(b["used_job_hours"])),
    ]


def _memory_tables(plan: Json) -> list[tuple[str, list[Column], list[Json]]]:
    """What the memory of each stage and of each benchmark is held for."""
    tables = []
    for what in ("stage", "benchmark"):
        entries = [entry for entry in plan[f"{what}s"] if entry["memory"]]
        held = entries[0]["memory"] if entries else {}
        parts = [Column(part, lambda e, part=part: gigabytes(e["memory"][part])) for part in held]  # type: ignore[misc]
        title = f"Memory of one GPU or process of each {what}, in GB"
        tables.append((title, [Column(what, lambda e: e["name"], True), *parts], entries))
    return [table for table in tables if table[2]]


def _explain(plan: Json) -> list[str]:
    """Where the numbers of each stage come from, and the hours of the benchmarks, and what would make them known."""
    lines = []
    for stage in plan["stages"]:
        said = [f"rows {stage['rows_are']}", f"tokens {stage['tokens_are']}", f"pace {stage['pace']}"]
        if not {stage["rows_are"], stage["tokens_are"]} <= {"measured", "expected"}:
            said.append("`snakemake data` measures rows and tokens, the data set's `expected` tells them")
        lines.append(f"{stage['name']}: {'; '.join(said)}")
    sources: dict[str, list[str]] = {}
    for benchmark in plan["benchmarks"]:
        sources.setdefault(benchmark["hours_are"], []).append(benchmark["name"])
    return lines + [f"hours of {', '.join(names)}: {source}" for source, names in sources.items()]


def describe_verdict(verdict: Json) -> str:
    """The verdict in words."""
    said = []
    if verdict["fits_memory"] is False:
        said.append("TOO LARGE")
    if verdict["fits_time"] is False:
        said.append(f"TOO LONG{OVER_TIME[verdict['over_time']]}")
    unknown = [what for what in ("memory", "time") if verdict[f"fits_{what}"] is None]
    if said:
        return "; ".join(said)
    return f"{' and '.join(unknown)} unknown" if unknown else "fits"


def _align(columns: Sequence[Column], entries: Sequence[Json]) -> str:
    """A table as text: words to the left, numbers to the right."""
    lines = [[column.head for column in columns], *([column.cell(entry) for column in columns] for entry in entries)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column.is_text else cell.rjust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )


def mark(how_sure: str, number: str) -> str:
    """A number with the mark of how sure it is."""
    return number if number == UNKNOWN else MARKS[how_sure] + number


def whole(number: float | None) -> str:
    """A whole number with commas at the thousands."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def quantity(number: float | None) -> str:
    """Three digits that matter, or all before the point."""
    if number is None:
        return UNKNOWN
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def magnitude(number: float | None) -> str:
    """`134.5M`, `4.0B`, and small numbers as they are."""
    if number is None:
        return UNKNOWN
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return whole(number)


def operations(number: float | None) -> str:
    """`1.2e18`."""
    return UNKNOWN if number is None else f"{number:.1e}".replace("e+", "e")


def gigabytes(size: float | None) -> str:
    """Bytes in GB (10⁹ bytes), without the unit."""
    return UNKNOWN if size is None else f"{size / 1e9:.1f}"
