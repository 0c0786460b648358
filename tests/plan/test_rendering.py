"""The plan fits a terminal, and its Markdown has the same content."""

import re
from pathlib import Path

import pytest

from scripts.common.paths import REPOSITORY, RunPaths
from scripts.common.records import Costs, OverTime, Totals
from scripts.plan.forecast import make_plan
from scripts.plan.rendering import (
    LEGEND,
    describe_verdict,
    gigabytes,
    magnitude,
    mark,
    operations,
    quantity,
    render_markdown,
    render_text,
)
from tests.plan.plans import make_run_plan, make_stage_plan
from tests.plan.stages import read_config

TEXT = """\
mine on 4 x H100; model of 4.0B parameters (from shapes.yaml)
total of all known hours: at most 15.5 GPU-hours (13 of training, 2.49 of evaluation), 10.8 kWh, 38.7 EUR

Stages
stage     rows  tokens  steps  epochs  trained     GB    of   FLOPs  hours  of  GPU-h  kWh   EUR  verdict
sft    *12,345   ≤6.8M   *771       2     4.0B  ≤24.3  80.0  1.6e17  ≤3.25  24     13  9.1  32.5  fits
dpo          ?       ?      ?       ?   132.1M   91.5  80.0       ?      ?   8      ?    ?     ?  TOO LARGE

Benchmarks: one job for each of 3 models; GPU-h, kWh, EUR for all models together
benchmark   items  tokens in  tokens out    GB    of   FLOPs  hours  of  GPU-h   kWh   EUR  verdict
gsm8k      *1,319      *1.2M     ≤337.7k  10.0  80.0  1.3e16  ≤0.52  12   1.56  1.09   3.9  fits
mmlu       14,042      *9.9M           -  10.0  80.0  7.9e16   0.31  12   0.93  0.65  2.33  fits

Expectations: what n can show with 80% power, if the scores of 20% of the items change
stage  against  score       n  expected               can show
sft    base     gsm8k  *1,319  improves               gains from 4.3 points; nothing under 0.53 points
dpo    sft      mmlu   14,042  holds within 2 points  no drop beyond 1.12 points

Planned against used
stage      steps    epochs       tokens      trained       hours           GB        kWh
sft    771 / 768  2 / 1.99  6.8M / 6.5M  4.0B / 4.0B  3.25 / 3.5  24.3 / 25.1  9.1 / 9.4

Planned against used: hours of a benchmark's job
benchmark  planned  used
mmlu           0.4  0.31

? unknown, * expected from the configuration or estimated, ≤ at most; GB per GPU, or per process on CPUs
sft: rows expected; tokens at most; throughput MFU 30%: assumed; `snakemake data` measures rows and tokens, or set the
  data set's `expected`
dpo: rows unknown; tokens unknown; throughput unknown: no rows; `snakemake data` measures rows and tokens, or set the
  data set's `expected`
hours of gsm8k: assumed: MFU 15%
hours of mmlu: measured on 2 of 3 models"""

MEMORY = r"""| stage | weights | gradients |
| :-- | --: | --: |
| sft | 8\.1 | 16\.2 |
| dpo | 8\.1 | 83\.4 |

: Memory of one GPU or process of each stage\, in GB

| benchmark | weights | logits |
| :-- | --: | --: |
| gsm8k | 8\.1 | 1\.9 |
| mmlu | 8\.1 | 1\.9 |

: Memory of one GPU or process of each benchmark\, in GB
"""

SOURCES = [
    "sft: rows expected; tokens at most; throughput MFU 30%: assumed; `snakemake data` measures rows and tokens, or "
    "set the data set's `expected`",
    "dpo: rows unknown; tokens unknown; throughput unknown: no rows; `snakemake data` measures rows and tokens, or "
    "set the data set's `expected`",
    "hours of gsm8k: assumed: MFU 15%",
    "hours of mmlu: measured on 2 of 3 models",
]

RUNS = ["config.yaml", *sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "recipes").glob("*.yaml"))]


