"""A check for free disk space before large files are written."""

import shutil
from pathlib import Path

from scripts.common.errors import UserError


def require_space(folder: Path, needed: int) -> None:
    """Create the folder. Raises UserError if that fails, or if fewer than `needed` bytes are free in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be used as a cache ({error.strerror}); set run.cache to a folder that you can write to"
        ) from None
    if free < needed:
        raise UserError(
            f"{folder}: {needed / 1e9:.1f} GB are needed, and only {free / 1e9:.1f} GB are free; "
            "free up space, or set run.cache to a larger disk"
        )
