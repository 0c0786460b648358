"""Text from models and data sets is shown literally: nothing in it is read as Markdown, HTML or Typst."""

import html
import re

import pypandoc
import pytest
import typst

from scripts.common.markdown import (
    FORMAT,
    LONGEST,
    Markdown,
    cut_end,
    cut_middle,
    cut_start,
    escape,
    finalise,
    make_table,
)

HOSTILE = [
    '#import "x.typ": * #panic(1)',
    "`ticks` ```typ #panic()``` $x^2$ $$y$$",
    "<script>alert(1)</script> <b>&amp; &lt;",
    "`#panic()`{=typst} {=typst} {.class #id}",
    "@ref [@cite] <label> [x](javascript:alert(1)) ![i](/etc/passwd) [y]: z",
    "https://example.org/a//b http://x.y <https://z.org>",
    "| a | b | :--- | # head - item 1. one > q = head / term: x + plus",
    "# head",
    "- item",
    "1. one",
    "= head",
    "/ term: x",
    "中文回答：答案是 42。“引号”",
    "\\ \\\\ \\n \\u{41} \\# ~ -- --- ... -? -1 'single' \"double\" /* c */ // comment",
    "{{ 7*7 }} {% raw %} {n} %s ${HOME} ~~~ ^sup^ ~sub~ ==m== :::div *a* **b** _c_ __d__",
    "--- title: x --- <!-- c --> [^1] [^1]: note ^[inline]",
]


def show(markdown: str) -> str:
    """What a reader sees of Markdown after pandoc and Typst, without invisible joiners and spaces."""
    source = str(pypandoc.convert_text(markdown, "typst", format=FORMAT, extra_args=["--wrap=none"]))
    page, _ = typst.compile_with_warnings(source.encode(), format="html")
    body = bytes(page).decode().split("<body>")[1]
    return re.sub("[\u2060\u200b]", "", html.unescape(re.sub("<[^>]*>", "", body))).strip()


@pytest.mark.parametrize("text", [*HOSTILE, "+ item", "* item"])
def test_hostile_text_is_shown_literally(text: str) -> None:
    assert show(escape(text)) == text


def test_pipes_stay_in_their_cell() -> None:
    table = make_table(["a | b", "c"], [["| x |", "\n|---|\n"]], "lr", "caption: | d")
    source = pypandoc.convert_text(table, "typst", format=FORMAT)
    assert "columns: 2" in source
    assert source.count("table.header") == 1


def test_control_and_direction_characters_are_removed() -> None:
    assert escape("a\x00b\x1b\u202ec\u2066d\ufeffe\U000e0041") == "abcde"


def test_line_breaks_become_marks() -> None:
    assert escape("a\r\nb\n\n  c\u2028d\te") == "a ↵ b ↵ c ↵ d e"


def test_long_words_may_break() -> None:
    assert max(map(len, escape("x" * 500).split("\u200b"))) == 40


def test_long_texts_are_cut_with_a_mark() -> None:
    text = "start " + "x" * 500 + " end"
    assert cut_end(text).startswith("start") and cut_end(text).endswith(" …")
    assert cut_start(text).endswith("end") and cut_start(text).startswith("… ")
    assert len(cut_end(text)) == LONGEST + 2
    assert cut_end("short\n") == cut_start(" short") == "short"


def test_a_text_is_cut_where_its_name_says() -> None:
    digits = "0123456789"
    assert cut_end(digits, 4) == "0123 …"
    assert cut_start(digits, 4) == "… 6789"
    assert cut_middle(digits, 4) == "01 … 89"
    assert cut_end(digits, 10) == cut_start(digits, 10) == cut_middle(f" {digits}\n", 10) == digits


def test_only_markdown_is_not_escaped() -> None:
    assert finalise(Markdown("**b**")) == "**b**"
    assert finalise("**b**") == r"\*\*b\*\*"
    assert finalise(None) == "None"


def test_a_table_refuses_rows_of_another_width() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        make_table(["a", "b"], [["c"]], "lr", "caption")