@pytest.mark.parametrize("path", RUNS)
def test_every_recipe_has_a_plan(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    config = read_config(path, tmp_path)
    config = config.model_copy(update={"plan": config.plan.model_copy(update={"per_gpu_hour": 2.5})})
    plan = make_plan(config, RunPaths("x", tmp_path))
    text, page = render_text(plan), render_markdown(plan)
    assert max(map(len, text.splitlines())) <= 120
    for name in (*config.stages, *config.benchmarks):
        assert f"\n{name} " in text
        assert name.replace("_", r"\_") in page


@pytest.mark.parametrize(("gpus", "marked"), [(0, True), (1, False)])
def test_memory_that_is_an_upper_bound_is_marked(tmp_path: Path, gpus: int, marked: bool) -> None:
    """On CPUs the memory of a stage is an upper bound, since some processors keep kernels."""
    resources = {"train": {"gpus": gpus}}
    config = read_config("recipes/smoke.yaml", tmp_path, resources=resources, plan={"gpu": "H100"})
    plan = make_plan(config, RunPaths("x", tmp_path))
    heads, sft, *_ = (line.split() for line in render_text(plan).partition("\nStages\n")[2].splitlines())
    size = plan["stages"][0]["memory_bytes"]
    assert size is not None and sft[heads.index("GB")] == ("≤" if marked else "") + f"{size / 1e9:.1f}"


def verdict(memory: bool | None, time: bool | None, over_time: OverTime = "fit") -> str:
    return describe_verdict({"fits_memory": memory, "fits_time": time, "over_time": over_time})


def test_verdicts() -> None:
    assert verdict(True, True) == "fits"
    assert verdict(False, True) == "TOO LARGE"
    assert verdict(None, False) == "TOO LONG, will be cut"
    assert verdict(False, False, "refuse") == "TOO LARGE; TOO LONG, will be refused"
    assert verdict(True, False, "end") == "TOO LONG for its jobs"
    assert verdict(None, None) == "memory and time unknown"
    assert verdict(True, None) == "time unknown"


def test_formats_of_numbers() -> None:
    assert [quantity(x) for x in (None, 0.01234, 3, 24.56, 123.4, 12_345)] == [
        "?",
        "0.0123",
        "3",
        "24.6",
        "123",
        "12,345",
    ]
    assert [magnitude(x) for x in (None, 12, 1_500, 134_515_008, 4.02e9, 2e12)] == [
        *("?", "12", "1.5k", "134.5M", "4.0B", "2.0T")
    ]
    assert gigabytes(1.55e9) == "1.6"
    assert magnitude(1e12) == "1.0T" and magnitude(999.4e9) == "999.4B"
    assert mark("expected", "?") == "?" and mark("expected", "3") == "*3"
    assert [operations(x) for x in (None, 1.234e18)] == ["?", "1.2e18"]


def test_all_numbers_are_in_their_columns() -> None:
    assert render_text(make_run_plan()) == TEXT


def test_the_markdown_has_the_same_tables_and_the_memory_by_purpose() -> None:
    """Each table of the text, cell by cell, then those of the memory, then how to read the marks."""
    page = render_markdown(make_run_plan())
    assert page.startswith("# Plan of mine\n\nmine on 4 x H100\\; model of 4\\.0B parameters")
    plain = re.sub(r"\\(.)", r"\1", page)
    assert MEMORY in page
    assert plain.splitlines()[-6:] == [LEGEND, "", *(f"- {line}" for line in SOURCES)]
    tables = [part.splitlines() for part in TEXT.split("\n\n")[1:-1]]
    for title, *rows in tables:
        assert f"\n: {title}\n" in plain
        for row in rows:
            assert "| " + " | ".join(re.split(r"  +", row.strip())) + " |" in plain
    aligned = [line for line in plain.splitlines() if line.startswith("| :--")]
    assert aligned[0] == "| :-- " + "| --: " * 13 + "| :-- |" and aligned[2] == "| :-- | :-- | :-- | --: | :-- | :-- |"


def test_known_rows_need_no_advice() -> None:
    for rows, tokens in (("measured", "expected"), ("measured", "measured"), ("expected", "expected")):
        stage = make_stage_plan("sft", rows_are=rows, tokens_are=tokens)
        assert "`snakemake data`" not in render_text(make_run_plan(stages=[stage]))


def test_unknown_costs_have_no_columns_and_empty_tables_no_title() -> None:
    unknown: Costs = {"gpu_hours": None, "energy_kwh": None, "money": None}
    totals: Totals = {**unknown, "training_gpu_hours": None, "evaluation_gpu_hours": None}
    stage = make_stage_plan("sft", work_is="measured", rows_are="measured", tokens_are="measured", **unknown)
    text = render_text(make_run_plan(totals=totals, stages=[stage], benchmarks=[], expectations=[]))
    assert text.splitlines()[:5] == [
        "mine on 4 x H100; model of 4.0B parameters (from shapes.yaml)",
        "",
        "Stages",
        "stage    rows  tokens  steps  epochs  trained     GB    of   FLOPs  hours  of  verdict",
        "sft    12,345    6.8M   *771       2     4.0B  ≤24.3  80.0  1.6e17   3.25  24  fits",
    ]
    assert text.splitlines()[5:] == ["", LEGEND, "sft: rows measured; tokens measured; throughput MFU 30%: assumed"]
    known = make_run_plan(totals={**totals, "gpu_hours": 4.0, "training_gpu_hours": 4.0}, benchmarks=[], stages=[stage])
    assert render_text(known).splitlines()[1] == "total of all known hours: 4 GPU-hours (4 of training)"
