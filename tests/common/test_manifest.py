"""A manifest records how an artefact was made."""

import hashlib
import re
import subprocess
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from scripts.common.files import read_json, write_json
from scripts.common.manifest import PACKAGES, describe, find_model
from tests.common.running import REPOSITORY


def test_fields(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"rows")
    path = tmp_path / "m" / "manifest.json"
    described = describe(
        artefact="model", name="sft", config={"a": 1}, inputs={"rows": tmp_path / "rows"}, facts={"steps": 3}
    )
    write_json(path, described)
    manifest = read_json(path)
    assert list(manifest) == [
        "artefact",
        "name",
        "config",
        "inputs",
        "facts",
        "versions",
        "git_commit",
        "device",
        "seconds",
        "peak_memory_bytes",
        "peak_gpu_memory_bytes",
        "created",
    ]
    assert manifest["inputs"] == {"rows": hashlib.sha256(b"rows").hexdigest()}
    assert manifest["versions"].keys() == {"python", *PACKAGES} - {"vllm"}
    assert manifest["versions"]["trl"] == version("trl")
    # This process has loaded Python and pyarrow: more than 10 MB, less than a terabyte. Catches a wrong unit.
    assert 10e6 < manifest["peak_memory_bytes"] < 1e12
    age = datetime.now(UTC) - datetime.fromisoformat(manifest["created"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert [manifest[key] for key in ("artefact", "name", "config", "facts")] == [
        "model",
        "sft",
        {"a": 1},
        {"steps": 3},
    ]
    assert find_model(path) == tmp_path / "m" / "model"


def test_the_commit_is_that_of_the_checkout() -> None:
    head = subprocess.run(["git", "-C", REPOSITORY, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    found = describe(artefact="x", name="x", config={}, inputs={}, facts={})["git_commit"]
    if head.returncode:
        assert found is None
    else:
        assert found is not None
        assert re.sub(r"\+$", "", found) == head.stdout.strip()
