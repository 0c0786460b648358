"""Differences are tested in pairs, corrected for their number, and called by what the numbers allow."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json, write_json_lines
from scripts.evaluate.compare_models import (
    Family,
    adjust_holm,
    compare,
    lowest_difference,
    mcnemar,
    newcombe,
    paired_test,
    read_items,
    smallest_difference,
    verdict,
)
from tests.common.running import error_lines, run_script

Values = np.ndarray[Any, np.dtype[np.float64]]

ONE = Family(alpha=0.05, seed=1)
"""A comparison by itself."""

KEYS = [
    "benchmark",
    "metric",
    "baseline",
    "model",
    "n",
    "baseline_score",
    "model_score",
    "difference",
    "ci_low",
    "ci_high",
    "smallest_difference",
    "margin",
    "is_held",
    "p_value",
    "p_adjusted",
    "verdict",
]


def _table(both: int, lost: int, gained: int, neither: int) -> tuple[Values, Values]:
    """Scores before and after with these counts."""
    before = [1.0] * (both + lost) + [0.0] * (gained + neither)
    after = [1.0] * both + [0.0] * lost + [1.0] * gained + [0.0] * neither
    return np.array(before), np.array(after)


TABLES = st.tuples(*[st.integers(0, 12)] * 4).filter(lambda counts: sum(counts) > 0)


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    [
        (0, 0, 1.0),
        (3, 3, 1.0),
        (1, 7, 2 * (1 + 8) / 2**8),
        (0, 5, 2 / 2**5),
        (10, 2, 2 * (1 + 12 + 66) / 2**12),
    ],
)
def test_mcnemar_by_hand(lost: int, gained: int, p_value: float) -> None:
    for both, neither in ((0, 0), (40, 7)):
        if lost + gained + both + neither:
            assert mcnemar(*_table(both, lost, gained, neither)) == pytest.approx(p_value)


@given(TABLES)
def test_mcnemar_is_a_sign_test_of_what_changed(counts: tuple[int, int, int, int]) -> None:
    _, lost, gained, _ = counts
    smaller = stats.binom.cdf(min(lost, gained), lost + gained, 0.5)
    assert mcnemar(*_table(*counts)) == pytest.approx(min(1.0, 2 * smaller))


@given(TABLES)
def test_mcnemar_against_statsmodels(counts: tuple[int, int, int, int]) -> None:
    both, lost, gained, neither = counts
    theirs = mcnemar_of_statsmodels([[both, lost], [gained, neither]], exact=True)
    assert mcnemar(*_table(*counts)) == pytest.approx(float(theirs.pvalue))


@given(TABLES, st.sampled_from([0.01, 0.05, 0.2]))
def test_newcombe_of_independent_halves_joins_the_intervals_of_statsmodels(
    counts: tuple[int, int, int, int], alpha: float
) -> None:
    """Where the two scores are not correlated, it is Wilson's two intervals, joined as the sides of a right angle."""
    both, lost, gained, neither = counts
    n = sum(counts)
    before, after = _table(*counts)
    if both * neither - gained * lost < 0 or both * neither - gained * lost > n / 2:
        return
    (old_low, old_high), (new_low, new_high) = (
        proportion_confint(int(values.sum()), n, alpha, method="wilson") for values in (before, after)
    )
    difference = after.mean() - before.mean()
    low = difference - np.hypot(after.mean() - new_low, old_high - before.mean())
    high = difference + np.hypot(new_high - after.mean(), before.mean() - old_low)
    assert newcombe(before, after, alpha) == pytest.approx((low, high), abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_against_statsmodels(p_values: list[float]) -> None:
    assert adjust_holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_newcombe_against_a_published_example() -> None:
    """Airway hyper-responsiveness before and after stem cell transplantation, 21 children.

    Fagerland, Lydersen, Laake, Statistics in Medicine 33 (2014) 2850-2875: difference -0.286, Newcombe's square-and-add
    interval -0.507 to -0.026.
    """
    before, after = _table(both=1, lost=7, gained=1, neither=12)
    assert after.mean() - before.mean() == pytest.approx(-0.286, abs=5e-4)
    assert newcombe(before, after, 0.05) == pytest.approx((-0.507, -0.026), abs=5e-4)


@given(TABLES, st.sampled_from([0.01, 0.05, 0.2]))
def test_newcombe_holds_the_difference_and_knows_no_direction(counts: tuple[int, int, int, int], alpha: float) -> None:
    before, after = _table(*counts)
    low, high = newcombe(before, after, alpha)
    assert -1 - 1e-9 <= low <= after.mean() - before.mean() + 1e-9
    assert after.mean() - before.mean() - 1e-9 <= high <= 1 + 1e-9
    assert newcombe(after, before, alpha) == pytest.approx((-high, -low))
    wide_low, wide_high = newcombe(before, after, alpha / 2)
    assert wide_low <= low + 1e-9 and high <= wide_high + 1e-9


def test_holm_by_hand() -> None:
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_holm([0.9, 0.6]) == [1.0, 1.0]
    assert adjust_holm([0.02]) == [0.02]
    assert adjust_holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_is_no_stricter_than_bonferroni(p_values: list[float]) -> None:
    adjusted = adjust_holm(p_values)
    for p_value, one in zip(p_values, adjusted, strict=True):
        assert p_value <= one <= min(1.0, len(p_values) * p_value) or one == 1.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    ranked = [adjusted[i] for i in order]
    assert ranked == sorted(ranked)
    assert [adjusted[-1 - i] for i in range(len(adjusted))] == pytest.approx(adjust_holm(p_values[::-1])), (
        "order is no matter"
    )


def test_shares_are_tested_by_flipping_signs() -> None:
    """Five items, all better: of the 32 ways to flip the signs, two are as extreme."""
    before, after = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    p_value, low, high = paired_test(before, after, ONE)
    assert p_value == pytest.approx(2 / 32)
    assert 0.1 <= low < 0.3 < high <= 0.5
    assert paired_test(before, after, ONE) == (p_value, low, high), "the seed decides"
    swapped = paired_test(after, before, ONE)
    assert swapped[0] == pytest.approx(p_value)


def test_no_change_at_all() -> None:
    shares = np.array([0.1, 0.25, 0.3])
    assert paired_test(shares, shares.copy(), ONE) == (1.0, 0.0, 0.0)


def test_one_item_says_nothing() -> None:
    p_value, low, high = paired_test(np.array([0.5]), np.array([0.75]), ONE)
    assert p_value == 1.0 and low <= 0 and high >= 0.25


@pytest.mark.parametrize(
    ("difference", "p_adjusted", "words"),
    [
        (0.1, 0.049, "improved"),
        (-0.1, 0.049, "worsened"),
        (0.1, 0.05, "no difference found"),
        (-0.5, 0.8, "no difference found"),
    ],
)
def test_verdict(difference: float, p_adjusted: float, words: str) -> None:
    assert verdict(difference, p_adjusted, 0.05) == words


def test_a_margin_that_holds_is_told_where_no_difference_was_found() -> None:
    assert verdict(-0.01, 0.5, 0.05, is_held=True) == "held"
    assert verdict(-0.01, 0.5, 0.05, is_held=False) == "no difference found"
    assert verdict(-0.01, 0.01, 0.05, is_held=True) == "worsened", "a fall within the margin is still one"
    both = _scores("base", {str(i): float(i % 2) for i in range(200)})
    assert compare(both, both | {"model": "sft"}, ONE, margin=0.05)["is_held"] is True
    assert compare(both, both | {"model": "sft"}, ONE, margin=0.001)["is_held"] is False
    assert compare(both, both | {"model": "sft"}, ONE)["is_held"] is None


def test_the_smallest_difference_is_found_in_four_of_five_cases() -> None:
    """Of pairs whose true mean difference it is, and that disagree as often as those it was worked out from."""
    generator = np.random.default_rng(3)
    n = 300
    before, after = _table(both=150, lost=30, gained=30, neither=90)
    smallest = smallest_difference(before, after, 0.05)
    found = 0
    for _ in range(1_000):
        drawn = generator.multinomial(n, [0.5, 0.1 - smallest / 2, 0.1 + smallest / 2, 0.3])
        found += mcnemar(*_table(*drawn)) < 0.05
    assert 0.70 < found / 1_000 < 0.85, "the exact test finds a little less than the approximation says"


@pytest.mark.parametrize("kind", ["right or wrong", "graded"])
def test_few_null_comparisons_are_called_differences(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 runs in which nothing differs, three comparisons each: at most one in twenty says that something does."""
    monkeypatch.setattr("scripts.evaluate.compare_models.RESAMPLES", 400)
    generator = np.random.default_rng(11)
    claims = 0
    for run in range(1_000):
        difficulty = generator.beta(2, 2, size=60)
        rows = []
        for benchmark in range(3):
            if kind == "graded":
                before, after = (np.round(generator.beta(8 * difficulty, 8 * (1 - difficulty)), 2) for _ in range(2))
            else:
                before, after = (generator.random((2, 60)) < difficulty).astype(float)
            p_value, _, _ = paired_test(before, after, Family(0.05, 3 * run + benchmark))
            rows.append((float(after.mean() - before.mean()), p_value))
        adjusted = adjust_holm([p_value for _, p_value in rows])
        said = [verdict(difference, p, 0.05) for (difference, _), p in zip(rows, adjusted, strict=True)]
        claims += any(word in ("improved", "worsened") for word in said)
    assert claims / 1_000 <= 0.05


@pytest.mark.parametrize("kind", ["right or wrong", "graded"])
def test_few_falls_by_the_margin_are_called_held(kind: str) -> None:
    """1,000 runs in which three benchmarks fall by just what is tolerated: at most one in twenty holds any of them."""
    generator = np.random.default_rng(5)
    margin, n = 0.1, 120
    family = Family(0.05, 0, comparisons=3, margins=3)
    claims = 0
    for _ in range(1_000):
        held = False
        for _ in range(3):
            if kind == "graded":
                before = generator.beta(4, 4, size=n)
                after = before - margin + generator.normal(0, 0.2, size=n)
            else:
                before, after = _table(*generator.multinomial(n, [0.4, 0.05 + margin, 0.05, 0.5 - margin]))
            held |= lowest_difference(before, after, family.alpha_of_a_margin) > -margin
        claims += held
    assert claims / 1_000 <= 0.05


def test_many_comparisons_are_drawn_often_enough() -> None:
    """The smallest p value that resampling can give is significant after Holm's correction, however many there are."""
    for comparisons in (1, 250, 5_000):
        family = Family(0.05, 0, comparisons=comparisons)
        assert family.resamples >= 10_000 and comparisons * 2 / (family.resamples + 1) < family.alpha


def test_equal_rows_are_items_of_their_own(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "b.items.jsonl", [{"key": "x", "score": s} for s in (0.0, 1.0, 1.0)])
    assert read_items(tmp_path / "b.json") == {"x": 0.0, "x (2)": 1.0, "x (3)": 1.0}


def _scores(model: str, items: dict[str, float], protocol: str = "five shots") -> dict[str, Any]:
    return {"model": model, "benchmark": "b", "metric": "acc", "protocol": protocol, "items": items}


def test_items_are_paired_by_key_and_not_by_place() -> None:
    one = _scores("base", {"x": 0.0, "y": 1.0, "z": 1.0})
    other = _scores("sft", {"z": 1.0, "y": 1.0, "x": 0.0})
    row = compare(one, other, ONE)
    assert (row["p_value"], row["difference"], row["n"]) == (1.0, 0.0, 3)
    same = np.array([0.0, 1.0, 1.0])
    # Paired by place, x would have been won and z lost: the interval would be another.
    assert (row["ci_low"], row["ci_high"]) == newcombe(same, same, 0.05)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (_scores("sft", {"x": 1.0, "z": 1.0}), "scored on different items"),
        (_scores("sft", {"x": 1.0}), "scored on different items"),
        (_scores("sft", {"x": 1.0, "y": 0.0}, "no shots"), "scored under different protocols"),
    ],
)
def test_what_cannot_be_compared_is_refused(other: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        compare(_scores("base", {"x": 1.0, "y": 0.0}), other, ONE)
    assert str(caught.value) == f"sft against base on b: {words}; run both again"


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


def _run(folder: Path, pairs: list[str], scores: list[Path]) -> subprocess.CompletedProcess[str]:
    names = {"output": "comparison.json", "manifest": "comparison.manifest.json"}
    return run_script("evaluate.compare_models", folder, alpha=0.05, seed=1, pairs=pairs, scores=scores, **names)


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
    assert manifest["facts"]["comparisons"] == 6 and len(manifest["inputs"]) == 6


def test_script_refuses_unequal_items(tmp_path: Path) -> None:
    scores = [_write(tmp_path, "base", "b", [1.0, 0.0]), _write(tmp_path, "sft", "b", [1.0, 0.0, 1.0])]
    run = _run(tmp_path, ["base:sft"], scores)
    assert error_lines(run) == ["error: sft against base on b: scored on different items; run both again"]
    assert not (tmp_path / "comparison.json").exists()


def test_graded_scores_that_do_not_vary_hold_nothing_by_themselves() -> None:
    few, many = np.full(2, 0.5), np.full(400, 0.5)
    assert lowest_difference(few, few, 0.05) < -0.02, "two items say little about others"
    assert lowest_difference(many, many, 0.05) > -0.02
    assert lowest_difference(many, many - 0.1, 0.05) <= -0.1
    one = np.full(1, 0.5)
    assert paired_test(one, one, ONE) == (1.0, -1.0, 1.0)
