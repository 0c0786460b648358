"""Answers of all models side by side."""

from pathlib import Path

from scripts.common.files import write_json_lines
from tests.common.running import call_main


def test_rows_of_all_models(tmp_path: Path) -> None:
    paths = []
    for dataset in ("sums", "talk"):
        for model in ("base", "sft"):
            paths.append(tmp_path / f"{model}-{dataset}.jsonl")
            asked = [
                {"prompt": f"{dataset}\n{i}?", "target": f"t{i}", "answer": f"{model} ```{i}```"} for i in range(3)
            ]
            write_json_lines(paths[-1], asked)
    call_main(
        "report.write_examples",
        tmp_path,
        models=["base", "sft"],
        datasets=["sums", "talk"],
        rows=2,
        items=paths,
        output="examples.md",
    )
    text = (tmp_path / "examples.md").read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("#")]
    rows = ["### Row 1", "### Row 2"]
    assert headings == ["# Answers to held-out rows", "## sums", *rows, "## talk", *rows] and "2?" not in text
    assert "**Prompt**\n\n```text\nsums\n1?\n```\n\n**Reference**\n\n```text\nt1\n```" in text
    assert "**sft**\n\n````text\nsft ```1```\n````" in text, "a fence in an answer does not end the block"
    assert text.index("base ```0```") < text.index("sft ```0```") < text.index("## talk")


def test_without_held_out_rows(tmp_path: Path) -> None:
    call_main("report.write_examples", tmp_path, models=["base"], rows=2, output="examples.md")
    assert "No data set" in (tmp_path / "examples.md").read_text(encoding="utf-8")
