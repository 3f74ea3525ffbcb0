"""Code of the texts as modules that have run."""

from __future__ import annotations

import asyncio
import sys
from inspect import isclass, iscoroutinefunction
from types import ModuleType
from typing import Any

from tests.docs.markdown import Block

__all__ = ["run", "run_tests"]


def run(block: Block, **replacements: str) -> dict[str, Any]:
    """The names that the block defines."""
    source = block.source
    for old, new in replacements.items():
        source = source.replace(old, new)
    module = sys.modules[block.module] = ModuleType(block.module)
    module.__file__ = str(block.page)
    # The lines above it make tracebacks name the line of the page.
    exec(compile("\n" * block.line + source, str(block.page), "exec"), vars(module))
    return vars(module)


def run_tests(names: dict[str, Any]) -> None:
    """Run the tests among the names, as pytest would."""
    for name, value in names.items():
        if name.startswith("test_") and iscoroutinefunction(value):
            asyncio.run(value())
        elif name.startswith("Test") and isclass(value) and value.__module__ == names["__name__"]:
            for method in dir(value):
                if method.startswith("test_"):
                    asyncio.run(getattr(value(), method)())
