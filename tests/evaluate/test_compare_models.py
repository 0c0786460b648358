"""Rows of paired comparisons, their corrections and verdicts, and the script."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.common.config import Expected, ExpectedChange
from scripts.common.files import read_json, write_json, write_json_lines
from scripts.common.records import Comparison
from scripts.evaluate.compare_models import compare
from scripts.evaluate.paired_scores import ItemScores
from scripts.evaluate.paired_statistics import Family, adjust_holm, newcombe
from tests.common.running import call_main, error_lines, run_script
from tests.evaluate.pairs import make_item_scores, make_pairs
from tests.report.tables import make_registration

ONE = Family(alpha=0.05, seed=1)
"""A family of one comparison."""

SIDES = ("base", "sft")

KEYS = [
    "benchmark",
    "metric",
    "baseline",
    "model",
    "n",
    "baseline_score",
    "model_score",
    "difference",
    "origin",
    "ci_low",
    "ci_high",
    "smallest_difference",
    "margin",
    "is_held",
    "p_margin",
    "p_beyond",
    "p_value",
    "family",
    "expected",
    "outcome",
    "p_adjusted",
    "verdict",
]


def _halves(model: str) -> ItemScores:
    """Scores of 200 items: the base has 100 right, any other model half of these and half of the rest."""
    before, after = make_pairs(both=50, lost=50, gained=50, neither=50)
    return make_item_scores(
        model, {str(i): float(value) for i, value in enumerate(before if model == "base" else after)}
    )


HALVES = {0.05: 0.097070, 0.05 / 3: 0.118032, 0.05 / 6: 0.129660, 0.2: 0.063816}
"""Half-width of Newcombe's interval of `_halves` by alpha.

