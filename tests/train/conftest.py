"""A finished SFT stage of the tiny model, which other tests start from or compare with."""

from pathlib import Path
from typing import Any

import pytest

from scripts.common.config import RowType
from tests.common.running import call_main
from tests.train.stages import SFT, chat, sft_options, write_rows


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows of each row type. All have the same right answer, so that a few steps learn it."""
    folder = tmp_path_factory.mktemp("rows")
    right = chat(0)["messages"][1:]
    asked = [{"source_index": i, "prompt": chat(i)["messages"][:1]} for i in range(16)]
    wrong = [[{"role": "assistant", "content": f"no {i}"}] for i in range(16)]
    rows: dict[RowType, list[dict[str, Any]]] = {
        "messages": [chat(i) for i in range(24)],
        "preference": [row | {"chosen": right, "rejected": wrong[i]} for i, row in enumerate(asked)],
        "kto": [row | {"completion": (wrong[i], right)[i % 2], "label": bool(i % 2)} for i, row in enumerate(asked)],
        "prompt": [row | {"answer": "yes"} for row in asked],
    }
    for row_type, given in rows.items():
        write_rows(folder / f"{row_type}.parquet", row_type, given)
        write_rows(folder / f"no_{row_type}.parquet", row_type, [])
    write_rows(folder / "validation.parquet", "messages", [chat(i) for i in range(24, 28)])
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows: Path) -> Path:
    """Folder of an uninterrupted SFT stage."""
    folder = tmp_path_factory.mktemp("sft")
    call_main("train.train_sft", folder, **sft_options(tiny_model, rows, SFT))
    return folder
