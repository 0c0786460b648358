"""The base class of all sections of the configuration, and checks that several of them use."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)]

_SCIENTIFIC = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+$")


def _read_scientific(value: Any) -> Any:
    """Turn `1e-5`, which YAML reads as text, into a number, at any depth."""
    if isinstance(value, str) and _SCIENTIFIC.match(value):
        return float(value)
    if isinstance(value, Mapping):
        return {key: _read_scientific(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_read_scientific(item) for item in value]
    return value


Arguments = Annotated[dict[str, Any], BeforeValidator(_read_scientific)]


class Section(BaseModel):
    """A part of the configuration. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def as_dict(self) -> dict[str, Any]:
        """The section as plain JSON types, in the order of its fields. Rules pass it to their scripts."""
        return self.model_dump(mode="json", by_alias=True)


def check_pattern(where: str, pattern: str) -> None:
    """Raises ValueError if `pattern` is not a valid regular expression. `where` is its key, for the message."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{where} is not a valid regular expression: {error}") from error


def check_function(where: str, function: str) -> None:
    """Raises ValueError if `function` does not have the form `file.py:function`. `where` is its key."""
    if not re.fullmatch(r".+\.py:[A-Za-z_]\w*", function):
        raise ValueError(f"{where} must have the form 'file.py:function', found '{function}'")
