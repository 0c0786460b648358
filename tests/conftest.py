"""Fixtures for all rooms: a tiny model, a mirror of the hub, and an environment without network."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from scripts.common.manifest import find_model
from tests.common.running import REPOSITORY, call_main

# No network, and no files in the user's cache. The Hugging Face libraries read these variables when they are imported.
_hub_home = tempfile.TemporaryDirectory(prefix="posttrain-tests-", ignore_cleanup_errors=True)
os.environ["HF_HOME"] = _hub_home.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Two workers of pytest share two cores: more arithmetic threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run, so that a test that fails once fails again.
settings.register_profile("posttrain", deadline=None, database=None, derandomize=True)
settings.load_profile("posttrain")

TINY = {"kind": "random", "hidden_size": 64, "layers": 2, "heads": 4}


SLOWEST_FIRST = ("workflow", "train", "evaluate")
"""Rooms with the longest tests. They start first, so that no worker ends long before the others."""


SHARED = ("finished: Path", "tests.train.forked")
"""What files of a room share: a finished run, and a process that has imported the trainers and is forked."""


class ByFile(LoadScopeScheduling):
    """Gives complete files to workers, and all files of a room that share something expensive to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.split("::", maxsplit=1)[0])
        text = (REPOSITORY / path).read_text(encoding="utf-8")
        return str(path.parent if any(name in text for name in SHARED) else path)


@pytest.hookimpl(optionalhook=True)  # the hook exists only with pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Schedule tests so that `pytest -n` makes each finished run only once."""
    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the rooms that take longest."""
    items.sort(key=lambda item: (*SLOWEST_FIRST, item.path.parent.name).index(item.path.parent.name))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a model with random weights, made by download_model."""
    folder = tmp_path_factory.mktemp("tiny")
    manifest = folder / "models" / "base" / "manifest.json"
    call_main(
        "data.download_model", folder, config={"source": TINY, "dtype": "float32"}, cache="cache", output=manifest
    )
    assert (find_model(manifest) / "model.safetensors").exists()
    return manifest


@pytest.fixture(scope="session")
def hub_mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of the hub with twelve questions of our own, in place of the data of lm-eval's task `arc_easy`."""
    folder = tmp_path_factory.mktemp("hub")
    config = folder / "allenai" / "ai2_arc" / "ARC-Easy"
    config.mkdir(parents=True)
    things = ["stone", "river", "cloud", "candle", "spoon", "bridge"]
    rows = [
        {
            "id": f"{verb}-{thing}",
            "question": f"Which word names what I {verb}, the {thing}?",
            "choices": {"text": [thing, "nothing at all", verb], "label": ["A", "B", "C"]},
            "answerKey": "A" if verb == "saw" else "C",
        }
        for verb in ("saw", "heard")
        for thing in things
    ]
    for split in ("train", "validation", "test"):
        pq.write_table(pa.Table.from_pylist(rows), config / f"{split}.parquet")
    files = "".join(f"  - {{split: {s}, path: ARC-Easy/{s}.parquet}}\n" for s in ("train", "validation", "test"))
    card = f"---\nconfigs:\n- config_name: ARC-Easy\n  data_files:\n{files}---\n"
    (config.parent / "README.md").write_text(card, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def real_hub() -> Path:
    """A mirror of the hub with real benchmark data, if there is one next to the checkout."""
    folder = REPOSITORY.parent / "shared" / "data" / "hub"
    if not folder.is_dir():
        pytest.skip("there is no mirror of the hub in ../shared/data/hub")
    return folder
