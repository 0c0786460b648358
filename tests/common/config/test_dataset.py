"""Which values the section of a data set accepts, and which it refuses with one line."""

import copy
from typing import Any

import pytest

from scripts.common.config import FORMATS, Dataset, Filters
from scripts.common.config.loader import load_config
from scripts.common.errors import UserError
from scripts.data.schemas import SCHEMAS
from tests.workflow.running import read_recipe

SMOKE = read_recipe("smoke")
FILE = {"kind": "file", "path": "rows.jsonl"}


def _load(**section: Any) -> Dataset:
    raw = copy.deepcopy(SMOKE)
    raw["datasets"]["mine"] = {"source": FILE} | section
    return load_config(raw, "mine.yaml").datasets["mine"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"sample": {"row": 5}}, "datasets.mine.sample.row: unknown key; did you mean 'rows'?"),
    ({"sample": 0}, "datasets.mine.sample.rows: "),
    ({"sample": {"rows": 5, "method": "frist"}}, "datasets.mine.sample.method: "),
    ({"filters": {"language": ["en"]}}, "datasets.mine.filters.language: unknown key; did you mean 'languages'?"),
    ({"filters": {"benchmark_overlap": True}}, "datasets.mine.filters.benchmark_overlap: "),
    ({"filters": {"patterns": {"a": ["("]}}}, "datasets.mine.filters: patterns.a is not a valid regular expression"),
    ({"filters": {"functions": {"a": "keep"}}}, "functions.a must have the form 'file.py:function', found 'keep'"),
    ({"filters": {"patterns": {"empty": ["x"]}}}, "another filter or step has the name 'empty' already"),
    ({"filters": {"functions": {"sample": "f.py:f"}}}, "another filter or step has the name 'sample' already"),
    ({"filters": {"min_tokens": 9, "max_tokens": 8}}, "min_tokens (9) is larger than max_tokens (8)"),
    ({"filters": {"near_duplicates": 0.2}}, "datasets.mine.filters.near_duplicates: "),
    ({"format": "alpacca"}, "datasets.mine.format: "),
    ({"shards": 0}, "datasets.mine.shards: "),
    ({"max_malformed": 2}, "datasets.mine.max_malformed: "),
    ({"source": {"kind": "mixture", "parts": {}}}, "datasets.mine.source.parts: "),
    (
        {"source": {"kind": "mixture", "parts": {"a": {"source": FILE, "weigt": 1}}}},
        "datasets.mine.source.parts.a.weigt: unknown key; did you mean 'weight'?",
    ),
    (
        {"source": {"kind": "mixture", "parts": {"a": {"source": FILE, "weight": 1}, "b": {"source": FILE}}}},
        "datasets.mine.source: give every part a weight and no part `rows`, or give no part a weight",
    ),
    (
        {"source": {"kind": "mixture", "parts": {"a": {"source": FILE}}}, "rename": {"a": "b"}},
        "set format and rename for each part, not for a source of kind mixture",
    ),
]


@pytest.mark.parametrize(("section", "line"), REFUSED, ids=[line for _, line in REFUSED])
def test_is_refused_with_one_line(section: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        _load(**section)
    lines = [shown for shown in str(caught.value).splitlines() if line in shown]
    assert len(lines) == 1 and lines[0].startswith("mine.yaml: datasets.mine"), str(caught.value)


def test_a_format_must_fit_the_stage() -> None:
    raw = copy.deepcopy(SMOKE)
    raw["datasets"]["sums"] = {"source": FILE, "format": "preference"}
    with pytest.raises(UserError, match=r"datasets\.sums\.format: messages rows cannot be read from 'preference'"):
        load_config(raw)


def test_a_bare_number_is_a_random_sample() -> None:
    sample = _load(sample=12).sample
    assert sample is not None
    assert (sample.rows, sample.method, sample.balance) == (12, "random", None)


def test_without_a_stage_the_format_decides_the_kind_of_rows() -> None:
    raw = copy.deepcopy(SMOKE)
    for row_type, formats in FORMATS.items():
        raw["datasets"][f"as_{row_type}"] = {"source": FILE, "format": formats[-1]}
    config = load_config(raw)
    assert {config.row_type(f"as_{row_type}") for row_type in FORMATS} == {"messages", "preference", "kto"}
    assert config.row_type("as_kto") == "kto" and config.row_type("as_preference") == "preference"
    assert set(FORMATS) == set(SCHEMAS)


def test_only_the_safe_filters_are_on_by_default() -> None:
    on = {name for name, value in Filters().as_dict().items() if value not in (None, False, [], {})}
    assert on == {"empty", "roles", "control_tokens", "equal_answers", "benchmark_overlap", "duplicates"}
