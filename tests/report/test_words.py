"""The words of the report in both languages."""

import string
from pathlib import Path

import pytest
import yaml

from scripts.common.config import STEPS, Filters
from scripts.report.words import Words

FOLDER = Path(__file__).parents[2] / "report" / "words"


def read(language: str) -> dict[str, str]:
    return dict(yaml.safe_load((FOLDER / f"{language}.yaml").read_text(encoding="utf-8")))


def placeholders(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_both_languages_have_the_same_keys_and_placeholders() -> None:
    english, chinese = read("en"), read("zh")
    assert english.keys() == chinese.keys()
    for key in english:
        assert placeholders(english[key]) == placeholders(chinese[key]), key


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_word_is_text(language: str) -> None:
    assert all(isinstance(text, str) and text.strip() for text in read(language).values())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_step_of_the_funnel_has_words(language: str) -> None:
    """Only the filters of the user keep the names that the user gave them."""
    own = {"patterns", "functions"}
    steps = [*Filters.model_fields, *STEPS]
    missing = {step for step in steps if step not in own | {"read"} and f"step_{step}" not in read(language)}
    assert missing == set()


def test_values_are_escaped() -> None:
    words = Words({"greeting": "**Hello** {name}", "list_comma": ", ", "list_and": " and "})
    assert words("greeting", name="*you*") == r"**Hello** \*you\*"
    assert words.enumerate(["a", "b|", "c"]) == r"a, b\| and c"
    assert words.enumerate(["a"]) == "a"
    assert words.either("greeting", "none") == "none"
