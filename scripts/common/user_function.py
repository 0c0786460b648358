"""The user's own functions, which the configuration names as `file.py:function`."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError, nearest


def load_function(path: str, where: str) -> Callable[..., Any]:
    """Load a function.

    Args:
        path: `file.py:function`.
        where: its key in the configuration, for the messages.

    Raises:
        UserError: the file is missing, cannot be loaded, or has no such function.
    """
    file, _, attribute = path.rpartition(":")
    if not Path(file).is_file():
        raise UserError(f"{where}: file {file} not found")
    spec = importlib.util.spec_from_file_location(where.replace(".", "_"), file)
    if spec is None or spec.loader is None:
        raise UserError(f"{where}: {file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module here
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{where}: {file} cannot be loaded: {type(error).__name__}: {error}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise UserError(f"{where}: {file} has no function {attribute}{nearest(attribute, dir(module))}")
    loaded: Callable[..., Any] = function
    return loaded
