"""Numbers formatted as Markdown, for reports and cards."""

from scripts.common.markdown import Markdown

DASH = "–"
"""Shown in a table for a missing value."""


def percent(share: float) -> Markdown:
    """A share from 0 to 1 as percent: `45.3`."""
    return Markdown(f"{100 * share:.1f}")


def signed_points(difference: float) -> Markdown:
    """A difference of shares in percentage points: `+4.5`, `−2.0`, `0.0`."""
    text = f"{100 * difference:+.1f}"
    return Markdown("0.0" if float(text) == 0 else text.replace("-", "−"))


def p_value(p: float) -> Markdown:
    """A p value with three decimals; `<0.001` if it is smaller."""
    return Markdown(r"\<0.001" if p < 0.001 else f"{p:.3f}")


def count(number: float | None) -> Markdown:
    """A number without decimals, with commas between thousands."""
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


def gigabytes(size: float | None) -> Markdown:
    """Bytes in GB (10⁹ bytes)."""
    return Markdown(DASH if size is None else f"{size / 1e9:.1f}\u00a0GB")
