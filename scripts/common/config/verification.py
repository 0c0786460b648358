"""How an answer is compared with the right one: types and descriptions that several sections share."""

from typing import Literal

Verify = Literal["pattern", "math"]
"""How an answer is compared with the right one."""

VERIFY = (
    "How an answer is compared with the row's `answer`. `pattern`: the text that `answer_pattern` finds must be the "
    "same. `math`: the value in `\\boxed{}`, between `$` signs or as a plain number must be equal, by math-verify."
)

ANSWER_PATTERN = (
    "Regular expression that finds the answer in a text, for `verify: pattern`. Its last match counts; if it has a "
    "group, the text of the first group."
)
