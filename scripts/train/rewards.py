"""The rewards of GRPO: verified answers, a format, a length, and user functions. Our own rewards are from 0 to 1."""

import re
from collections.abc import Callable
from typing import Any

from datasets import Dataset

from scripts.common.config import Rewards
from scripts.common.errors import UserError
from scripts.common.user_function import load_function
from scripts.common.verifiers import Verifier, make_verifier, parse_right

Completion = list[dict[str, str]]
Reward = Callable[..., list[float | None]]
"""Maps the completions of a batch and the columns of their rows to one number for each completion."""


def make_rewards(rewards: Rewards, stage: str, rows: Dataset) -> list[Reward]:
    """The reward functions of a stage, in the order that the configuration documents.

    Raises:
        UserError: rows lack an answer that can be verified, or a user function cannot be loaded.
    """
    where = f"stages.{stage}.rewards"
    functions: list[Reward] = []
    if rewards.answer:
        missing = sum(answer is None for answer in rows["answer"])
        if missing:
            raise UserError(f"{where}.answer: {missing} of {len(rows)} rows have no answer to verify against")
        if rewards.verify == "math":
            unread = [answer for answer in rows["answer"] if not parse_right(answer)]
            if unread:
                raise UserError(
                    f"{where}.verify: {len(unread)} of {len(rows)} rows have an answer that math-verify cannot read, "
                    f"such as {unread[0]!r}; fix them, or set it to pattern"
                )
        functions.append(reward_answer(make_verifier(rewards.verify, rewards.answer_pattern)))
    if rewards.format:
        functions.append(reward_format(re.compile(rewards.format, re.DOTALL)))
    if rewards.max_characters:
        functions.append(reward_length(rewards.max_characters))
    for name, path in rewards.functions.items():
        functions.append(reward_by(load_function(path, f"{where}.functions.{name}"), f"{where}.functions.{name}", name))
    return functions


def reward_answer(is_right: Verifier) -> Reward:
    """1 if the answer is right, else 0."""

    def answer_reward(completions: list[Completion], answer: list[str], **columns: Any) -> list[float | None]:
        return [float(is_right(text_of(c), right)) for c, right in zip(completions, answer, strict=True)]

    return answer_reward


def reward_format(pattern: re.Pattern[str]) -> Reward:
    """1 if the complete answer matches the pattern, else 0."""

    def format_reward(completions: list[Completion], **columns: Any) -> list[float | None]:
        return [float(pattern.fullmatch(text_of(completion).strip()) is not None) for completion in completions]

    return format_reward


def reward_length(most: int) -> Reward:
    """1 up to `most` characters, then falling linearly to 0 at twice as many."""

    def length_reward(completions: list[Completion], **columns: Any) -> list[float | None]:
        return [min(1.0, max(0.0, 2 - len(text_of(completion)) / most)) for completion in completions]

    return length_reward


def reward_by(function: Callable[..., Any], where: str, name: str) -> Reward:
    """A user function: it gets the text of an answer and the prompt and answer of its row, and returns a number."""

    def own_reward(
        prompts: list[Completion], completions: list[Completion], answer: list[str | None], **columns: Any
    ) -> list[float | None]:
        rewards: list[float | None] = []
        for prompt, completion, right in zip(prompts, completions, answer, strict=True):
            try:
                rewards.append(float(function(text_of(completion), {"prompt": prompt, "answer": right})))
            except Exception as error:
                raise UserError(f"{where}: failed on an answer: {type(error).__name__}: {error}") from error
        return rewards

    own_reward.__name__ = f"{name}_reward"  # TRL logs a reward under its function's name
    return own_reward


def text_of(completion: Completion) -> str:
    """The text of an answer."""
    return completion[-1]["content"]
