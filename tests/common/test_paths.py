"""Every file of a run has its own path, in one of the folders of the run."""

import inspect
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.common.files import write_text
from scripts.common.paths import OWN_TASKS, REPOSITORY, SPLITS, RunPaths

ROOT = Path("/some/where")
FOLDERS = {"work", "results", "logs"}
NOT_OF_ONE_RUN = {"slurm_logs", "models_of_all_runs"}
NOT_A_PATH = {"rule_of"}


def arguments_of(method: Callable[..., object]) -> Iterator[list[str]]:
    """Arguments to call a method with: all values of a Literal, and otherwise one name everywhere.

    One name for all makes collisions most likely.
    """
    hints = get_type_hints(method)
    hints.pop("return")
    choices = [
        SPLITS if name == "split" else get_args(hint) if get_origin(hint) is Literal else ("same",)
        for name, hint in hints.items()
    ]
    for chosen in product(*choices):
        yield [str(word) for word in chosen]


def all_paths(paths: RunPaths) -> dict[str, Path]:
    """Every path that `paths` returns, by the call that returned it."""
    found = {}
    for name, member in inspect.getmembers(RunPaths):
        if name.startswith("_") or name in NOT_OF_ONE_RUN | NOT_A_PATH or name == "root":
            continue
        if isinstance(member, property):
            found[name] = getattr(paths, name)
        else:
            for arguments in arguments_of(member):
                found[f"{name}({', '.join(arguments)})"] = getattr(paths, name)(*arguments)
    return found


def test_every_file_is_in_a_folder_of_the_run() -> None:
    found = all_paths(RunPaths("mine", ROOT))
    assert len(found) >= 50 and {"work", "pdf", "plan(md)", "plan(json)", "rows(same, test)"} <= found.keys()
    for call, path in found.items():
        folder, run, *_ = path.relative_to(ROOT).parts
        assert folder in FOLDERS and run == "mine", call


def test_no_two_paths_are_the_same() -> None:
    call_by_path: dict[Path, str] = {}
    for call, path in all_paths(RunPaths("mine", ROOT)).items():
        assert call_by_path.setdefault(path, call) == call, path


def test_no_file_has_the_path_of_a_folder() -> None:
    found = set(all_paths(RunPaths("mine", ROOT)).values())
    folders = {folder for path in found for folder in path.parents}
    assert not [path for path in found & folders if path.suffix], "a path with a suffix is a file"


def test_two_runs_share_no_file() -> None:
    mine, other = (set(all_paths(RunPaths(name, ROOT)).values()) for name in ("mine", "other"))
    assert not mine & other


def test_paths_are_relative_if_no_folder_is_given() -> None:
    """Snakemake compares paths as text, so rules and scripts must spell a path the same way."""
    relative = {call: path.relative_to(ROOT) for call, path in all_paths(RunPaths("mine", ROOT)).items()}
    assert all_paths(RunPaths("mine")) == relative


def test_names_may_be_wildcards() -> None:
    paths = RunPaths("mine")
    assert str(paths.score("{model}", "{name}")) == "results/mine/scores/{model}/{name}.json"
    assert str(paths.log("inspect_rows", "{dataset}.{shard}")) == "logs/mine/inspect_rows/{dataset}.{shard}.log"


@pytest.mark.parametrize(
    ("job", "log"),
    [
        (["plan"], "plan.log"),
        (["train_sft", "sft"], "train_sft/sft.log"),
        (["run_benchmark", "sft", "gsm8k"], "run_benchmark/sft/gsm8k.log"),
        (["inspect_rows", "sums.0"], "inspect_rows/sums.0.log"),
    ],
    ids=["no wildcard", "one", "two", "two in one word"],
)
def test_a_log_is_named_after_its_job(job: list[str], log: str) -> None:
    paths = RunPaths("mine", ROOT)
    assert paths.log(*job) == ROOT / "logs" / "mine" / log
    assert paths.rule_of(ROOT / "logs" / "mine" / log) == tuple(job)


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}(\.\d{1,3})?", fullmatch=True)
JOBS = st.tuples(st.from_regex(r"[a-z_]{1,30}", fullmatch=True), st.lists(NAMES, max_size=3))


@given(job=JOBS, root=st.sampled_from([Path(), ROOT]))
def test_the_path_of_a_log_identifies_its_job(job: tuple[str, list[str]], root: Path) -> None:
    rule, wildcards = job
    paths = RunPaths("mine", root)
    assert paths.rule_of(paths.log(rule, *wildcards)) == (rule, *wildcards)


def test_only_models_of_runs_are_found(tmp_path: Path) -> None:
    mine, other = RunPaths("mine", tmp_path), RunPaths("other", tmp_path)
    expected = [mine.model("base"), mine.model("sft"), other.model("base")]
    for path in (*expected, mine.filtered("sums"), mine.benchmark("gsm8k"), mine.checkpoints("sft") / "manifest.json"):
        write_text(path, "{}")
    assert mine.models_of_all_runs() == other.models_of_all_runs() == expected
    assert RunPaths("mine", tmp_path / "elsewhere").models_of_all_runs() == []


def test_the_checkout_is_found() -> None:
    assert (REPOSITORY / "Snakefile").is_file() and OWN_TASKS.is_dir()
