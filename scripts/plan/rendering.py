"""Render the plan as aligned text for a terminal, and as Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Generic, TypeVar

from scripts.common.config import ExpectedChange
from scripts.common.markdown import escape, make_table
from scripts.common.records import BenchmarkPlan, Certainty, Costs, ExpectationPlan, Fit, RunPlan, StagePlan, StageUse

UNKNOWN = "?"
"""Shown for unknown values."""

MARKS: dict[Certainty, str] = {"measured": "", "expected": "*", "at most": "≤", "unknown": ""}
"""Marks for the certainty of a number."""

OVER_TIME = {"fit": ", will be cut", "refuse": ", will be refused", "end": " for its jobs"}
"""What happens to a job beyond its time limit."""

WIDTH = 120
"""Characters of a line on the terminal."""

LEGEND = "? unknown, * expected from the configuration or estimated, ≤ at most; GB per GPU, or per process on CPUs"


T = TypeVar("T")
Entry_contra = TypeVar("Entry_contra", contravariant=True)


@dataclass(frozen=True)
class Column(Generic[Entry_contra]):
    """A column of a table: its head, and a function from an entry to the cell. Numbers are right-aligned."""

    head: str
    cell: Callable[[Entry_contra], str]
    is_text: bool = False


@dataclass(frozen=True)
class Table:
    """A table as text: title, heads and cells, and which columns contain words."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    words: list[bool]

    @classmethod
    def of(cls, title: str, columns: Sequence[Column[T]], entries: Sequence[T]) -> "Table":
        """A table with one row for each entry."""
        rows = [[column.cell(entry) for column in columns] for entry in entries]
        return cls(title, [column.head for column in columns], rows, [column.is_text for column in columns])


def render_text(plan: RunPlan) -> str:
    """The plan as text for a terminal of 120 columns."""
    return "\n".join(
        [
            *_wrap(_introduce(plan)),
            *(part for table in _tables(plan) for part in ("", table.title, _align(table))),
            "",
            LEGEND,
            *_wrap(_explain(plan)),
        ]
    )


def render_markdown(plan: RunPlan) -> str:
    """The plan as Markdown, with tables of memory by purpose."""
    return "\n".join(
        [
            f"# Plan of {escape(plan['run'])}",
            "",
            *(f"{escape(line)}\n" for line in _introduce(plan)),
            *(
                make_table(table.heads, table.rows, "".join("l" if w else "r" for w in table.words), table.title)
                for table in (*_tables(plan), *_memory_tables(plan))
            ),
            escape(LEGEND),
            "",
            *(f"- {escape(line)}" for line in _explain(plan)),
            "",
        ]
    )


def _wrap(lines: list[str]) -> list[str]:
    return [part for line in lines for part in wrap(line, WIDTH, subsequent_indent="  ")]


def _introduce(plan: RunPlan) -> list[str]:
    model, totals = plan["model"], plan["totals"]
    sizes = f"{magnitude(model['parameters'])} parameters (from {model['found_in']})"
    lines = [f"{plan['run']} on {plan['device']}; model of {sizes}"]
    if totals["gpu_hours"] is not None:
        parts = {"training": totals["training_gpu_hours"], "evaluation": totals["evaluation_gpu_hours"]}
        shares = [f"{quantity(hours)} of {what}" for what, hours in parts.items() if hours is not None]
        known = [
            f"{quantity(totals['gpu_hours'])} GPU-hours ({', '.join(shares)})",
            *([f"{quantity(totals['energy_kwh'])} kWh"] if totals["energy_kwh"] is not None else []),
            *([f"{quantity(totals['money'])} {plan['currency']}"] if totals["money"] is not None else []),
        ]
        certainties = [one["work_is"] for one in plan["stages"]] + [one["work_is"] for one in plan["benchmarks"]]
        bound = "at most " if "at most" in certainties else ""
        lines.append(f"total of all known hours: {bound}{', '.join(known)}")
    return lines


def _tables(plan: RunPlan) -> list[Table]:
    """The non-empty tables."""
    finished = [(stage, stage["used"]) for stage in plan["stages"] if stage["used"]]
    scored = [one for one in plan["benchmarks"] if one["used_job_hours"] is not None]
    tables = [
        Table.of("Stages", _stage_columns(plan), plan["stages"]),
        Table.of(_benchmark_title(plan), _benchmark_columns(plan), plan["benchmarks"]),
        Table.of(_expectation_title(plan), EXPECTATIONS, plan["expectations"]),
        Table.of("Planned against used", USED, finished),
        Table.of("Planned against used: hours of a benchmark's job", USED_HOURS, scored),
    ]
    return [table for table in tables if table.rows]


