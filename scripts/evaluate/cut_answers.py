"""Which answers an engine cut at the length limit."""

from collections.abc import Iterable, Iterator
from typing import Any

from lm_eval.api.model import CacheHook


class CutAnswers(CacheHook):
    """Which answers ended only because they reached the length limit.

    lm-eval calls `add_partial` for each answer, in the order in which the engine generated them.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self.by_prompt: dict[str, bool] = {}
        self.batch: Iterator[bool] = iter(())

    def expect(self, are_cut: Iterable[bool]) -> None:
        """Note a batch of answers that lm-eval will report next."""
        self.batch = iter(are_cut)

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        if attr == "generate_until":
            prompt = req[0]
            # A prompt with several answers counts as cut if one of them is.
            self.by_prompt[prompt] = next(self.batch) or self.by_prompt.get(prompt, False)
