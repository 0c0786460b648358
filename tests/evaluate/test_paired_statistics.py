"""Paired tests and intervals against numbers worked out by hand, published examples, statsmodels and simulated runs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from scripts.evaluate.paired_statistics import (
    SMALLEST_ALPHA,
    Family,
    Tested,
    adjust_holm,
    conclude,
    judge,
    lowest_difference,
    mcnemar,
    newcombe,
    p_above,
    paired_test,
    smallest_difference,
)
from tests.evaluate.pairs import make_pairs

ONE = Family(alpha=0.05, seed=1)
"""A family of one comparison."""

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
            assert mcnemar(*make_pairs(both, lost, gained, neither)) == pytest.approx(p_value)


@given(TABLES)
def test_mcnemar_is_a_sign_test_of_the_changed_items(counts: tuple[int, int, int, int]) -> None:
    _, lost, gained, _ = counts
    smaller = stats.binom.cdf(min(lost, gained), lost + gained, 0.5)
    assert mcnemar(*make_pairs(*counts)) == pytest.approx(min(1.0, 2 * smaller))


@given(TABLES)
def test_mcnemar_against_statsmodels(counts: tuple[int, int, int, int]) -> None:
    both, lost, gained, neither = counts
    theirs = mcnemar_of_statsmodels([[both, lost], [gained, neither]], exact=True)
    assert mcnemar(*make_pairs(*counts)) == pytest.approx(float(theirs.pvalue))


@given(TABLES, st.sampled_from([0.01, 0.05, 0.2]))
def test_newcombe_of_uncorrelated_scores_combines_the_intervals_of_statsmodels(
    counts: tuple[int, int, int, int], alpha: float
) -> None:
    """If phi is 0, the margins are the roots of the summed squares of the margins of Wilson's intervals."""
    both, lost, gained, neither = counts
    n = sum(counts)
    before, after = make_pairs(*counts)
    if both * neither - gained * lost < 0 or both * neither - gained * lost > n / 2:
        return
    (old_low, old_high), (new_low, new_high) = (
        proportion_confint(int(values.sum()), n, alpha, method="wilson") for values in (before, after)
    )
    difference = after.mean() - before.mean()
    low = difference - np.hypot(after.mean() - new_low, old_high - before.mean())
    high = difference + np.hypot(new_high - after.mean(), before.mean() - old_low)
    assert newcombe(before, after, alpha) == pytest.approx((low, high), abs=1e-9)


def test_newcombe_against_a_published_example() -> None:
    """Airway hyper-responsiveness before and after stem cell transplantation, 21 children.

    Fagerland, Lydersen, Laake, Statistics in Medicine 33 (2014) 2850-2875: difference -0.286, Newcombe's square-and-add
    interval -0.507 to -0.026.
    """
    before, after = make_pairs(both=1, lost=7, gained=1, neither=12)
    assert after.mean() - before.mean() == pytest.approx(-0.286, abs=5e-4)
    assert newcombe(before, after, 0.05) == pytest.approx((-0.507, -0.026), abs=5e-4)


@pytest.mark.parametrize(("unchanged", "changed", "phi"), [(75, 25, 0.49), (25, 75, -0.5), (50, 50, 0.0)])
def test_newcombe_of_correlated_scores_by_hand(unchanged: int, changed: int, phi: float) -> None:
    """Both scores are 0.5 with n = 200, so Wilson's margins are all 1.959964 / (2 sqrt(200 + 1.959964^2)) = 0.068639.

    phi is (75^2 - 25^2 - 100) / 100^2, where 100 = n / 2 is the correction of a positive phi; (25^2 - 75^2) / 100^2; 0.
    """
    before, after = make_pairs(both=unchanged, lost=changed, gained=changed, neither=unchanged)
    half = 0.068639 * (2 - 2 * phi) ** 0.5
    assert newcombe(before, after, 0.05) == pytest.approx((-half, half), abs=1e-6)


