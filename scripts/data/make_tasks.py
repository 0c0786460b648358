"""Questions with worked answers that can be verified, made by reasoning-gym."""

from typing import Any

import reasoning_gym

from scripts.common.data_config import PackageDataset
from scripts.common.errors import UserError

ITEMS_A_QUESTION = 40
"""How many items we are ready to make for each different question that is wanted."""


def make_tasks(source: PackageDataset) -> list[dict[str, Any]]:
    """`source.size` different questions.

    Returns:
        Rows with `question`, `solution` (worked, ending in "Answer: x") and `answer` (the number as text).

    Raises:
        UserError: the parameters are refused by the task, or do not allow so many different questions.
    """
    most = source.size * ITEMS_A_QUESTION
    try:
        items = reasoning_gym.create_dataset(source.task, size=most, seed=source.seed, **source.parameters)
    except (TypeError, AssertionError) as error:
        raise UserError(f"source.parameters: {source.task} refuses {source.parameters}: {error}") from error
    rows: dict[str, dict[str, Any]] = {}
    for item in items:
        if len(rows) == source.size:
            break
        row = {
            "question": item["question"],
            "solution": solve_chain_sum(item["metadata"]["expression"]),
            "answer": item["answer"],
        }
        rows.setdefault(item["question"], row)
    if len(rows) < source.size:
        raise UserError(
            f"source.size: {source.task} gave {len(rows)} different questions in {most} items; ask for fewer"
        )
    return list(rows.values())


def solve_chain_sum(expression: str) -> str:
    """Work out a chain of additions and subtractions from left to right.

    >>> solve_chain_sum("8 + 2 - 7")
    '8 + 2 = 10; 10 - 7 = 3. Answer: 3'
    """
    first, *rest = expression.split()
    total, steps = int(first), []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        result = total + int(term) if sign == "+" else total - int(term)
        steps.append(f"{total} {sign} {term} = {result}")
        total = result
    return f"{'; '.join(steps)}. Answer: {total}"
