"""Text that came from a model or a data set, made harmless: as pandoc Markdown it means nothing but itself."""

import re
import string
import unicodedata
from collections.abc import Sequence

FORMAT = (
    "markdown-raw_html-raw_tex-raw_attribute-latex_macros-native_divs-native_spans-markdown_in_html_blocks"
    "-tex_math_dollars-citations-example_lists-smart"
)
"""Pandoc's reader for the report: Markdown without raw code, mathematics, citations and typographic replacements."""

LONGEST = 300
"""Characters of one piece of foreign text that are shown."""

UNBROKEN = 40
"""Characters after which a line may break inside a word, so that no word is wider than its column."""

_PUNCTUATION = re.compile(f"([{re.escape(string.punctuation)}])")
_LONG_WORD = re.compile(rf"(\S{{{UNBROKEN}}})(?=\S)")
_SHORTHAND = re.compile(r"(?<=-)(?=[?0-9])|(?<=\.)(?=\.)")
_NEWLINE = re.compile(r"\s*(?:\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])\s*")


Cells = Sequence[object]
"""Cells of one row of a table."""


class Markdown(str):
    """Text that is Markdown on purpose. All other text is escaped before it reaches the page."""


def escape(text: str) -> Markdown:
    """Text as Markdown that shows it letter by letter, on one line.

    Line breaks become ↵, other white space one blank. Control and format characters, which could reorder or hide
    text, are removed. Long words get invisible places to break at, and an invisible joiner keeps Typst from reading
    `-1`, `-?` and `...` as a minus sign, a soft hyphen and an ellipsis, which pandoc lets through.
    """
    visible = _NEWLINE.sub(" ↵ ", text)
    kept = "".join(
        character for character in visible if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    line = _SHORTHAND.sub("\u2060", _LONG_WORD.sub("\\1\u200b", " ".join(kept.split())))
    return Markdown(_PUNCTUATION.sub(r"\\\1", line))


def cut_end(text: str, longest: int = LONGEST) -> str:
    """The beginning of a text, with … for what was cut."""
    text = text.strip()
    return text if len(text) <= longest else text[:longest].rstrip() + " …"


def cut_start(text: str, longest: int = LONGEST) -> str:
    """The end of a text, with … for what was cut: in a prompt with examples the question stands last."""
    text = text.strip()
    return text if len(text) <= longest else "… " + text[-longest:].lstrip()


def cut_middle(text: str, longest: int = LONGEST) -> str:
    """The beginning and the end of a text, with … for what was cut."""
    text = text.strip()
    if len(text) <= longest:
        return text
    return text[: longest // 2].rstrip() + " … " + text[-longest // 2 :].lstrip()


def finalise(value: object) -> str:
    """What Jinja puts in place of an expression: Markdown as it is, anything else escaped."""
    return value if isinstance(value, Markdown) else escape(str(value))


def make_table(header: Cells, rows: Sequence[Cells], columns: str, caption: object) -> Markdown:
    """A pipe table.

    `columns` has a letter for each: `l` left, `r` right, `w` left and as wide as there is room.
    """
    marks = {"l": ":--", "r": "--:", "w": "---"}
    lines = [header, [Markdown(marks[letter]) for letter in columns], *rows]
    if any(len(line) != len(columns) for line in lines):
        raise ValueError(f"the table '{caption}' needs {len(columns)} cells a row")
    body = "\n".join("| " + " | ".join(map(finalise, line)) + " |" for line in lines)
    return Markdown(f"{body}\n\n: {finalise(caption)}\n")