@given(TABLES, st.sampled_from([0.01, 0.05, 0.2]))
def test_newcombe_contains_the_difference_and_is_antisymmetric(counts: tuple[int, int, int, int], alpha: float) -> None:
    before, after = make_pairs(*counts)
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


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_against_statsmodels(p_values: list[float]) -> None:
    # statsmodels collects garbage in each call, which takes half a second once torch is imported.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.collect", lambda: 0)
        theirs = multipletests(p_values, method="holm")[1].tolist()
    assert adjust_holm(p_values) == pytest.approx(theirs)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_is_at_most_as_strict_as_bonferroni(p_values: list[float]) -> None:
    adjusted = adjust_holm(p_values)
    for p_value, one in zip(p_values, adjusted, strict=True):
        assert p_value <= one <= min(1.0, len(p_values) * p_value) or one == 1.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    ranked = [adjusted[i] for i in order]
    assert ranked == sorted(ranked)
    assert [adjusted[-1 - i] for i in range(len(adjusted))] == pytest.approx(adjust_holm(p_values[::-1])), (
        "it does not depend on the order"
    )


def test_graded_scores_are_tested_by_flipping_signs() -> None:
    """Five items, all better: 2 of the 32 sign patterns are as extreme."""
    before, after = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    p_value, low, high = paired_test(before, after, ONE)
    assert p_value == pytest.approx(2 / 32)
    assert 0.1 <= low < 0.3 < high <= 0.5
    swapped = paired_test(after, before, ONE)
    assert swapped[0] == pytest.approx(p_value)


def test_the_seed_determines_the_draws() -> None:
    """Twenty items have more sign patterns than there are draws, so p depends on the draws, too."""
    before, after = np.random.default_rng(0).random((2, 20))
    first, again, other = (paired_test(before, after, Family(0.05, seed)) for seed in (1, 1, 2))
    assert first == again
    assert all(one != another for one, another in zip(first, other, strict=True))


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_bootstrap_of_many_items_agrees_with_the_normal_approximation(alpha: float) -> None:
    before, after = np.random.default_rng(0).random((2, 400))
    difference = after - before
    half = stats.norm.ppf(1 - alpha / 2) * difference.std(ddof=1) / 20
    _, low, high = paired_test(before, after, Family(alpha, 1))
    assert (difference.mean() - low, high - difference.mean()) == pytest.approx((half, half), rel=0.05)


def test_scores_without_any_change() -> None:
    shares = np.array([0.1, 0.25, 0.3])
    assert paired_test(shares, shares.copy(), ONE) == (1.0, 0.0, 0.0)


def test_a_single_item_proves_nothing() -> None:
    p_value, low, high = paired_test(np.array([0.5]), np.array([0.75]), ONE)
    assert p_value == 1.0 and low <= 0 and high >= 0.25


def test_many_comparisons_get_enough_draws() -> None:
    """The smallest p value of resampling is significant after Holm's correction, for any number of comparisons."""
    for comparisons in (1, 250, 5_000):
        family = Family(0.05, 0, comparisons=comparisons)
        assert family.resamples >= 10_000 and comparisons * 2 / (family.resamples + 1) < family.alpha


def test_the_smallest_difference_by_hand() -> None:
    """It is z(0.975) + z(0.8) = 1.959964 + 0.841621 standard errors, with one gained pair added.

    24 pairs without a change and the added one have the mean 0.04 and the variance 0.04 * 0.96, so the standard error
    for 24 pairs is 0.04.
    """
    same = np.full(24, 0.5)
    assert smallest_difference(same, same, 0.05) == pytest.approx(0.04 * 2.801585, rel=1e-6)
    assert smallest_difference(same, same, 0.05, power=0.5) == pytest.approx(0.04 * 1.959964, rel=1e-6)
    # 49 gained, the added pair, and 50 lost: the standard deviation is 1.
    before, after = make_pairs(both=0, lost=50, gained=49, neither=0)
    assert smallest_difference(before, after, 0.05) == pytest.approx(2.801585 / 99**0.5, rel=1e-6)
    assert smallest_difference(*make_pairs(both=0, lost=1, gained=0, neither=1), 0.05) == 1.0, "the largest difference"


def test_the_smallest_difference_is_detected_in_four_of_five_cases() -> None:
    """Simulated pairs have it as their true mean difference, and disagree as often as the pairs it is computed from."""
    generator = np.random.default_rng(3)
    n = 300
    before, after = make_pairs(both=150, lost=30, gained=30, neither=90)
    smallest = smallest_difference(before, after, 0.05)
    found = 0
    for _ in range(1_000):
        drawn = generator.multinomial(n, [0.5, 0.1 - smallest / 2, 0.1 + smallest / 2, 0.3])
        found += mcnemar(*make_pairs(*drawn)) < 0.05
    assert 0.70 < found / 1_000 < 0.85, "the exact test detects slightly less than the approximation promises"


