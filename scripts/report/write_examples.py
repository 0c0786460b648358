"""Write the answers of all models to the first held-out rows, side by side, as Markdown."""

from pathlib import Path

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import read_json_lines, write_text
from scripts.common.markdown import escape
from scripts.common.records import Item


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--models", nargs="+", required=True, help="name of each model")
    parser.add_argument("--datasets", nargs="*", default=[], help="name of each data set")
    parser.add_argument(
        "--items", type=Path, nargs="*", default=[], help="items, ordered by data set and then by model"
    )
    parser.add_argument("--rows", type=int, required=True, help="number of rows of each data set to show")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file to write")
    options = parser.parse_args()

    parts = ["# Answers to held-out rows"]
    paths = iter(options.items)
    for dataset in options.datasets:
        answers = {model: read_json_lines(next(paths))[: options.rows] for model in options.models}
        parts += [f"## {escape(dataset)}", *(part for place in range(options.rows) for part in show(answers, place))]
    if not options.datasets:
        parts.append("No data set of conversations has held-out rows.")
    write_text(options.output, "\n\n".join(parts) + "\n")
    say(f"write_examples: {options.output}")


def show(answers: dict[str, list[Item]], place: int) -> list[str]:
    """Parts of one row: prompt, reference answer and the answer of each model; empty beyond the last row."""
    first = next(iter(answers.values()))
    if place >= len(first):
        return []
    texts = {"Prompt": first[place]["prompt"], "Reference": first[place]["target"]}
    texts |= {model: items[place]["answer"] for model, items in answers.items()}
    return [f"### Row {place + 1}", *(f"**{escape(name)}**\n\n{quote(text)}" for name, text in texts.items())]


def quote(text: str) -> str:
    """A code block with the text. Its fence is longer than any fence in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


if __name__ == "__main__":
    run_script(main)
