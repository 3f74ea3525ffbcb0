"""A block of code that ends at a moment of the store's clock, whatever it is waiting for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asgi_ratelimit.clock import Clock

__all__ = ["within"]


@asynccontextmanager
async def within(clock: Clock, seconds: float) -> AsyncIterator[None]:
    """Raises TimeoutError if the block takes longer. As with `asyncio.timeout`, it is cancelled then."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as timeout:
        timer = clock.call_later(seconds, lambda: timeout.reschedule(loop.time()))
        try:
            yield
        finally:
            timer.cancel()