def test_the_lowest_difference_of_graded_scores_by_hand() -> None:
    """24 pairs without a change and the added one, a loss: mean -0.04, standard deviation 0.2."""
    same = np.full(24, 0.5)
    assert lowest_difference(same, same, 0.05) == pytest.approx(-0.04 - 2.063899 * 0.2 / 24**0.5, rel=1e-6)
    assert lowest_difference(same, same, 0.1) == pytest.approx(-0.04 - 1.710882 * 0.2 / 24**0.5, rel=1e-6)


def test_few_graded_scores_without_variance_do_not_prove_held() -> None:
    few, many = np.full(2, 0.5), np.full(400, 0.5)
    assert lowest_difference(few, few, 0.05) < -0.02, "two items prove little"
    assert lowest_difference(many, many, 0.05) > -0.02
    assert lowest_difference(many, many - 0.1, 0.05) <= -0.1
    one = np.full(1, 0.5)
    assert paired_test(one, one, ONE) == (1.0, -1.0, 1.0)


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
    assert judge(difference, p_adjusted, 0.05) == words


def test_held_is_the_verdict_only_without_a_found_difference() -> None:
    assert judge(-0.01, 0.5, 0.05, is_held=True) == "held"
    assert judge(-0.01, 0.5, 0.05, is_held=False) == "no difference found"
    assert judge(-0.01, 0.01, 0.05, is_held=True) == "worsened", "a drop within the margin is still a drop"


def test_verdicts_use_adjusted_p_values() -> None:
    """Holm's correction of three: 0.01 becomes 0.03, and 0.03, which alone is below 0.05, becomes 0.06."""
    tested = [Tested(0.2, 0.03), Tested(-0.1, 0.01, is_held=True), Tested(-0.01, 0.5, is_held=True)]
    rows = conclude(tested, 0.05)
    assert [(row["family"], row["expected"], row["outcome"]) for row in rows] == [("all", None, None)] * 3
    assert [row["p_adjusted"] for row in rows] == pytest.approx([0.06, 0.03, 0.5])
    assert [row["verdict"] for row in rows] == ["no difference found", "worsened", "held"]
    assert [row["verdict"] for row in conclude(tested, 0.1)] == ["improved", "worsened", "held"]
    verdicts = [row["verdict"] for row in conclude(tested, 0.03)]
    assert verdicts == ["no difference found", "held", "held"], "p must be below alpha"


