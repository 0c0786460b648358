"""lm-eval tasks by name, without its scan of all 14,000 task files (which takes longer than a small benchmark)."""

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
    """The folder of lm-eval's own tasks, found without importing it."""
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise UserError("lm-eval is not installed; run `make venv`")
    return Path(spec.origin).parent / "tasks"


def check_tasks(tasks: dict[str, str], own_tasks: Path) -> None:
    """Refuse tasks that neither we nor lm-eval know.

    Args:
        tasks: task name of each benchmark.
        own_tasks: folder with our own task files.

    Raises:
        UserError: one line a benchmark, with the nearest right name.
    """
    own = _names(own_tasks)
    unknown = {benchmark: task for benchmark, task in tasks.items() if task not in own}
    # A file or a folder of the task's own name is the rule, and listing them costs a tenth of reading all files.
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
    """A task manager that knows this task, its neighbours, and what a group takes from elsewhere, only."""
    from lm_eval.tasks import TaskManager

    if task in _names(own_tasks):
        return TaskManager(include_defaults=False, include_path=str(own_tasks))
    folders = _folders_of(task)
    if not folders:
        known = sorted(_names(own_tasks) | _names(stock_folder()))
        raise UserError(f"lm-eval knows no task '{task}'{nearest(task, known)}")
    return TaskManager(include_defaults=False, include_path=[str(folder) for folder in folders])


def check_protocol(tasks: Iterable[Any], benchmark: "Benchmark", name: str) -> None:
    """Refuse a metric, a filter or an engine that one of lm-eval's loaded tasks does not have, before it is asked.

    What a metric that is a function of the task's gives, as HumanEval's does, is known only afterwards.

    Raises:
        UserError: with the nearest right name.
    """
    wanted = [("", benchmark.metric, benchmark.filter)]
    for other in benchmark.also:
        metric, _, chosen = other.partition("/")
        wanted.append((".also", metric, chosen or benchmark.filter))
    for task in tasks:
        if benchmark.engine != "hf" and task.OUTPUT_TYPE != "generate_until":
            raise UserError(
                f"benchmarks.{name}.engine: {benchmark.engine} is for tasks that write answers, and {task.task_name} "
                "asks how likely given ones are; remove it"
            )
        filters, metrics = {one.name for one in task._filters}, set(task.aggregation())
        for where, metric, chosen in wanted:
            place = f"benchmarks.{name}{where}"
            require(chosen, filters, f"{place}.filter: task {task.task_name} has no filter")
            if not any(callable(one["metric"]) for one in task.config.metric_list or []):
                require(metric, metrics, f"{place}.metric: task {task.task_name} has no metric")


def require(name: str, known: set[str], complaint: str) -> None:
    """Raise UserError, with the nearest right name, when a name is not known."""
    if name not in known:
        raise UserError(f"{complaint} '{name}'{nearest(name, sorted(known))}")


def load_tasks(task: str, own_tasks: Path) -> Iterator[Any]:
    """The tasks behind a name: itself, or the members of a group, in order."""
    loaded = make_manager(task, own_tasks).load([task])
    yield from loaded["tasks"].values()


@contextmanager
def enter_mirror(mirror: Path, unsafe_code: bool) -> Iterator[None]:
    """Be in a benchmark's mirror of the hub, where its task finds what it asks for by name.

    Args:
        unsafe_code: programs that a model wrote may run without a sandbox where none can be had.
    """
    here = Path.cwd()
    os.chdir(mirror)
    os.environ["HF_ALLOW_CODE_EVAL"] = str(int(unsafe_code))
    with TemporaryDirectory() as private:
        if Path("nltk_data").is_dir():
            import nltk

            # nltk reads only what belongs to who runs it, and a mirror may be a colleague's.
            shutil.copytree("nltk_data", private, dirs_exist_ok=True)
            nltk.data.path.insert(0, private)
        try:
            yield
        finally:
            os.chdir(here)


def uses_nltk(task: str) -> bool:
    """Whether the code of one of lm-eval's tasks asks for nltk, and so for its tables."""
    files = (path for folder in _folders_of(task) for path in folder.rglob("*.py"))
    return any("nltk" in path.read_text(encoding="utf-8") for path in files)


def _folders_of(task: str) -> list[Path]:
    """The folders directly under lm-eval's tasks that define a task, and the members of a group wherever they stand."""
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
    """The file of lm-eval's tasks that defines a task or a group."""
    definition = re.compile(rf"^['\"]?(?:task|group)['\"]?:[ \t]*['\"]?{re.escape(task)}['\"]?[ \t]*$", re.MULTILINE)
    root = stock_folder()
    # Most tasks stand in a file or a folder of their own name: look there first.
    for path in sorted(root.rglob("*.yaml"), key=lambda path: (task not in (path.stem, *path.parts), path)):
        if definition.search(path.read_text(encoding="utf-8")):
            return path
    return None


def _names_on_disk(folder: Path) -> Iterator[str]:
    """Names of task folders and of task files; files of groups begin with an underscore."""
    for _, folders, files in os.walk(folder):
        yield from folders
        yield from (file.removesuffix(".yaml").lstrip("_") for file in files if file.endswith(".yaml"))


def _names(folder: Path) -> set[str]:
    """Names of the tasks and groups that the files of a folder define."""
    return {name for path in folder.rglob("*.yaml") for name in _NAME.findall(path.read_text(encoding="utf-8"))}
