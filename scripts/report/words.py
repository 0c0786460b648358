"""The words of the report in one language, and how it writes numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from scripts.report.markdown import Markdown, finalise

DASH = "–"
"""Stands where a table has no value."""


class Words:
    """Sentences and labels of one language.

    `words("key")` gives the text of a key, and `words("key", n=3)` fills in its `{n}`. What is filled in is escaped,
    unless it is Markdown.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    @classmethod
    def read(cls, path: Path) -> "Words":
        """Read a YAML file of words."""
        return cls(yaml.safe_load(path.read_text(encoding="utf-8")))

    def __call__(self, key: str, **values: object) -> Markdown:
        return Markdown(self._texts[key].format(**{name: finalise(value) for name, value in values.items()}))

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def either(self, prefix: str, name: str) -> object:
        """The text of `<prefix>_<name>`, or the name itself where there is none."""
        key = f"{prefix}_{name}"
        return self(key) if key in self else name

    def enumerate(self, names: Sequence[object]) -> Markdown:
        """`a, b and c`."""
        *most, last = map(finalise, names)
        if not most:
            return Markdown(last)
        return Markdown(self("list_comma").join(most) + self("list_and") + last)


def percent(share: float) -> Markdown:
    """A share of 0 to 1 in percent: `45.3`."""
    return Markdown(f"{100 * share:.1f}")


def signed_points(difference: float) -> Markdown:
    """A difference of shares in percentage points: `+4.5`, `−2.0`, `0.0`."""
    text = f"{100 * difference:+.1f}"
    return Markdown("0.0" if float(text) == 0 else text.replace("-", "−"))


def p_value(p: float) -> Markdown:
    """Three decimals, and `<0.001` below them."""
    return Markdown(r"\<0.001" if p < 0.001 else f"{p:.3f}")


def count(number: float | None) -> Markdown:
    """A whole number with commas at the thousands."""
    return Markdown(DASH if number is None else f"{number:,.0f}")


def loss(value: float | None) -> Markdown:
    """A loss with three decimals."""
    return Markdown(DASH if value is None else f"{value:.3f}".replace("-", "−"))


def magnitude(number: int | None) -> Markdown:
    """A number of parameters: `134.5 M`, `4.0 B`."""
    if number is None:
        return Markdown(DASH)
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return Markdown(f"{number / size:.1f}\u00a0{letter}")
    return Markdown(str(number))


def duration(seconds: float | None) -> Markdown:
    """Seconds in the two largest units: `48 s`, `2 min 5 s`, `3 h 12 min`."""
    if seconds is None:
        return Markdown(DASH)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        text = f"{hours} h {minutes} min"
    elif minutes:
        text = f"{minutes} min {rest} s"
    else:
        text = f"{rest} s"
    return Markdown(text.replace(" ", "\u00a0"))


def gigabytes(size: int | None) -> Markdown:
    """Bytes in GB (10⁹ bytes)."""
    return Markdown(DASH if size is None else f"{size / 1e9:.1f}\u00a0GB")
