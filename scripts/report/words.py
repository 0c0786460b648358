"""The words of the report in one language."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from scripts.common.markdown import Markdown, finalise


class Words:
    """Sentences and labels in one language.

    `words("key")` is the text of a key, and `words("key", n=3)` replaces its `{n}`. Values are escaped unless they are
    Markdown.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    @classmethod
    def read(cls, path: Path) -> "Words":
        """Read a YAML file of words."""
        return cls(yaml.safe_load(path.read_text(encoding="utf-8")))

    def __call__(self, key: str, **values: object) -> Markdown:
        return Markdown(self._texts[key].format(**{name: finalise(value) for name, value in values.items()}))

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def either(self, prefix: str, name: str) -> object:
        """The text of `<prefix>_<name>`, or the name itself if there is none."""
        key = f"{prefix}_{name}"
        return self(key) if key in self else name

    def enumerate(self, names: Sequence[object]) -> Markdown:
        """List at least one name: `a, b and c`."""
        *most, last = map(finalise, names)
        if not most:
            return Markdown(last)
        return Markdown(self("list_comma").join(most) + self("list_and") + last)
