"""Find lm-eval tasks by name without reading all 14,000 task files, which takes longer than a small benchmark."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from scripts.common.errors import UserError, nearest

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from scripts.common.config import Benchmark

_NAME = re.compile(r"^['\"]?(?:task|group)['\"]?:[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)
_GROUP = re.compile(r"^group:", re.MULTILINE)
_MEMBER = re.compile(r"^[ \t]*-[ \t]+(?:task:[ \t]*)?([\w.+-]+)[ \t]*$", re.MULTILINE)


def stock_folder() -> Path:
    """Folder of lm-eval's tasks, found without importing lm-eval. Raises UserError if it is not installed."""
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise UserError("lm-eval is not installed; run `make venv`")
    return Path(spec.origin).parent / "tasks"


def check_tasks(tasks: dict[str, str], own_tasks: Path) -> None:
    """Check that each task exists, in lm-eval or among our own.

    Args:
        tasks: task name of each benchmark.
        own_tasks: folder with our own task files.

    Raises:
        UserError: one line for each unknown task, with the closest known name.
    """
    own = _names(own_tasks)
    unknown = {benchmark: task for benchmark, task in tasks.items() if task not in own}
    # Most tasks have a file or folder of the same name. Listing them takes a tenth of the time of reading all files.
    listed = set(_names_on_disk(stock_folder())) if unknown else set()
    unknown = {benchmark: task for benchmark, task in unknown.items() if task not in listed}
    if not unknown:
        return
    known = own | _names(stock_folder())
    problems = [
        f"benchmarks.{benchmark}.task: lm-eval knows no task '{task}'{nearest(task, sorted(known))}"
        for benchmark, task in unknown.items()
        if task not in known
    ]
    if problems:
        raise UserError("\n".join(problems))


def make_manager(task: str, own_tasks: Path) -> "TaskManager":
    """A task manager with only this task, the other tasks of its folder, and members of a group in other folders."""
    from lm_eval.tasks import TaskManager

    if task in _names(own_tasks):
        return TaskManager(include_defaults=False, include_path=str(own_tasks))
    folders = _folders_of(task)
    if not folders:
        known = sorted(_names(own_tasks) | _names(stock_folder()))
        raise UserError(f"lm-eval knows no task '{task}'{nearest(task, known)}")
    return TaskManager(include_defaults=False, include_path=[str(folder) for folder in folders])


def check_protocol(tasks: Iterable[Any], benchmark: "Benchmark", name: str) -> None:
    """Check before scoring that loaded lm-eval tasks have the benchmark's metrics and filters and allow its engine.

    If a metric is a function of the task, as in HumanEval, the names of its results are known only after scoring.

    Raises:
        UserError: one of them does not fit; the message has the closest known name.
    """
    wanted = [("", benchmark.metric, benchmark.filter)]
    for other in benchmark.also:
        metric, _, chosen = other.partition("/")
        wanted.append((".also", metric, chosen or benchmark.filter))
    for task in tasks:
        if benchmark.engine != "hf" and task.OUTPUT_TYPE != "generate_until":
            raise UserError(
                f"benchmarks.{name}.engine: {benchmark.engine} is for tasks with generated answers, but "
                f"{task.task_name} compares the likelihoods of given ones; remove this key"
            )
        filters, metrics = {one.name for one in task._filters}, set(task.aggregation())
        for where, metric, chosen in wanted:
            place = f"benchmarks.{name}{where}"
            require(chosen, filters, f"{place}.filter: task {task.task_name} has no filter")
            if not any(callable(one["metric"]) for one in task.config.metric_list or []):
                require(metric, metrics, f"{place}.metric: task {task.task_name} has no metric")


def require(name: str, known: set[str], complaint: str) -> None:
    """Raise UserError, with the closest known name, if a name is not known."""
    if name not in known:
        raise UserError(f"{complaint} '{name}'{nearest(name, sorted(known))}")


def load_tasks(task: str, own_tasks: Path) -> Iterator[Any]:
    """Load a task, or the members of a group in their order."""
    loaded = make_manager(task, own_tasks).load([task])
    yield from loaded["tasks"].values()


@contextmanager
def enter_mirror(mirror: Path, unsafe_code: bool) -> Iterator[None]:
    """Change into a benchmark's mirror of the hub, where its task finds data by name, for the duration of a block.

    Args:
        unsafe_code: whether programs that a model wrote may run without a sandbox if none works.
    """
    here = Path.cwd()
    os.chdir(mirror)
    os.environ["HF_ALLOW_CODE_EVAL"] = str(int(unsafe_code))
    with TemporaryDirectory() as private:
        if Path("nltk_data").is_dir():
            import nltk

            # nltk only reads files of the current user, but the mirror may belong to a colleague.
            shutil.copytree("nltk_data", private, dirs_exist_ok=True)
            nltk.data.path.insert(0, private)
        try:
            yield
        finally:
            os.chdir(here)


def uses_nltk(task: str) -> bool:
    """Whether the code of an lm-eval task uses nltk, and so needs its tables."""
    files = (path for folder in _folders_of(task) for path in folder.rglob("*.py"))
    return any("nltk" in path.read_text(encoding="utf-8") for path in files)


def _folders_of(task: str) -> list[Path]:
    """Top-level folders of lm-eval's tasks that define a task or, for a group, its members."""
    root = stock_folder()
    folders: dict[Path, set[str]] = {}
    sought = [task]
    while sought:
        name = sought.pop()
        file = None if any(name in known for known in folders.values()) else _file_of(name)
        if file is None:
            continue
        folder = root / file.relative_to(root).parts[0]
        folders[folder] = _names(folder)
        text = file.read_text(encoding="utf-8")
        sought += _MEMBER.findall(text) if _GROUP.search(text) else []
    return list(folders)


def _file_of(task: str) -> Path | None:
    """The file that defines an lm-eval task or group; None if there is none."""
    definition = re.compile(rf"^['\"]?(?:task|group)['\"]?:[ \t]*['\"]?{re.escape(task)}['\"]?[ \t]*$", re.MULTILINE)
    root = stock_folder()
    # Most tasks have a file or folder of the same name, which is searched first.
    for path in sorted(root.rglob("*.yaml"), key=lambda path: (task not in (path.stem, *path.parts), path)):
        if definition.search(path.read_text(encoding="utf-8")):
            return path
    return None


def _names_on_disk(folder: Path) -> Iterator[str]:
    """Names of the folders and files of tasks. The leading underscore of files of groups is dropped."""
    for _, folders, files in os.walk(folder):
        yield from folders
        yield from (file.removesuffix(".yaml").lstrip("_") for file in files if file.endswith(".yaml"))


def _names(folder: Path) -> set[str]:
    """Names of the tasks and groups that are defined in a folder."""
    return {name for path in folder.rglob("*.yaml") for name in _NAME.findall(path.read_text(encoding="utf-8"))}
