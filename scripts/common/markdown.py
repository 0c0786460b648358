"""Escaping of text from models and data sets, so that pandoc shows it literally, and Markdown tables."""

import re
import string
import unicodedata
from collections.abc import Sequence

FORMAT = (
    "markdown-raw_html-raw_tex-raw_attribute-latex_macros-native_divs-native_spans-markdown_in_html_blocks"
    "-tex_math_dollars-citations-example_lists-smart"
)
"""Pandoc's input format for reports: Markdown without raw code, mathematics, citations and typographic replacements."""

LONGEST = 300
"""Characters of a text that are shown before it is cut."""

UNBROKEN = 40
"""Characters after which a line may break within a word, so that no word is wider than its column."""

_PUNCTUATION = re.compile(f"([{re.escape(string.punctuation)}])")
_LONG_WORD = re.compile(rf"(\S{{{UNBROKEN}}})(?=\S)")
_SHORTHAND = re.compile(r"(?<=-)(?=[?0-9])|(?<=\.)(?=\.)")
_NEWLINE = re.compile(r"\s*(?:\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])\s*")


Cells = Sequence[object]
"""Cells of one row of a table."""


class Markdown(str):
    """Text that is meant as Markdown. All other text is escaped before it is put on a page."""


def escape(text: str) -> Markdown:
    """Markdown that shows a text literally, on one line.

    Line breaks become ↵, other white space becomes one blank. Control and format characters, which could reorder or
    hide text, are removed. Long words get zero-width spaces at which they may break. Word joiners keep Typst from
    showing `-1`, `-?` and `...` as a minus sign, a soft hyphen and an ellipsis, since pandoc does not escape them.
    """
    visible = _NEWLINE.sub(" ↵ ", text)
    kept = "".join(
        character for character in visible if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    line = _SHORTHAND.sub("\u2060", _LONG_WORD.sub("\\1\u200b", " ".join(kept.split())))
    return Markdown(_PUNCTUATION.sub(r"\\\1", line))


def cut_end(text: str, longest: int = LONGEST) -> str:
    """The beginning of a text, with … if it was cut."""
    text = text.strip()
    return text if len(text) <= longest else text[:longest].rstrip() + " …"


def cut_start(text: str, longest: int = LONGEST) -> str:
    """The end of a text, with … if it was cut. In a few-shot prompt, the question comes last."""
    text = text.strip()
    return text if len(text) <= longest else "… " + text[-longest:].lstrip()


def cut_middle(text: str, longest: int = LONGEST) -> str:
    """The beginning and the end of a text, with … between them if it was cut."""
    text = text.strip()
    if len(text) <= longest:
        return text
    return text[: longest // 2].rstrip() + " … " + text[-longest // 2 :].lstrip()


def finalise(value: object) -> str:
    """Jinja's `finalize`: Markdown unchanged, any other value escaped."""
    return value if isinstance(value, Markdown) else escape(str(value))


def make_table(header: Cells, rows: Sequence[Cells], columns: str, caption: object) -> Markdown:
    """A pipe table.

    `columns` has one letter for each column: `l` for left, `r` for right, `w` for left and wide. Raises ValueError if
    a row does not have as many cells.
    """
    marks = {"l": ":--", "r": "--:", "w": "---"}
    lines = [header, [Markdown(marks[letter]) for letter in columns], *rows]
    if any(len(line) != len(columns) for line in lines):
        raise ValueError(f"the table '{caption}' needs {len(columns)} cells in each row")
    body = "\n".join("| " + " | ".join(map(finalise, line)) + " |" for line in lines)
    return Markdown(f"{body}\n\n: {finalise(caption)}\n")
