"""Work that a cancellation does not stop: neither one of asyncio, nor one of a scope of anyio."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

__all__ = ["to_its_end"]

Result = TypeVar("Result")


async def to_its_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it to its end. If the caller is cancelled in the meantime, it is cancelled after that."""
    task, cancellation = asyncio.ensure_future(work), None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancellation = error
    if cancellation is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # it is read, so that no log line says otherwise
    raise cancellation
