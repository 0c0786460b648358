"""Tests of the words of the report, and of its numbers."""

import string
from pathlib import Path

import pytest
import yaml

from scripts.common.data_config import STEPS, Filters
from scripts.report import words as numbers
from scripts.report.words import Words

FOLDER = Path(__file__).parents[2] / "report" / "words"


def read(language: str) -> dict[str, str]:
    return dict(yaml.safe_load((FOLDER / f"{language}.yaml").read_text(encoding="utf-8")))


def placeholders(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_both_languages_say_the_same_things() -> None:
    english, chinese = read("en"), read("zh")
    assert english.keys() == chinese.keys()
    for key in english:
        assert placeholders(english[key]) == placeholders(chinese[key]), key


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_word_is_text(language: str) -> None:
    assert all(isinstance(text, str) and text.strip() for text in read(language).values())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_step_of_the_funnel_has_words(language: str) -> None:
    """Only filters of the user's own go by the names that the user gave them."""
    own = {"patterns", "functions"}
    steps = [*Filters.model_fields, *STEPS]
    missing = {step for step in steps if step not in own | {"read"} and f"step_{step}" not in read(language)}
    assert missing == set()


def test_what_is_filled_in_is_escaped() -> None:
    words = Words({"greeting": "**Hello** {name}", "list_comma": ", ", "list_and": " and "})
    assert words("greeting", name="*you*") == r"**Hello** \*you\*"
    assert words.enumerate(["a", "b|", "c"]) == r"a, b\| and c"
    assert words.enumerate(["a"]) == "a"
    assert words.either("greeting", "none") == "none"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (numbers.percent(0.4567), "45.7"),
        (numbers.signed_points(0.045), "+4.5"),
        (numbers.signed_points(-0.02), "−2.0"),
        (numbers.signed_points(-0.0001), "0.0"),
        (numbers.p_value(0.0004), r"\<0.001"),
        (numbers.p_value(0.0123), "0.012"),
        (numbers.count(1234567), "1,234,567"),
        (numbers.count(None), "–"),
        (numbers.magnitude(134_515_008), "134.5\u00a0M"),
        (numbers.magnitude(4_000_000_000), "4.0\u00a0B"),
        (numbers.duration(48.2), "48\u00a0s"),
        (numbers.duration(125), "2\u00a0min\u00a05\u00a0s"),
        (numbers.duration(11_520), "3\u00a0h\u00a012\u00a0min"),
        (numbers.gigabytes(1_400_000_000), "1.4\u00a0GB"),
    ],
)
def test_numbers(given: str, shown: str) -> None:
    assert given == shown
