"""The demo's results support what the README claims. `.ci/run` runs this after `make demo`."""

import json
from typing import Any

import pytest

from tests.workflow.running import REPOSITORY

RESULTS = REPOSITORY / "results" / "demo"


@pytest.fixture(scope="module")
def comparison() -> dict[tuple[str, str, str], dict[str, Any]]:
    rows = json.loads((RESULTS / "comparison.json").read_text())
    return {(row["benchmark"], row["baseline"], row["model"]): row for row in rows}


def test_sft_improves_exact_match(comparison: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    row = comparison["chain_sum", "base", "sft"]
    assert row["metric"] == "exact_match" and row["n"] >= 80
    assert row["difference"] > 0 and row["p_value"] < 0.01


def test_dpo_improves_preference_accuracy(comparison: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    row = comparison["pairs", "sft", "dpo"]
    assert row["metric"] == "preference_accuracy" and row["n"] >= 30
    assert row["difference"] > 0 and row["p_value"] < 0.01


def test_dpo_does_not_lower_exact_match(comparison: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    row = comparison["chain_sum", "sft", "dpo"]
    assert row["difference"] >= 0 or row["p_value"] >= 0.05


def test_all_expectations_are_confirmed(comparison: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    outcomes = {place: row["outcome"] for place, row in comparison.items() if row["expected"]}
    assert outcomes == {
        ("chain_sum", "base", "sft"): "confirmed",
        ("pairs", "sft", "dpo"): "confirmed",
        ("chain_sum", "sft", "dpo"): "confirmed",
        ("chain_sum", "base", "dpo"): "confirmed",
    }


def test_there_is_a_report() -> None:
    assert (RESULTS / "report.pdf").read_bytes().startswith(b"%PDF")
