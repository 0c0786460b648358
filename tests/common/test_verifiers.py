"""Which answers count as right, by a pattern and by mathematical value."""

import pytest

from scripts.common.verifiers import make_verifier, parse_right


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("8 + 2 = 10; 10 - 7 = 3. Answer: 3", "3", True),
        ("3. No, wait: 4", "3", False),
        ("-3", "3", False),
        ("Answer: -3.", "-3", True),
        ("I do not know", "3", False),
        ("", "3", False),
        ("13", "3", False),
        ("3", " 3 ", True),
    ],
)
def test_the_last_number_counts(text: str, answer: str, right: bool) -> None:
    assert make_verifier("pattern", r"-?\d+")(text, answer) is right


def test_the_group_of_the_pattern_counts() -> None:
    is_right = make_verifier("pattern", r"Answer: (\w+)|none")
    assert is_right("Answer: no. Answer: yes.", "yes")
    assert not is_right("Answer: yes", "Answer: yes")
    assert not is_right("Answer: yes, or none", "yes"), "the group is not part of the last match"


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        (r"So it is \boxed{\frac{1}{2}}.", "0.5", True),
        (r"So it is \boxed{0.5}.", r"\frac{1}{2}", True),
        (r"First \boxed{3}, no: \boxed{4}", "3", False),
        (r"\boxed{2 + 3}", "5", True),
        (r"\boxed{(1, 2)}", "(1,2)", True),
        (r"\boxed{(2, 1)}", "(1,2)", False),
        (r"\boxed{x^2 + 2x + 1}", "$(x+1)^2$", True),
        (r"\boxed{\sqrt{8}}", r"2\sqrt{2}", True),
        ("The answer is 1,234.", "1234", True),
        ("The answer is 72.0", "72", True),
        ("The answer is 73", "72", False),
        ("I do not know", "72", False),
        ("", "72", False),
    ],
)
def test_answers_are_compared_by_value(text: str, answer: str, right: bool) -> None:
    assert make_verifier("math", "unused")(text, answer) is right


def test_text_without_mathematics_is_not_parsed() -> None:
    assert parse_right("72") and parse_right(r"\text{even}") is not None
    assert not parse_right("")