@pytest.mark.parametrize("kind", ["right or wrong", "graded"])
def test_false_differences_are_rare(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 runs of three comparisons without a true difference: at most one run in twenty claims one."""
    monkeypatch.setattr("scripts.evaluate.paired_statistics.RESAMPLES", 400)
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
        verdicts = [judge(difference, p, 0.05) for (difference, _), p in zip(rows, adjusted, strict=True)]
        claims += any(word in ("improved", "worsened") for word in verdicts)
    assert claims / 1_000 <= 0.05


@pytest.mark.parametrize("kind", ["right or wrong", "graded"])
def test_false_claims_of_held_are_rare(kind: str) -> None:
    """1,000 runs in which three benchmarks drop by exactly the margin: at most one run in twenty claims `held`."""
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
                before, after = make_pairs(*generator.multinomial(n, [0.4, 0.05 + margin, 0.05, 0.5 - margin]))
            held |= lowest_difference(before, after, family.alpha_of_a_margin) > -margin
        claims += held
    assert claims / 1_000 <= 0.05


# --- tests against a margin, and expectations ------------------------------------------------------


def test_a_p_value_against_a_bound_inverts_the_interval() -> None:
    before, after = make_pairs(both=50, lost=20, gained=10, neither=20)
    p_value = p_above(before, after, -0.2)
    assert lowest_difference(before, after, p_value * 1.001) > -0.2 > lowest_difference(before, after, p_value * 0.999)
    assert p_above(before, after, -0.1) == 1.0, "it dropped by exactly this"
    assert p_above(before, after, -0.99) < 1e-6
    assert p_above(*make_pairs(both=5_000, lost=0, gained=0, neither=5_000), -0.5) == SMALLEST_ALPHA
    graded = np.linspace(0.2, 0.9, 250)
    p_value = p_above(graded, graded - 0.01, -0.05)
    assert 0 < p_value < 0.05 and p_above(graded, graded - 0.01, -0.04) > p_value


def test_expectations_are_corrected_by_themselves() -> None:
    """Holm over the p values that count: 0.02 of the score that rises, and 0.03 of the margin; not the 0.001."""
    tested = [
        Tested(0.1, 0.02, expected="improves"),
        Tested(-0.2, 0.001),
        Tested(-0.01, 0.6, is_held=True, p_margin=0.03, p_beyond=1.0, expected="holds"),
    ]
    rises, other, holds = conclude(tested, 0.05)
    assert [row["p_adjusted"] for row in (rises, other, holds)] == pytest.approx([0.04, 0.001, 0.04])
    assert [row["family"] for row in (rises, other, holds)] == ["confirmatory", "exploratory", "confirmatory"]
    assert [row["outcome"] for row in (rises, other, holds)] == ["confirmed", None, "confirmed"]
    assert [row["verdict"] for row in (rises, other, holds)] == ["improved", "worsened", "held"]
    strict = conclude(tested, 0.035)
    assert [row["outcome"] for row in strict] == ["not confirmed", None, "not confirmed"]
    assert [row["verdict"] for row in strict] == ["no difference found", "worsened", "no difference found"]


@pytest.mark.parametrize(
    ("tested", "outcome", "verdict"),
    [
        (Tested(-0.1, 0.001, expected="improves"), "contradicted", "worsened"),
        (Tested(-0.3, 0.001, False, 1.0, 0.001, "holds"), "contradicted", "worsened"),
        (Tested(-0.3, 0.001, False, 1.0, 0.04, "holds"), "not confirmed", "worsened"),
        (Tested(-0.3, 0.04, False, 1.0, 0.04, "holds"), "not confirmed", "no difference found"),
        (Tested(-0.05, 0.001, True, 0.001, 1.0, "holds"), "confirmed", "held"),
    ],
)
def test_outcomes_of_an_expectation_among_two(tested: Tested, outcome: str, verdict: str) -> None:
    row, _ = conclude([tested, Tested(0.0, 1.0, expected="improves")], 0.05)
    assert (row["outcome"], row["verdict"]) == (outcome, verdict)


def _confirm_runs(effect: float, drop: float, runs: int = 1_000) -> list[int]:
    """Confirmed expectations of each of many simulated runs: two scores that should improve, and one that should hold.

    Items are right with their own difficulty, and 30 % of them change. `effect` is added to the scores that should
    improve. The score that should hold, with a margin of 0.1, drops by `drop`.
    """
    generator = np.random.default_rng(17)
    counts = []
    for _ in range(runs):
        tested = []
        for n, shift, margin in ((150, effect, None), (90, effect, None), (300, -drop, 0.1)):
            changed = 0.3
            shares = [0.35, (changed - shift) / 2, (changed + shift) / 2, 0.35]
            before, after = make_pairs(*generator.multinomial(n, shares))
            p_value = mcnemar(before, after)
            difference = float((after - before).mean())
            if margin is None:
                tested.append(Tested(difference, p_value, expected="improves"))
            else:
                p_margin = p_above(before, after, -margin)
                tested.append(Tested(difference, p_value, None, p_margin, p_beyond=1.0, expected="holds"))
        counts.append(sum(row["outcome"] == "confirmed" for row in conclude(tested, 0.05)))
    return counts


def test_false_confirmations_are_rare() -> None:
    """1,000 runs in which nothing improves, and the score that should hold drops by its margin."""
    counts = _confirm_runs(effect=0.0, drop=0.1)
    assert sum(count > 0 for count in counts) / len(counts) <= 0.05


def test_effects_of_the_planned_size_are_confirmed() -> None:
    """1,000 runs with a true gain of 20 points, and no drop: at least four fifths confirm all three expectations."""
    counts = _confirm_runs(effect=0.2, drop=0.0)
    assert sum(count == 3 for count in counts) / len(counts) >= 0.8