Wilson's margin of error of a score of 0.5 with n = 200 is z / (2 sqrt(n + z^2)), here with z = 1.959964, 2.393980,
2.638257 and 1.281552. For two uncorrelated scores, the margin of the difference is sqrt(2) times as large.
"""


def test_is_held_depends_on_the_margin() -> None:
    items = {str(i): float(i % 2) for i in range(200)}
    base, sft = make_item_scores("base", items), make_item_scores("sft", items)
    assert compare(base, sft, ONE, margin=0.05)["is_held"] is True
    assert compare(base, sft, ONE, margin=0.001)["is_held"] is False
    assert compare(base, sft, ONE)["is_held"] is None


@pytest.mark.parametrize(("margins", "bound"), [(1, HALVES[0.05]), (3, HALVES[0.05 / 3]), (6, HALVES[0.05 / 6])])
def test_all_margins_share_alpha(margins: int, bound: float) -> None:
    family = Family(0.05, 1, comparisons=7, margins=margins)
    base, sft = _halves("base"), _halves("sft")
    assert compare(base, sft, family, margin=bound + 1e-4)["is_held"] is True
    assert compare(base, sft, family, margin=bound - 1e-4)["is_held"] is False


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_interval_and_p_value_of_binary_scores_by_hand(alpha: float) -> None:
    row = compare(_halves("base"), _halves("sft"), Family(alpha, 1))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((-HALVES[alpha], HALVES[alpha]), abs=1e-5)
    assert (row["p_value"], row["difference"]) == (1.0, 0.0)


def test_a_row_has_the_scores_of_both_models() -> None:
    """From 23 wrong answers and a right one to 24 right ones, and back."""
    wrong, right = (
        make_item_scores(model, {str(i): float(model == "sft" or i == 0) for i in range(24)}) for model in SIDES
    )
    gain, fall = compare(wrong, right, ONE), compare(right, wrong, ONE)
    assert (gain["baseline"], gain["model"]) == ("base", "sft") and (fall["baseline"], fall["model"]) == ("sft", "base")
    assert (gain["baseline_score"], gain["model_score"], gain["difference"]) == pytest.approx((1 / 24, 1, 23 / 24))
    assert (fall["baseline_score"], fall["model_score"], fall["difference"]) == pytest.approx((1, 1 / 24, -23 / 24))
    assert gain["p_value"] == fall["p_value"] == pytest.approx(2 / 2**23)
    # With the added pair: 24 differences of 1 and one of 0, or 23 of -1, one of 0 and one of 1.
    assert gain["smallest_difference"] == pytest.approx(0.04 * 2.801585, rel=1e-6)
    assert fall["smallest_difference"] == pytest.approx(
        (24 / 25 - (22 / 25) ** 2) ** 0.5 / 24**0.5 * 2.801585, rel=1e-6
    )
    wider = compare(right, wrong, Family(0.2, 1))["smallest_difference"]
    assert wider / fall["smallest_difference"] == pytest.approx((1.281552 + 0.841621) / 2.801585, rel=1e-6)


def test_items_are_paired_by_key_and_not_by_position() -> None:
    one = make_item_scores("base", {"x": 0.0, "y": 1.0, "z": 1.0})
    other = make_item_scores("sft", {"z": 1.0, "y": 1.0, "x": 0.0})
    row = compare(one, other, ONE)
    assert (row["p_value"], row["difference"], row["n"]) == (1.0, 0.0, 3)
    same = np.array([0.0, 1.0, 1.0])
    # Paired by position, x would be gained and z lost, and the interval would differ.
    assert (row["ci_low"], row["ci_high"]) == newcombe(same, same, 0.05)


def _write(folder: Path, model: str, benchmark: str, values: list[float], protocol: str = "same") -> Path:
    path = folder / model / f"{benchmark}.json"
    facts = {
        "benchmark": benchmark,
        "model": model,
        "task": "t",
        "metric": "acc",
        "n": len(values),
        "protocol": protocol,
    }
    write_json_lines(path.with_suffix(".items.jsonl"), [{"key": str(i), "score": v} for i, v in enumerate(values)])
    write_json(path, facts)
    return path


def _options(scores: list[Path], *expected: ExpectedChange) -> dict[str, Any]:
    """Options of the script, with the expectations in a file next to the scores."""
    registered = scores[0].parent.parent / "expectations.json"
    write_json(registered, [make_registration(), make_registration(*expected)])
    made = {"output": "comparison.json", "manifest": "comparison.manifest.json", "expectations": registered}
    return {"scores": scores, "items": [path.with_suffix(".items.jsonl") for path in scores]} | made


def _run(folder: Path, pairs: list[str], scores: list[Path]) -> subprocess.CompletedProcess[str]:
    return run_script("evaluate.compare_models", folder, alpha=0.05, seed=1, pairs=pairs, **_options(scores))


def test_script(tmp_path: Path) -> None:
    scores = [
        _write(tmp_path, "base", "two", [0.0] * 12),
        _write(tmp_path, "base", "one", [0.1 * i for i in range(10)]),
        _write(tmp_path, "sft", "two", [1.0] * 12),
        _write(tmp_path, "sft", "one", [0.1 * i + 0.01 for i in range(10)]),
        _write(tmp_path, "dpo", "two", [0.0] * 12),
        _write(tmp_path, "dpo", "one", [0.1 * i for i in range(10)]),
    ]
    run = _run(tmp_path, ["base:sft", "sft:dpo", "base:dpo"], scores)
    assert run.returncode == 0, run.stderr
    rows = read_json(tmp_path / "comparison.json")
    assert all(list(row) == KEYS for row in rows)
    shown = [(row["benchmark"], row["baseline"], row["model"], row["verdict"]) for row in rows]
    assert shown == [
        ("two", "base", "sft", "improved"),
        ("two", "sft", "dpo", "worsened"),
        ("two", "base", "dpo", "no difference found"),
        ("one", "base", "sft", "improved"),
        ("one", "sft", "dpo", "worsened"),
        ("one", "base", "dpo", "no difference found"),
    ]
    assert [row["p_adjusted"] for row in rows] == pytest.approx(adjust_holm([row["p_value"] for row in rows]))
    assert rows[0]["p_value"] == pytest.approx(2 / 2**12)
    assert run.stderr == "compare_models: 6 comparisons, 4 differences found\n"
    manifest = read_json(tmp_path / "comparison.manifest.json")
    assert manifest["facts"]["comparisons"] == 6 and len(manifest["inputs"]) == 7


def _call(
    folder: Path, pairs: list[str], scores: list[Path], *expected: ExpectedChange, **given: Any
) -> list[Comparison]:
    """Run the script in this process, and return the rows that it writes."""
    options = {"alpha": 0.05, "seed": 1} | given | _options(scores, *expected)
    call_main("evaluate.compare_models", folder, pairs=pairs, **options)
    return list(read_json(folder / "comparison.json"))


@pytest.mark.parametrize(
    ("margins", "verdicts"),
    [
        ({"sums": 0.12, "elsewhere": 0.01}, ["held", "held", "no difference found"]),
        ({"sums": 0.11}, ["no difference found", "no difference found", "no difference found"]),
        ({"sums": 0.12, "talk": 0.3}, ["no difference found", "no difference found", "held"]),
        ({}, ["no difference found", "no difference found", "no difference found"]),
    ],
)
def test_a_margin_counts_once_for_each_pair_of_models(
    tmp_path: Path, margins: dict[str, float], verdicts: list[str]
) -> None:
    """With three pairs of models, one benchmark with a margin makes three claims, and two make six.

    A margin of a benchmark without scores does not count. The bounds are those of HALVES.
    """
    scores = [
        _write(tmp_path, model, benchmark, list(_halves(side).items.values()))
        for benchmark in ("sums", "talk")
        for model, side in (("base", "base"), ("sft", "sft"), ("dpo", "base"))
    ]
    rows = _call(tmp_path, ["base:sft", "sft:dpo", "base:dpo"], scores, margins=margins)
    assert [row["verdict"] for row in rows[:2] + rows[3:4]] == verdicts
    assert [row["margin"] for row in rows] == [margins.get("sums")] * 3 + [margins.get("talk")] * 3
    assert [row["is_held"] is None for row in rows] == [row["margin"] is None for row in rows]
    assert read_json(tmp_path / "comparison.manifest.json")["config"]["margins"] == margins


def test_script_uses_its_alpha(tmp_path: Path) -> None:
    """Four items changed, all of them gained: p = 2 / 2**4. The intervals are at 1 - alpha."""
    scores = [_write(tmp_path, "base", "b", [0.0] * 8), _write(tmp_path, "sft", "b", [1.0] * 4 + [0.0] * 4)]
    (narrow,) = _call(tmp_path, ["base:sft"], scores, alpha=0.2)
    assert (narrow["p_adjusted"], narrow["verdict"]) == (0.125, "improved")
    (wide,) = _call(tmp_path, ["base:sft"], scores)
    assert (wide["p_adjusted"], wide["verdict"]) == (0.125, "no difference found")
    assert wide["ci_low"] < narrow["ci_low"] < narrow["ci_high"] < wide["ci_high"]


def test_script_draws_enough_for_all_its_comparisons(tmp_path: Path) -> None:
    """All of 30 graded items improve on three benchmarks. 10,000 draws could not show that at such a small alpha."""
    scores = [
        _write(tmp_path, model, benchmark, [0.01 * i + (0.2 if model == "sft" else 0.0) for i in range(30)])
        for benchmark in ("one", "two", "three")
        for model in SIDES
    ]
    rows = _call(tmp_path, ["base:sft"], scores, alpha=0.0004)
    assert [row["verdict"] for row in rows] == ["improved"] * 3
    assert rows[0]["p_value"] == pytest.approx(2 / (4 * 3 / 0.0004 + 1))


def test_script_refuses_different_items(tmp_path: Path) -> None:
    scores = [_write(tmp_path, "base", "b", [1.0, 0.0]), _write(tmp_path, "sft", "b", [1.0, 0.0, 1.0])]
    run = _run(tmp_path, ["base:sft"], scores)
    assert error_lines(run) == ["error: sft against base on b: scored on different items; run both again"]
    assert not (tmp_path / "comparison.json").exists()


def _expect(model: str, benchmark: str, expected: Expected, baseline: str = "base") -> ExpectedChange:
    margin = 0.12 if expected == "holds" else None
    return {"model": model, "baseline": baseline, "benchmark": benchmark, "expected": expected, "margin": margin}


def test_expectations_are_a_family_of_their_own(tmp_path: Path) -> None:
    """Seven items gained of 50: p = 2 / 2**7. Alone it is found, but not among six comparisons."""
    gained = [1.0] * 7 + [0.0] * 43
    scores = [
        _write(tmp_path, model, benchmark, gained if (model, benchmark) == ("sft", "one") else [0.0] * 50)
        for benchmark in ("one", "two")
        for model in ("base", "sft", "dpo")
    ]
    pairs = ["base:sft", "sft:dpo", "base:dpo"]
    found = {(row["benchmark"], row["baseline"], row["model"]): row for row in _call(tmp_path, pairs, scores)}
    assert {row["family"] for row in found.values()} == {"all"}
    assert found["one", "base", "sft"]["p_adjusted"] == pytest.approx(6 * 2 / 2**7)
    expected = [_expect("sft", "one", "improves"), _expect("sft", "two", "improves")]
    rows = _call(tmp_path, pairs, scores, *expected)
    by_family = {name: [row for row in rows if row["family"] == name] for name in ("confirmatory", "exploratory")}
    one, two = by_family["confirmatory"]
    assert (one["benchmark"], one["outcome"], one["verdict"]) == ("one", "confirmed", "improved")
    assert one["p_adjusted"] == pytest.approx(2 * 2 / 2**7)
    assert (two["benchmark"], two["outcome"], two["expected"]) == ("two", "not confirmed", "improves")
    lost, *_ = by_family["exploratory"]
    assert (lost["baseline"], lost["model"], lost["benchmark"]) == ("sft", "dpo", "one")
    assert lost["p_adjusted"] == pytest.approx(4 * 2 / 2**7) and lost["verdict"] == "no difference found"
    assert {(row["expected"], row["outcome"]) for row in by_family["exploratory"]} == {(None, None)}
    manifest = read_json(tmp_path / "comparison.manifest.json")
    assert manifest["facts"]["expected"] == 2 and "expectations" in manifest["inputs"]


@pytest.mark.parametrize(
    ("margin", "outcome", "verdict"),
    [(0.12, "confirmed", "held"), (0.09, "not confirmed", "no difference found")],
)
def test_a_score_holds_if_a_larger_drop_is_excluded(tmp_path: Path, margin: float, outcome: str, verdict: str) -> None:
    """The interval of HALVES ends at 0.097, so a larger margin is held and a smaller one is not."""
    scores = [_write(tmp_path, model, "b", list(_halves(model).items.values())) for model in SIDES]
    (row,) = _call(tmp_path, ["base:sft"], scores, _expect("sft", "b", "holds"), margins={"b": margin})
    assert (row["outcome"], row["verdict"], row["is_held"]) == (outcome, verdict, outcome == "confirmed")
    assert row["p_margin"] == row["p_adjusted"] and row["p_value"] == 1.0


def test_a_drop_beyond_the_margin_contradicts(tmp_path: Path) -> None:
    """From 100 right answers of 100 to 50; with a margin of 45 points, the data do not decide."""
    scores = [
        _write(tmp_path, model, "b", [1.0] * right + [0.0] * (100 - right))
        for model, right in (("base", 100), ("sft", 50))
    ]
    expected = _expect("sft", "b", "holds")
    (row,) = _call(tmp_path, ["base:sft"], scores, expected, margins={"b": 0.12})
    assert (row["outcome"], row["verdict"], row["is_held"]) == ("contradicted", "worsened", False)
    (row,) = _call(tmp_path, ["base:sft"], scores, expected, margins={"b": 0.45})
    assert (row["outcome"], row["verdict"], row["is_held"]) == ("not confirmed", "worsened", False)
    (row,) = _call(tmp_path, ["base:sft"], scores, _expect("sft", "b", "improves"), margins={"b": 0.12})
    assert (row["outcome"], row["verdict"], row["is_held"]) == ("contradicted", "worsened", False)


def test_scores_that_hold_are_corrected_by_holm(tmp_path: Path) -> None:
    """With a margin of 0.105, `b` holds at an alpha of 0.05 but not of 0.025. `c` did not change at all."""
    scores = [_write(tmp_path, model, "b", list(_halves(model).items.values())) for model in SIDES]
    scores += [_write(tmp_path, model, "c", [1.0, 0.0] * 100) for model in SIDES]
    expected = [_expect("sft", "b", "holds"), _expect("sft", "c", "holds")]
    margins = {"b": 0.105, "c": 0.3}
    b, c = _call(tmp_path, ["base:sft"], scores, *expected, margins=margins)
    assert HALVES[0.05] < 0.105 and 0.025 < b["p_margin"] < 0.05  # type: ignore[operator]
    assert (b["outcome"], b["is_held"], b["verdict"]) == (c["outcome"], c["is_held"], c["verdict"])
    assert (b["outcome"], b["is_held"], b["verdict"]) == ("confirmed", True, "held")
    b, _ = _call(tmp_path, ["base:sft"], scores, margins=margins)
    assert (b["outcome"], b["is_held"]) == (None, False), "without expectations, the margins share alpha"


def test_the_seed_determines_the_rows(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    scores = [_write(tmp_path, model, "b", generator.random(20).round(3).tolist()) for model in SIDES]
    first, again, other = (_call(tmp_path, ["base:sft"], scores, seed=seed) for seed in (1, 1, 2))
    assert first == again and first[0]["ci_low"] != other[0]["ci_low"]
