"""What goes wrong because of the user's input."""

import difflib


class UserError(Exception):
    """Something the user can put right. Its text is one line a problem: what, where, what to do."""


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean 'x'?`, or the list of what is known when nothing is near."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(sorted(known))}" if known else ""
