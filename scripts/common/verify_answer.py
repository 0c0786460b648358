"""Whether a text gives the right answer: by a pattern that finds it, or as mathematics."""

import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from math_verify import parse, verify

from scripts.common.data_config import Verify

Verifier = Callable[[str, str], bool]
"""Takes a text and the right answer."""


def make_verifier(how: Verify, pattern: str) -> Verifier:
    """The verifier that a section of the configuration asks for."""
    return is_equal if how == "math" else partial(is_match, pattern=re.compile(pattern))


def is_match(text: str, answer: str, pattern: re.Pattern[str]) -> bool:
    """The last match of the pattern, or what its first group holds, is the answer. Without a match it is wrong."""
    found = [match[1] if pattern.groups else match[0] for match in pattern.finditer(text)]
    return bool(found) and found[-1] is not None and found[-1].strip() == answer.strip()


def is_equal(text: str, answer: str) -> bool:
    r"""The text's result, in \boxed{}, between $ or as a plain number, has the value of the answer (math-verify)."""
    return bool(verify(list(parse_right(answer)), parse(text)))


@lru_cache(maxsize=100_000)
def parse_right(answer: str) -> tuple[Any, ...]:
    """A right answer as math-verify reads it; empty where it is no mathematics."""
    is_marked = "$" in answer or "\\boxed" in answer
    return tuple(parse(answer if is_marked else f"\\boxed{{{answer}}}"))
