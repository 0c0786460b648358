"""Room on the disk, asked for before it is needed."""

import shutil
from pathlib import Path

from scripts.common.errors import UserError


def require_space(folder: Path, needed: int) -> None:
    """Make the folder, and raise UserError when fewer than `needed` bytes are free there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be used as a cache ({error.strerror}); set run.cache to a folder you can write"
        ) from None
    if free < needed:
        raise UserError(
            f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; "
            "free some, or set run.cache to a larger disk"
        )