def _stage_columns(plan: RunPlan) -> list[Column[StagePlan]]:
    return [
        Column("stage", lambda s: s["name"], True),
        Column("rows", lambda s: mark(s["rows_are"], integer(s["rows"]))),
        Column("tokens", lambda s: mark(s["work_is"], magnitude(s["tokens"]))),
        Column("steps", lambda s: mark(s["steps_are"], integer(s["steps"]))),
        Column("epochs", lambda s: quantity(s["epochs"])),
        Column("trained", lambda s: magnitude(s["trainable_parameters"])),
        Column("GB", lambda s: gigabytes(s["memory_bytes"], is_bound=s["memory_is"] == "at most")),
        Column("of", lambda s: gigabytes(s["memory_limit_bytes"])),
        Column("FLOPs", lambda s: operations(s["flops"])),
        Column("hours", lambda s: mark(s["work_is"], quantity(s["hours"]))),
        Column("of", lambda s: quantity(s["hours_limit"])),
        *_cost_columns(plan, plan["stages"]),
        Column("verdict", lambda s: describe_verdict(s["verdict"]), True),
    ]


def _cost_columns(plan: RunPlan, entries: Sequence[Costs]) -> list[Column[Costs]]:
    """Columns for GPU-hours, energy and money, each if any value is known."""
    columns: list[tuple[str, Callable[[Costs], float | None]]] = [
        ("GPU-h", lambda entry: entry["gpu_hours"]),
        ("kWh", lambda entry: entry["energy_kwh"]),
        (plan["currency"], lambda entry: entry["money"]),
    ]
    return [
        Column(head, lambda entry, value=value: quantity(value(entry)))  # type: ignore[misc]
        for head, value in columns
        if any(value(entry) is not None for entry in entries)
    ]


def _benchmark_title(plan: RunPlan) -> str:
    models = plan["benchmarks"][0]["models"] if plan["benchmarks"] else 0
    costs = _cost_columns(plan, plan["benchmarks"])
    note = f"; {', '.join(column.head for column in costs)} for all models together" if costs else ""
    return f"Benchmarks: one job for each of {models} models{note}"


def _benchmark_columns(plan: RunPlan) -> list[Column[BenchmarkPlan]]:
    return [
        Column("benchmark", lambda b: b["name"], True),
        Column("items", lambda b: mark(b["rows_are"], integer(b["rows"]))),
        Column("tokens in", lambda b: mark("expected", magnitude(b["read_tokens"]))),
        Column("tokens out", lambda b: mark("at most", magnitude(b["generated_tokens"])) if b["answers"] else "-"),
        Column("GB", lambda b: gigabytes(b["memory_bytes"])),
        Column("of", lambda b: gigabytes(b["memory_limit_bytes"])),
        Column("FLOPs", lambda b: operations(b["flops"])),
        Column("hours", lambda b: mark(b["work_is"], quantity(b["job_hours"]))),
        Column("of", lambda b: quantity(b["hours_limit"])),
        *_cost_columns(plan, plan["benchmarks"]),
        Column("verdict", lambda b: describe_verdict(b["verdict"]), True),
    ]


Used = tuple[StagePlan, StageUse]


def _pair(planned: str, used: str) -> str:
    return f"{planned} / {used}"


USED: list[Column[Used]] = [
    Column("stage", lambda both: both[0]["name"], True),
    Column("steps", lambda both: _pair(integer(both[0]["steps"]), integer(both[1]["steps"]))),
    Column("epochs", lambda both: _pair(quantity(both[0]["epochs"]), quantity(both[1]["epochs"]))),
    Column("tokens", lambda both: _pair(magnitude(both[0]["tokens"]), magnitude(both[1]["tokens"]))),
    Column(
        "trained",
        lambda both: _pair(magnitude(both[0]["trainable_parameters"]), magnitude(both[1]["trainable_parameters"])),
    ),
    Column("hours", lambda both: _pair(quantity(both[0]["hours"]), quantity(both[1]["hours"]))),
    Column("GB", lambda both: _pair(gigabytes(both[0]["memory_bytes"]), gigabytes(both[1]["memory_bytes"]))),
    Column("kWh", lambda both: _pair(quantity(both[0]["energy_kwh"]), quantity(both[1]["energy_kwh"]))),
]
"""Columns that compare the plan of finished stages with actual use."""

USED_HOURS: list[Column[BenchmarkPlan]] = [
    Column("benchmark", lambda b: b["name"], True),
    Column("planned", lambda b: quantity(b["estimated_job_hours"])),
    Column("used", lambda b: quantity(b["used_job_hours"])),
]
"""The same for the hours of a benchmark."""


