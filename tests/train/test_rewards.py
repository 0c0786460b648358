"""The rewards of GRPO for answers in the form that TRL passes."""

from pathlib import Path

import pytest
from datasets import Dataset

from scripts.common.config import Rewards
from scripts.common.errors import UserError
from scripts.train.rewards import Completion, make_rewards


def _rows(*answers: str | None) -> Dataset:
    return Dataset.from_dict({"answer": list(answers)})


def _answers(*texts: str) -> list[Completion]:
    return [[{"role": "assistant", "content": text}] for text in texts]


def test_answer_format_and_length() -> None:
    rewards = Rewards(answer_pattern=r"Answer: (\d+)", format=r"Answer: \d+", max_characters=10)
    answer, form, length = make_rewards(rewards, "mine", _rows("3", "3"))
    completions = _answers("Answer: 3", "It is 3, I say.")
    assert answer(completions=completions, answer=["3", "3"]) == [1, 0]
    assert form(completions=completions) == [1, 0]
    assert length(completions=completions) == [1, 0.5]


def test_the_format_must_match_the_complete_answer() -> None:
    """Surrounding white space is ignored, and `.` matches a line feed."""
    (form,) = make_rewards(Rewards(answer=False, format=r"<think>.*</think> \d+"), "mine", _rows("3"))
    right, more, before = "<think>a\nb</think> 3", "<think>a</think> 3 or 4", "So <think>a</think> 3"
    assert form(completions=_answers(right, f" {right}\n", more, before)) == [1, 1, 0, 0]


def test_the_reward_for_length_falls_to_zero() -> None:
    (length,) = make_rewards(Rewards(answer=False, max_characters=10), "mine", _rows("3"))
    assert length(completions=_answers("", "x" * 10, "x" * 12, "x" * 20, "x" * 35)) == pytest.approx([1, 1, 0.8, 0, 0])


def test_a_user_function_gets_each_answer_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def points(text, row):\n    return (text == row['answer']) + len(row['prompt'][0]['content']) / 10\n"
    )
    functions = {"points": f"{tmp_path / 'mine.py'}:points"}
    (own,) = make_rewards(Rewards(answer=False, functions=functions), "mine", _rows("3", "4"))
    assert own.__name__ == "points_reward", "TRL logs it under this name"
    completions, prompts = _answers("3", "3", "4"), _answers("a", "bb", "ccc")
    assert own(prompts=prompts, completions=completions, answer=["3", "4", "4"]) == pytest.approx([1.1, 0.2, 1.3])


def test_a_failing_user_function_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def points(text, row):\n    return 1 / len(text)\n")
    functions = {"points": f"{tmp_path / 'mine.py'}:points"}
    (own,) = make_rewards(Rewards(answer=False, functions=functions), "mine", _rows("3"))
    with pytest.raises(UserError, match=r"^stages\.mine\.rewards\.functions\.points: failed on an answer: ZeroDiv"):
        own(prompts=_answers("a"), completions=_answers(""), answer=["3"])


def test_the_last_turn_of_a_completion_is_the_answer() -> None:
    (answer,) = make_rewards(Rewards(answer_pattern=r"\d+"), "mine", _rows("3"))
    turns = [{"role": role, "content": text} for role, text in (("assistant", "5"), ("tool", "4"), ("assistant", "3"))]
    assert answer(completions=[turns], answer=["3"]) == [1]


def test_mathematical_answers() -> None:
    (reward,) = make_rewards(Rewards(verify="math"), "mine", _rows("0.5", r"\frac{1}{2}"))
    completions = _answers(r"So \boxed{\frac{2}{4}}", r"So \boxed{5}")
    assert reward(completions=completions, answer=["0.5", r"\frac{1}{2}"]) == [1, 0]


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        (["3", None], "stages.mine.rewards.answer: 1 of 2 rows have no answer to verify against"),
        (
            ["3", ""],
            "stages.mine.rewards.verify: 1 of 2 rows have an answer that math-verify cannot read, such as ''; fix "
            "them, or set it to pattern",
        ),
    ],
)
def test_rows_that_cannot_be_verified_are_refused(answers: list[str | None], line: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rewards(Rewards(verify="math"), "mine", _rows(*answers))
    assert str(caught.value) == line
