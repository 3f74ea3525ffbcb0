"""How the reference is read from the code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_OPTION = re.compile(r"^`?([a-z_]\w*)`?: (?=\S)")


class Reference(griffe.Extension):
    """Shows options, one `name: text` per line of a docstring, as a list."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Keep the inherited signature of a dataclass that gets no `__init__`."""
        generated = "__init__" in cls.members and not cls.members["__init__"].lineno
        if generated and any(
            "init=False" in str(each.value) for each in cls.decorators
        ):
            cls.del_member("__init__")

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            paragraphs = obj.docstring.value.split("\n\n")
            obj.docstring.value = "\n\n".join(map(as_list, paragraphs))


def as_list(paragraph: str) -> str:
    """The paragraph as a list if it consists of options and indented lines."""
    lines = paragraph.splitlines()
    options = [line for line in lines if _OPTION.match(line)]
    others = [line for line in lines if line not in options]
    if len(options) < 2 or not all(line.startswith("  ") for line in others):
        return paragraph
    return "\n".join(_OPTION.sub(r"- `\1`: ", line) for line in lines)
