"""What the apps of all frameworks stream: one part at once, and the next when another request releases it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

__all__ = ["FIRST", "LAST", "parts", "release"]

FIRST, LAST = b"first\n", b"last\n"

_released = asyncio.Event()


async def parts() -> AsyncIterator[bytes]:
    yield FIRST
    await _released.wait()
    yield LAST


def release() -> None:
    _released.set()
