"""Functions of the user's own, which the configuration names as `file.py:function`."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError, nearest


def load_function(path: str, where: str) -> Callable[..., Any]:
    """The function that `file.py:function` names.

    Raises:
        UserError: it cannot be had; `where` is the key to name.
    """
    file, _, attribute = path.rpartition(":")
    if not Path(file).is_file():
        raise UserError(f"{where}: there is no file {file}")
    spec = importlib.util.spec_from_file_location(where.replace(".", "_"), file)
    if spec is None or spec.loader is None:
        raise UserError(f"{where}: {file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # data classes look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{where}: {file} cannot be loaded: {type(error).__name__}: {error}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise UserError(f"{where}: {file} has no function {attribute}{nearest(attribute, dir(module))}")
    loaded: Callable[..., Any] = function
    return loaded