def _memory_tables(plan: RunPlan) -> list[Table]:
    """Tables of memory by purpose for stages and benchmarks."""
    held = {
        "stage": {stage["name"]: stage["memory"] for stage in plan["stages"] if stage["memory"]},
        "benchmark": {one["name"]: one["memory"] for one in plan["benchmarks"] if one["memory"]},
    }
    return [
        Table(
            f"Memory of one GPU or process of each {what}, in GB",
            [what, *next(iter(entries.values()))],
            [[name, *map(gigabytes, parts.values())] for name, parts in entries.items()],
            [True, *(False for _ in next(iter(entries.values())))],
        )
        for what, entries in held.items()
        if entries
    ]


def _explain(plan: RunPlan) -> list[str]:
    """The sources of each stage's numbers and of benchmark hours, and how to measure unknown ones."""
    lines = []
    for stage in plan["stages"]:
        sources = [f"rows {stage['rows_are']}", f"tokens {stage['tokens_are']}", f"throughput {stage['pace']}"]
        if not {stage["rows_are"], stage["tokens_are"]} <= {"measured", "expected"}:
            sources.append("`snakemake data` measures rows and tokens, or set the data set's `expected`")
        lines.append(f"{stage['name']}: {'; '.join(sources)}")
    benchmarks: dict[str, list[str]] = {}
    for benchmark in plan["benchmarks"]:
        benchmarks.setdefault(benchmark["hours_are"], []).append(benchmark["name"])
    return lines + [f"hours of {', '.join(names)}: {source}" for source, names in benchmarks.items()]


def _expectation_title(plan: RunPlan) -> str:
    share = f"{100 * plan['changed_share']:g}%"
    return f"Expectations: what n can show with 80% power, if the scores of {share} of the items change"


def describe_expected(change: ExpectedChange) -> str:
    """`improves`, or `holds within 2 points`."""
    return "improves" if change["margin"] is None else f"holds within {points(change['margin'])}"


def describe_power(planned: ExpectationPlan) -> str:
    """What n can show, and whether that is enough."""
    if planned["n"] is None:
        return UNKNOWN
    if planned["expected"] == "holds":
        drop = f"no drop beyond {points(planned['detectable'])}"
        return drop if planned["is_enough"] else f"{drop}: TOO FEW ITEMS"
    if planned["smallest"] is None:
        return "nothing: TOO FEW ITEMS"
    under = f"nothing under {points(planned['smallest'])}"
    if planned["detectable"] is None:
        return f"{under}, and no gain with this power: TOO FEW ITEMS"
    return f"gains from {points(planned['detectable'])}; {under}"


def points(share: float | None) -> str:
    """A share in percentage points."""
    return UNKNOWN if share is None else f"{100 * share:.3g} points"


EXPECTATIONS = [
    Column[ExpectationPlan]("stage", lambda e: e["model"], True),
    Column[ExpectationPlan]("against", lambda e: e["baseline"], True),
    Column[ExpectationPlan]("score", lambda e: e["benchmark"], True),
    Column[ExpectationPlan]("n", lambda e: mark(e["n_is"], integer(e["n"]))),
    Column[ExpectationPlan]("expected", describe_expected, True),
    Column[ExpectationPlan]("can show", describe_power, True),
]
"""Columns of the expectations."""


def describe_verdict(verdict: Fit) -> str:
    """The verdict in words."""
    problems = []
    if verdict["fits_memory"] is False:
        problems.append("TOO LARGE")
    if verdict["fits_time"] is False:
        problems.append(f"TOO LONG{OVER_TIME[verdict['over_time']]}")
    fits = {"memory": verdict["fits_memory"], "time": verdict["fits_time"]}
    unknown = [what for what, is_known in fits.items() if is_known is None]
    if problems:
        return "; ".join(problems)
    return f"{' and '.join(unknown)} unknown" if unknown else "fits"


def _align(table: Table) -> str:
    """A table as text, with words aligned left and numbers aligned right."""
    lines = [table.heads, *table.rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if is_text else cell.rjust(width)
            for cell, width, is_text in zip(line, widths, table.words, strict=True)
        ).rstrip()
        for line in lines
    )


def mark(how_sure: Certainty, number: str) -> str:
    """A number with the mark of its certainty."""
    return number if number == UNKNOWN else MARKS[how_sure] + number


def integer(number: float | None) -> str:
    """An integer with thousands separators."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def quantity(number: float | None) -> str:
    """Three significant digits, or all digits before the point."""
    if number is None:
        return UNKNOWN
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def magnitude(number: float | None) -> str:
    """`134.5M`, `4.0B`; numbers below 1,000 without a letter."""
    if number is None:
        return UNKNOWN
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return integer(number)


def operations(number: float | None) -> str:
    """`1.2e18`."""
    return UNKNOWN if number is None else f"{number:.1e}".replace("e+", "e")


def gigabytes(size: float | None, is_bound: bool = False) -> str:
    """Bytes in GB (10⁹ bytes), without the unit."""
    return UNKNOWN if size is None else f"{MARKS['at most'] if is_bound else ''}{size / 1e9:.1f}"
