"""Bring the questions of a benchmark, so that compute jobs need no network.

Stock lm-eval tasks ask for a data set by its hub name. Unless it comes from the hub, we write a mirror of the hub: a
folder in which that name is a local folder. lm-eval then runs there, unchanged.
"""

import importlib.resources
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from scripts.common.config import BenchmarkSource, FileBenchmark, HubBenchmark, LmEvalBenchmark
from scripts.common.console import make_parser, run_script, say
from scripts.common.data_config import PackageDataset
from scripts.common.errors import UserError
from scripts.common.files import hash_file, write_json_lines
from scripts.common.manifest import write_manifest
from scripts.data.make_tasks import make_tasks

SENTENCE = 4
"""Fewest words of a document's text that is more than a label."""

_MMLU_QUESTION = re.compile(
    r"Q: (?P<question>.*?)\n\(A\)(?P<A>.*?)\(B\)(?P<B>.*?)\(C\)(?P<C>.*?)\(D\)(?P<D>.*?)\nA: .*?"
    r"The answer is \((?P<answer>[ABCD])\)\.",
    re.DOTALL,
)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the benchmark in the configuration")
    parser.add_argument("--config", required=True, help="its `task`, `source` and `unsafe_code`, as JSON")
    parser.add_argument("--tasks", type=Path, required=True, help="folder with our own task files")
    parser.add_argument("--questions", type=Path, required=True, help="questions to write, JSON lines")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write; the mirror stands beside it")
    options = parser.parse_args()
    config = json.loads(options.config)
    source: BenchmarkSource = TypeAdapter(BenchmarkSource).validate_python(config["source"])

    mirror = options.manifest.parent / "mirror"
    shutil.rmtree(mirror, ignore_errors=True)
    facts = make_mirror(source, mirror, options.name)
    if config["unsafe_code"]:
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"  # HumanEval tries its metric when it is loaded
    questions = list(read_questions(config["task"], options.tasks, mirror if mirror.exists() else None, options.name))
    if not questions:
        raise UserError(f"benchmarks.{options.name}.task: task {config['task']} has no questions")
    if any(question.pop("runs_code") for question in questions) and not config["unsafe_code"]:
        raise UserError(
            f"benchmarks.{options.name}.unsafe_code: task {config['task']} runs code that the model wrote, on the "
            "machine that evaluates; set it to true if that is acceptable, or remove the benchmark"
        )
    write_json_lines(options.questions, questions)
    facts |= {"questions": len(questions), "questions_sha256": hash_file(options.questions)}
    say(f"download_benchmark {options.name}: {len(questions)} questions from {facts['origin']}")
    write_manifest(options.manifest, artefact="benchmark", name=options.name, config=config, inputs={}, facts=facts)


def make_mirror(
    source: HubBenchmark | FileBenchmark | LmEvalBenchmark | PackageDataset, mirror: Path, name: str
) -> dict[str, Any]:
    """Write what the source needs of a mirror, and give what is worth recording of it."""
    match source:
        case HubBenchmark():
            return {"origin": "hub"}
        case FileBenchmark():
            folder = Path(source.path).resolve()
            if not folder.is_dir():
                raise UserError(f"benchmarks.{name}.source.path: {source.path} is no folder")
            shutil.copytree(folder, mirror)
            files = {str(p.relative_to(mirror)): hash_file(p) for p in sorted(mirror.rglob("*")) if p.is_file()}
            return {"origin": f"folder {source.path}", "files": files}
        case PackageDataset():
            rows = [{"question": row["question"], "answer": row["answer"]} for row in make_tasks(source)]
            return {"origin": f"package {source.package}"} | write_test_split(rows, mirror / "posttrain" / source.task)
        case LmEvalBenchmark():
            rows, left_out = read_mmlu_development()
            facts = {"origin": "package lm-eval", "left_out": left_out}
            return facts | write_test_split(rows, mirror / "posttrain" / "mmlu_dev")


def write_test_split(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Write rows as the test split of a data set in the hub's layout."""
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    return {"rows": len(rows), "sha256": hash_file(folder / "test.parquet")}


def read_mmlu_development() -> tuple[list[dict[str, Any]], int]:
    """MMLU's development questions out of the prompts that lm-eval carries.

    Returns:
        Rows with `subject`, `question`, `choices` (four) and `answer` (0 to 3), subjects taking turns so that any first
        n questions are spread over them; and how many questions have another form and were left out.
    """
    prompts = importlib.resources.files("lm_eval") / "tasks" / "mmlu" / "flan_cot_fewshot" / "_cot_prompts.json"
    subjects: dict[str, list[dict[str, Any]]] = {}
    left_out = 0
    for subject, text in json.loads(prompts.read_text(encoding="utf-8")).items():
        blocks = ["Q: " + block for block in text.split("\n\nQ: ")[1:]]
        matches = [_MMLU_QUESTION.match(block) for block in blocks]
        left_out += matches.count(None)
        subjects[subject] = [_mmlu_row(subject, match) for match in matches if match]
    most = max(len(rows) for rows in subjects.values())
    return [rows[i] for i in range(most) for rows in subjects.values() if i < len(rows)], left_out


def _mmlu_row(subject: str, match: re.Match[str]) -> dict[str, Any]:
    return {
        "subject": subject.replace("_", " "),
        "question": match["question"].strip(),
        "choices": [match[letter].strip() for letter in "ABCD"],
        "answer": "ABCD".index(match["answer"]),
    }


def read_questions(task: str, own_tasks: Path, mirror: Path | None, name: str) -> Iterator[dict[str, Any]]:
    """Every question that the task asks. Reading them also fills the hub's cache.

    Returns:
        `question`, as lm-eval puts it; `texts`, the sentences of the document that it was made from, since a training
        row that holds the question holds it without lm-eval's words around it; `runs_code`, whether the task is unsafe.
    """
    from scripts.evaluate.tasks import load_tasks

    here = Path.cwd()
    own_tasks = own_tasks.resolve()
    try:
        if mirror is not None:
            os.chdir(mirror)
        for loaded in load_tasks(task, own_tasks):
            for document in loaded.eval_docs:
                yield {
                    "question": str(loaded.doc_to_text(document)),
                    "texts": [v for v in document.values() if isinstance(v, str) and len(v.split()) >= SENTENCE],
                    "runs_code": bool(getattr(loaded, "UNSAFE_CODE", False)),
                }
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"benchmarks.{name}: the data of task {task} cannot be read: {reason}; run this step on a machine with "
            "internet, set HF_HOME to a filled cache, or give benchmarks." + name + ".source"
        ) from error
    finally:
        os.chdir(here)


if __name__ == "__main__":
    run_script(main)
