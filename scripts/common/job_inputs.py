"""Files that jobs read and no rule writes. Rules declare them as inputs, so that a change reruns the jobs."""

import glob
from pathlib import Path

from scripts.common.config import BenchmarkSource, Dataset
from scripts.common.paths import OWN_TASKS, REPOSITORY


def local_files(dataset: Dataset) -> list[str]:
    """The local files of a data set. Missing ones are reported by `download_dataset`."""
    return _files([part.source.path for part in dataset.parts.values() if part.source.kind == "file"])


def mirror_files(source: BenchmarkSource) -> list[str]:
    """The files of a local mirror of the hub. A missing folder is reported by `download_benchmark`."""
    return _files([f"{source.path}/**"] if source.kind == "file" else [])


def own_task_files(task: str) -> list[Path]:
    """The files of one of our own tasks: definition, code and questions. Empty for a task of lm-eval."""
    paths = (OWN_TASKS / f"{task}.{ending}" for ending in ("yaml", "py", "jsonl"))
    return [path for path in paths if path.is_file()]


def own_scoring(task: str) -> list[Path]:
    """The module that scores answers, for our own tasks that have code. Empty for all other tasks."""
    has_code = (OWN_TASKS / f"{task}.py").is_file()
    return [REPOSITORY / "scripts" / "evaluate" / "rubric.py"] if has_code else []


def _files(patterns: list[str]) -> list[str]:
    """The files that match the globs, sorted."""
    paths = (path for pattern in patterns for path in glob.glob(pattern, recursive=True))
    return sorted(path for path in paths if Path(path).is_file())  # `glob` also returns folders
