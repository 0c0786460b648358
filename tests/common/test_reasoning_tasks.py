"""Generated tasks are distinct, have right answers, and are solved step by step."""

import re
from typing import Any

import pytest

from scripts.common.config import PackageDataset
from scripts.common.errors import UserError
from scripts.common.reasoning_tasks import make_questions, solve_chain_sum


def _source(**fields: Any) -> PackageDataset:
    given = {"kind": "package", "package": "reasoning-gym", "task": "chain_sum", "size": 50, "seed": 3} | fields
    return PackageDataset.model_validate(given)


def _value(expression: str) -> int:
    """Evaluate sums and differences with Python."""
    assert re.fullmatch(r"[\d +-]+", expression), expression
    return int(eval(expression))


@pytest.mark.parametrize(
    "parameters", [{}, {"min_terms": 3, "max_terms": 5, "min_digits": 1, "max_digits": 2, "allow_negation": 1}], ids=str
)
def test_answers_are_right(parameters: dict[str, int]) -> None:
    rows = make_questions(_source(parameters=parameters))
    assert len({row["question"] for row in rows}) == len(rows) == 50
    for row in rows:
        found = re.search(r": (-?\d.*\d) =|: (-?\d.*\d)$", row["question"].strip().rstrip("=? ") + " =")
        assert found, row["question"]
        value = _value(found[1])
        assert int(row["answer"]) == value, row
        assert row["solution"].endswith(f"Answer: {value}"), row
        steps = row["solution"].removesuffix(f". Answer: {value}").split("; ")
        for step in steps:
            left, right = step.split(" = ")
            assert _value(left) == int(right), row


def test_the_solution_of_a_long_chain() -> None:
    assert solve_chain_sum("8 + 2 - 17 - 1") == "8 + 2 = 10; 10 - 17 = -7; -7 - 1 = -8. Answer: -8"


def test_the_seed_determines_the_questions() -> None:
    assert make_questions(_source()) == make_questions(_source())
    others = {row["question"] for row in make_questions(_source(seed=1_000_000))}
    assert len(others & {row["question"] for row in make_questions(_source())}) < 10


def test_more_questions_than_exist_are_refused() -> None:
    """Two one-digit numbers have at most 200 distinct sums and differences."""
    two_digits = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    with pytest.raises(UserError) as caught:
        make_questions(_source(size=300, parameters=two_digits))
    found = re.fullmatch(
        r"source.size: chain_sum gave only (\d+) distinct questions in 12000 items; use a smaller size",
        str(caught.value),
    )
    assert found and 100 < int(found[1]) <= 200


@pytest.mark.parametrize("parameters", [{"max_termz": 3}, {"min_terms": 5, "max_terms": 2}], ids=str)
def test_parameters_that_the_task_rejects(parameters: dict[str, int]) -> None:
    with pytest.raises(UserError) as caught:
        make_questions(_source(parameters=parameters))
    assert str(caught.value).startswith("source.parameters: chain_sum rejects ")
    assert "\n" not in str(caught.value)
