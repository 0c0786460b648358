"""Errors that the user can fix."""

import difflib


class UserError(Exception):
    """A mistake that the user can fix. Its text has one line for each: where it is, what is wrong, what to do."""


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean 'x'?` for the known word that is most similar, or the list of known words if none is similar."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(sorted(known))}" if known else ""
