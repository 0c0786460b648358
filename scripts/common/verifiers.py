"""Checks whether a text gives the right answer: by a pattern, or by mathematical value."""

import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from math_verify import parse, verify

from scripts.common.config import Verify

Verifier = Callable[[str, str], bool]
"""Called with a text and the right answer; returns whether they agree."""


def make_verifier(how: Verify, pattern: str) -> Verifier:
    """The verifier for the keys `verify` and `answer_pattern` of the configuration."""
    return is_equal if how == "math" else partial(is_match, pattern=re.compile(pattern))


def is_match(text: str, answer: str, pattern: re.Pattern[str]) -> bool:
    """Whether the last match of the pattern, or its first group if it has one, equals the answer."""
    found = [match[1] if pattern.groups else match[0] for match in pattern.finditer(text)]
    return bool(found) and found[-1] is not None and found[-1].strip() == answer.strip()


def is_equal(text: str, answer: str) -> bool:
    r"""Whether the result in a text, in \boxed{}, between $ or as a plain number, has the value of the answer.

    math-verify parses and compares both.
    """
    return bool(verify(list(parse_right(answer)), parse(text)))


@lru_cache(maxsize=100_000)
def parse_right(answer: str) -> tuple[Any, ...]:
    """A right answer as math-verify parses it; empty if it cannot."""
    is_marked = "$" in answer or "\\boxed" in answer
    return tuple(parse(answer if is_marked else f"\\boxed{{{answer}}}"))
