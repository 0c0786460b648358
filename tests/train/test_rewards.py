"""What GRPO rewards, on answers as TRL hands them over."""

import pytest
from datasets import Dataset

from scripts.common.config import Rewards
from scripts.common.errors import UserError
from scripts.train.rewards import Completion, make_rewards


def _rows(*answers: str | None) -> Dataset:
    return Dataset.from_dict({"answer": list(answers)})


def _said(*texts: str) -> list[Completion]:
    return [[{"role": "assistant", "content": text}] for text in texts]


def test_answers_form_and_length() -> None:
    rewards = Rewards(answer_pattern=r"Answer: (\d+)", format=r"Answer: \d+", max_characters=10)
    answer, form, length = make_rewards(rewards, "mine", _rows("3", "3"))
    completions = _said("Answer: 3", "It is 3, I say.")
    assert answer(completions=completions, answer=["3", "3"]) == [1, 0]
    assert form(completions=completions) == [1, 0]
    assert length(completions=completions) == [1, 0.5]


def test_answers_as_mathematics() -> None:
    (reward,) = make_rewards(Rewards(verify="math"), "mine", _rows("0.5", r"\frac{1}{2}"))
    completions = _said(r"So \boxed{\frac{2}{4}}", r"So \boxed{5}")
    assert reward(completions=completions, answer=["0.5", r"\frac{1}{2}"]) == [1, 0]


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        (["3", None], "stages.mine.rewards.answer: 1 of 2 rows have no answer to verify against"),
        (
            ["3", ""],
            "stages.mine.rewards.verify: 1 of 2 rows have an answer that math-verify cannot read, such as ''; mend "
            "them, or set it to pattern",
        ),
    ],
)
def test_rows_that_cannot_be_verified_are_told(answers: list[str | None], line: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rewards(Rewards(verify="math"), "mine", _rows(*answers))
    assert str(caught.value) == line
