"""Small benchmarks with questions of our own, under the names and columns of the hub."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]

THINGS = ("stone", "river", "cloud", "candle", "spoon", "bridge")


def write_hub(folder: Path) -> None:
    """Write seven benchmarks of six questions each. MMLU has one of its 57 subjects."""
    _write(folder / "Rowan/hellaswag", "default", [_hellaswag(thing) for thing in THINGS], ("train", "validation"))
    _write(folder / "allenai/ai2_arc", "ARC-Challenge", [_arc(thing) for thing in THINGS])
    _write(folder / "allenai/winogrande", "winogrande_xl", [_winogrande(thing) for thing in THINGS])
    _write(folder / "baber/piqa", "default", [_piqa(thing) for thing in THINGS], ("train", "validation"))
    _write(folder / "tau/commonsense_qa", "default", [_commonsense(thing) for thing in THINGS])
    _write(folder / "HuggingFaceH4/MATH-500", "default", [_math(number) for number in range(6)], ("test",))
    _write(folder / "cais/mmlu", "anatomy", [_mmlu(thing) for thing in THINGS], ("dev", "test"))


def _write(folder: Path, name: str, rows: list[Row], splits: tuple[str, ...] = ("train", "validation", "test")) -> None:
    (folder / name).mkdir(parents=True)
    for split in splits:
        pq.write_table(pa.Table.from_pylist(rows), folder / name / f"{split}.parquet")
    card = folder / "README.md"
    known = card.read_text(encoding="utf-8").removesuffix("---\n") if card.exists() else "---\nconfigs:\n"
    files = "".join(f"  - {{split: {split}, path: {name}/{split}.parquet}}\n" for split in splits)
    card.write_text(f"{known}- config_name: {name}\n  data_files:\n{files}---\n", encoding="utf-8")


def _hellaswag(thing: str) -> Row:
    endings = [f"puts the {thing} down.", "flies to the moon.", "sings a song.", f"eats the {thing}."]
    context = {"ctx_a": f"A woman holds a {thing}.", "ctx_b": "she", "activity_label": "Holding things"}
    return context | {"endings": endings, "label": "0"}


def _arc(thing: str) -> Row:
    choices = {"text": [thing, "nothing at all", "a song"], "label": ["A", "B", "C"]}
    return {"id": thing, "question": f"Which can be lifted, a {thing} or a song?", "choices": choices, "answerKey": "A"}


def _winogrande(thing: str) -> Row:
    sentence = f"The {thing} did not fit the box because the _ was too large."
    return {"sentence": sentence, "option1": thing, "option2": "box", "answer": "1"}


def _piqa(thing: str) -> Row:
    return {"goal": f"Clean a {thing}.", "sol1": f"Wash the {thing}.", "sol2": f"Bury the {thing}.", "label": 0}


def _commonsense(thing: str) -> Row:
    choices = {"label": list("ABCDE"), "text": [thing, "anger", "Monday", "seven", "a wish"]}
    row = {"id": thing, "question": f"What can you touch, if not the {thing}'s shadow?", "question_concept": thing}
    return row | {"choices": choices, "answerKey": "A"}


def _math(number: int) -> Row:
    solution = f"Counting on gives $\\boxed{{{number + 2}}}$."
    return {"problem": f"What is ${number} + 2$?", "solution": solution, "answer": str(number + 2)}


def _mmlu(thing: str) -> Row:
    choices = [f"A {thing}", "A thought", "A song", "A wish"]
    return {
        "question": f"What hurts on a foot, as a {thing} does?",
        "subject": "anatomy",
        "choices": choices,
        "answer": 0,
    }
