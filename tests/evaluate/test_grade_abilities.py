"""Mean scores by ability, with intervals and grades."""

from pathlib import Path

import numpy as np
import pytest

from scripts.common.files import read_json, write_json
from scripts.common.records import Score
from scripts.evaluate.grade_abilities import grade
from scripts.evaluate.scores import mean_interval
from tests.common.running import call_main
from tests.report.tables import change, make_score

GRADES = {"weak": 0.0, "fair": 0.4, "good": 0.6}


def _score(benchmark: str, right: int, n: int, model: str = "base") -> Score:
    low, high = mean_interval(np.array([1.0] * right + [0.0] * (n - right)))
    return change(make_score(model, benchmark, "acc", right / n, n), ci_low=low, ci_high=high)


def test_a_single_benchmark_keeps_its_interval() -> None:
    one = _score("a", 0, 20)
    row = grade([one], GRADES)
    numbers = [row["n"], row["score"], row["ci_low"], row["ci_high"]]
    assert numbers == pytest.approx([20, 0.0, 0.0, one["ci_high"]])


def test_mean_of_two_benchmarks_by_hand() -> None:
    scores = [
        change(make_score("base", "a", "acc", 0.5, n=10), ci_low=0.2, ci_high=0.9),
        change(make_score("base", "b", "acc", 0.7, n=30), ci_low=0.3, ci_high=1.0),
    ]
    row = grade(scores, GRADES)
    assert row["benchmarks"] == ["a", "b"] and row["n"] == 40
    assert [row["score"], row["ci_low"], row["ci_high"]] == pytest.approx([0.6, 0.6 - 0.25, 0.6 + 0.25])
    scores[0] |= {"ci_low": 0.44, "ci_high": 0.9}
    scores[1] |= {"ci_low": 0.62, "ci_high": 1.0}
    row = grade(scores, GRADES)
    # Half the square root of 0.06^2 + 0.08^2 below, and of 0.4^2 + 0.3^2 above.
    assert [row["score"], row["ci_low"], row["ci_high"]] == pytest.approx([0.6, 0.6 - 0.05, 0.6 + 0.25])


def test_coverage_of_the_interval_is_95_percent() -> None:
    """Two benchmarks of 60 and 150 items whose true scores are 0.3 and 0.8."""
    generator = np.random.default_rng(5)
    drawn = zip(generator.binomial(60, 0.3, 2_000), generator.binomial(150, 0.8, 2_000), strict=True)
    rows = [grade([_score("a", int(a), 60), _score("b", int(b), 150)], GRADES) for a, b in drawn]
    held = np.mean([row["ci_low"] <= 0.55 <= row["ci_high"] for row in rows])
    assert 0.935 < held < 0.97


@pytest.mark.parametrize(("right", "name"), [(0, "weak"), (39, "weak"), (40, "fair"), (59, "fair"), (60, "good")])
def test_grades(right: int, name: str) -> None:
    assert grade([_score("a", right, 100)], GRADES)["grade"] == name


def test_script(tmp_path: Path) -> None:
    paths = []
    for model, right in (("base", 2), ("sft", 18)):
        for benchmark in ("a", "b", "c"):
            paths.append(tmp_path / f"{model}-{benchmark}.json")
            write_json(paths[-1], _score(benchmark, right, 20, model))
    abilities = {"a": "knowledge", "b": "knowledge", "c": "mathematics"}
    call_main(
        "evaluate.grade_abilities", tmp_path, grades=GRADES, abilities=abilities, scores=paths, output="abilities.json"
    )
    rows = read_json(tmp_path / "abilities.json")
    assert [(row["ability"], row["model"], row["benchmarks"], row["grade"]) for row in rows] == [
        ("knowledge", "base", ["a", "b"], "weak"),
        ("mathematics", "base", ["c"], "weak"),
        ("knowledge", "sft", ["a", "b"], "good"),
        ("mathematics", "sft", ["c"], "good"),
    ]
