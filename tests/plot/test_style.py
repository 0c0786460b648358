"""The common style of all figures."""

from scripts.plot.style import MARKERS, model_styles, wrap


def test_models_differ_in_colour_and_marker() -> None:
    styles = model_styles(["base", "sft", "dpo"], ["#000000", "#111111"])
    assert styles == {
        "base": ("#000000", MARKERS[0]),
        "sft": ("#111111", MARKERS[1]),
        "dpo": ("#000000", MARKERS[2]),
    }


def test_names_break_after_hyphens_and_underscores() -> None:
    assert wrap("short", 10) == "short"
    assert wrap("a-long-stage_name", 10) == "a-long-\nstage_name"


def test_names_without_separators_break_anywhere() -> None:
    assert wrap("x" * 25, 10) == "\n".join(["x" * 10, "x" * 10, "x" * 5])
