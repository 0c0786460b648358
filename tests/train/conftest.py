"""One finished SFT run of the tiny model, which other tests start from or compare with."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.data.schemas import SCHEMAS
from tests.common.running import run_script
from tests.train.stages import SFT, chat, sft_options


def _write(path: Path, form: Any, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[form]), path)


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows of both kinds: the answer to everything is the same, so that it can be learnt at once."""
    folder = tmp_path_factory.mktemp("rows")
    for split, numbers in (("train", range(24)), ("validation", range(24, 28))):
        _write(folder / f"{split}.parquet", "messages", [chat(i) for i in numbers])
    pairs = [
        {
            "source_index": i,
            "prompt": chat(i)["messages"][:1],
            "chosen": chat(i)["messages"][1:],
            "rejected": [{"role": "assistant", "content": f"no {i}"}],
        }
        for i in range(16)
    ]
    _write(folder / "pairs.parquet", "preference", pairs)
    _write(folder / "no_pairs.parquet", "preference", [])
    _write(folder / "no_rows.parquet", "messages", [])
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows: Path) -> Path:
    """Folder of an SFT run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("sft")
    run = run_script("train.train_sft", folder, **sft_options(tiny_model, rows, SFT))
    assert run.returncode == 0, run.stderr + (folder / "sft.log").read_text()
    return folder
