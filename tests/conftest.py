"""What all rooms share: one tiny model, one mirror of the hub, and an environment without network."""

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
from tests.common.running import REPOSITORY, run_script

# Before anything imports the Hugging Face libraries, which read these once:
# no network, and no trace in the user's cache.
_hub_home = tempfile.TemporaryDirectory(prefix="posttrain-tests-", ignore_cleanup_errors=True)
os.environ["HF_HOME"] = _hub_home.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# The same examples in every run: a test that fails for one reader fails for all.
settings.register_profile("posttrain", deadline=None, database=None, derandomize=True)
settings.load_profile("posttrain")

TINY = {"kind": "random", "hidden_size": 64, "layers": 2, "heads": 4}


SLOWEST_FIRST = ("workflow", "train", "evaluate")
"""Rooms of tests that take longest. Two workers end together only when the long ones begin early."""


class ByFile(LoadScopeScheduling):
    """Gives each worker whole files, and all that share a finished run of a room to one of them."""

    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.split("::", maxsplit=1)[0])
        is_shared = "finished: Path" in (REPOSITORY / path).read_text(encoding="utf-8")
        return str(path.parent if is_shared else path)


@pytest.hookimpl(optionalhook=True)  # there only with `pytest -n`
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Let `pytest -n` make each finished run once."""
    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the rooms that take longest first."""
    items.sort(key=lambda item: (*SLOWEST_FIRST, item.path.parent.name).index(item.path.parent.name))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a model of random weights, made by the script itself."""
    folder = tmp_path_factory.mktemp("tiny")
    manifest = folder / "models" / "base" / "manifest.json"
    run = run_script(
        "data.download_model", folder, config={"source": TINY, "dtype": "float32"}, cache="cache", output=manifest
    )
    assert run.returncode == 0, run.stderr
    assert (find_model(manifest) / "model.safetensors").exists()
    return manifest


@pytest.fixture(scope="session")
def hub_mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of the hub with twelve questions of our own under the name of a stock benchmark, `arc_easy`."""
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
    """Real benchmark data in the hub's layout, where somebody has put it beside the checkout."""
    folder = REPOSITORY.parent / "shared" / "data" / "hub"
    if not folder.is_dir():
        pytest.skip("no mirror of the hub stands at ../shared/data/hub")
    return folder
