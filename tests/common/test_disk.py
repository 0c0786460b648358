"""Too little disk space is reported before a download starts."""

import os
from pathlib import Path

import pytest

from scripts.common.disk import require_space
from scripts.common.errors import UserError


def test_with_enough_space_the_folder_is_created(tmp_path: Path) -> None:
    require_space(tmp_path / "cache" / "models", 1)
    assert (tmp_path / "cache" / "models").is_dir()


def test_too_little_space_is_refused_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        require_space(tmp_path, 10**18)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}: 1000000000.0 GB are needed, and only ")
    assert text.endswith("set run.cache to a larger disk") and "\n" not in text


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX paths")
def test_a_file_in_place_of_the_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"cannot be used as a cache \(Not a directory\); set run.cache"):
        require_space(tmp_path / "cache" / "models", 1)
