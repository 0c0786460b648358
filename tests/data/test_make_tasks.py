"""Made tasks are different, right, and worked out step by step."""

import re
from typing import Any

import pytest

from scripts.common.data_config import PackageDataset
from scripts.common.errors import UserError
from scripts.data.make_tasks import make_tasks, solve_chain_sum


def _source(**fields: Any) -> PackageDataset:
    given = {"kind": "package", "package": "reasoning-gym", "task": "chain_sum", "size": 50, "seed": 3} | fields
    return PackageDataset.model_validate(given)


def _value(expression: str) -> int:
    """Python's own arithmetic, on sums and differences only."""
    assert re.fullmatch(r"[\d +-]+", expression), expression
    return int(eval(expression))


@pytest.mark.parametrize(
    "parameters", [{}, {"min_terms": 3, "max_terms": 5, "min_digits": 1, "max_digits": 2, "allow_negation": 1}], ids=str
)
def test_answers_are_right(parameters: dict[str, int]) -> None:
    rows = make_tasks(_source(parameters=parameters))
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


def test_solution_of_a_long_chain() -> None:
    assert solve_chain_sum("8 + 2 - 17 - 1") == "8 + 2 = 10; 10 - 17 = -7; -7 - 1 = -8. Answer: -8"


def test_the_seed_decides() -> None:
    assert make_tasks(_source()) == make_tasks(_source())
    others = {row["question"] for row in make_tasks(_source(seed=1_000_000))}
    assert len(others & {row["question"] for row in make_tasks(_source())}) < 10


def test_more_questions_than_there_are_is_refused() -> None:
    """Two one-digit numbers make at most 200 different sums and differences."""
    two_digits = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    with pytest.raises(UserError) as caught:
        make_tasks(_source(size=300, parameters=two_digits))
    found = re.fullmatch(
        r"source.size: chain_sum gave (\d+) different questions in 12000 items; ask for fewer", str(caught.value)
    )
    assert found and 100 < int(found[1]) <= 200


@pytest.mark.parametrize("parameters", [{"max_termz": 3}, {"min_terms": 5, "max_terms": 2}], ids=str)
def test_parameters_that_the_task_refuses(parameters: dict[str, int]) -> None:
    with pytest.raises(UserError) as caught:
        make_tasks(_source(parameters=parameters))
    assert str(caught.value).startswith("source.parameters: chain_sum refuses ")
    assert "\n" not in str(caught.value)
