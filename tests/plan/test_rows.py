"""Rows and tokens of a data set: counted, expected, or bounded by the configuration."""

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.common.config import Config
from scripts.common.config.loader import load_config
from scripts.common.files import write_json
from scripts.common.paths import REPOSITORY, RunPaths
from scripts.plan.rows import Rows, bound_lengths, read_rows
from scripts.plan.steps import NO_LENGTH

SMOKE: dict[str, Any] = yaml.safe_load((REPOSITORY / "recipes" / "smoke.yaml").read_text(encoding="utf-8"))


def configure(**sections: Any) -> Config:
    """The smoke recipe with changes of the data set `sums`, which has 96 rows and holds out 8."""
    recipe = copy.deepcopy(SMOKE)
    recipe["datasets"]["sums"] |= sections
    return load_config(recipe)


def read(folder: Path, dataset: str = "sums", **sections: Any) -> Rows:
    return read_rows(configure(**sections), dataset, RunPaths("smoke", folder))


def test_counted_rows_represent_all_rows(tmp_path: Path) -> None:
    """40 of 80 rows were counted. The middles of the bars from 40 to 49 and 50 to 59 are 44 and 54."""
    train = {"rows": 80, "counted": 40, "max": 58, "counts": [30, 10]}
    splits = {"train": train, "validation": {"rows": 8, "counted": 0}}
    paths = RunPaths("smoke", tmp_path)
    write_json(paths.summary("sums"), {"tokens": {"edges": [40, 50, 60], "splits": splits}})
    assert read(tmp_path).rows_are == "at most", "an unfinished data set is ignored"
    write_json(paths.filtered("sums"), {})
    assert read(tmp_path) == Rows(80, 8, "measured", Counter({44: 60, 54: 20}), 58, "measured")
    train["counted"] = 0
    write_json(paths.summary("sums"), {"tokens": {"edges": [0, 1], "splits": splits | {"train": train}}})
    assert read(tmp_path).tokens_are == "unknown"


@pytest.mark.parametrize(
    ("sections", "train", "rows_are"),
    [
        ({}, 96 - 8, "at most"),
        ({"test": 20}, 96 - 8 - 20, "at most"),
        ({"test": 96}, 0, "at most"),
        ({"sample": 50}, 50 - 8, "at most"),
        ({"sample": 500}, 96 - 8, "at most"),
        ({"expected": {"rows": 60}}, 60 - 8, "expected"),
        ({"expected": {"rows": 60}, "sample": 50}, 50 - 8, "expected"),
        ({"source": {"kind": "file", "path": "x.jsonl"}}, None, "unknown"),
    ],
    ids=str,
)
def test_rows_of_data_sets_that_do_not_exist_yet(
    tmp_path: Path, sections: dict[str, Any], train: int | None, rows_are: str
) -> None:
    rows = read(tmp_path, **sections)
    assert (rows.train, rows.validation, rows.rows_are) == (train, 8, rows_are)
    assert (rows.longest, rows.tokens_are) == (200, "unknown"), "a filter removes longer rows"


def test_downloaded_rows_override_the_section(tmp_path: Path) -> None:
    write_json(RunPaths("smoke", tmp_path).source("sums"), {"facts": {"rows": 90}})
    assert (read(tmp_path).train, read(tmp_path).rows_are) == (82, "at most")
    assert read(tmp_path, expected={"rows": 60}).train == 52


def test_expected_tokens_apply_to_each_row(tmp_path: Path) -> None:
    rows = read(tmp_path, expected={"rows": 60, "tokens": 99.6})
    assert (rows.lengths, rows.tokens_are) == (Counter({100: 52}), "expected")
    unknown = read(tmp_path, expected={"tokens": 99.6}, source={"kind": "file", "path": "x.jsonl"})
    assert (unknown.train, unknown.mean(NO_LENGTH)) == (None, 100)


def test_there_are_at_most_as_many_pairs_as_sampled_answers(tmp_path: Path) -> None:
    """Three answers to each of 24 questions. Twelve rows are held out."""
    recipe = copy.deepcopy(SMOKE)
    recipe["datasets"]["pairs"]["source"]["samples"] = 3
    rows = read_rows(load_config(recipe), "pairs", RunPaths("smoke", tmp_path))
    assert (rows.train, rows.validation, rows.rows_are) == (3 * 24 - 4 - 8, 4, "at most")


@pytest.mark.parametrize(("second", "train", "rows_are"), [({"rows": 40}, 102, "at most"), ({}, None, "unknown")])
def test_a_mixture_has_the_rows_of_its_parts(
    tmp_path: Path, second: dict[str, Any], train: int | None, rows_are: str
) -> None:
    source = {"kind": "file", "path": "x.jsonl"}
    parts = {"a": {"source": source, "rows": 70}, "b": {"source": source} | second}
    rows = read(tmp_path, source={"kind": "mixture", "parts": parts})
    assert (rows.train, rows.rows_are) == (train, rows_are)


def test_means_are_computed_from_truncated_rows() -> None:
    rows = Rows(4, 0, "measured", Counter({10: 3, 50: 1}), 50, "measured")
    assert (rows.mean(NO_LENGTH), rows.mean_square(NO_LENGTH)) == (20, 700)
    assert (rows.mean(30), rows.mean_square(30)) == (15, 300)
    assert Rows(4, 0, "measured", Counter(), 50, "unknown").mean(30) is None


@pytest.mark.parametrize(
    ("longest", "cut", "bound"),
    [(200, 1_024, 200), (200, 80, 80), (None, 80, 80), (200, NO_LENGTH, 200), (None, NO_LENGTH, None)],
)
def test_rows_of_unknown_length_are_as_long_as_allowed(longest: int | None, cut: int, bound: int | None) -> None:
    rows = bound_lengths(Rows(5, 0, "at most", Counter(), longest, "unknown"), cut)
    assert rows.lengths == (Counter({bound: 5}) if bound else Counter())
    assert rows.tokens_are == ("at most" if bound else "unknown")
    known = Rows(5, 0, "expected", Counter({50: 5}), longest, "expected")
    assert bound_lengths(known, cut) is known
