"""Answers are marked as cut in the order in which lm-eval reports them."""

from scripts.evaluate.cut_answers import CutAnswers


def test_a_prompt_with_several_answers_is_cut_if_one_of_them_is() -> None:
    cut = CutAnswers()
    cut.expect([False, True, False])
    for prompt in ("a", "b", "b"):
        cut.add_partial("generate_until", (prompt, {}), "answer")
    cut.add_partial("loglikelihood", ("c", "d"), (0.0, True))
    assert cut.by_prompt == {"a": False, "b": True}
