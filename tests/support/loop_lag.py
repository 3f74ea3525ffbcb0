"""How long event loops were kept from running. Their delay is not that of the code under test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

TURN = 0.005  # seconds after which the loop is to come round again
USUAL = 0.001  # by which it always is late
STALL = 0.05

_all: list[LoopLag] = []


class LoopLag:
    """The delay of one event loop, in seconds: the sum, and each long stall."""

    def __init__(self) -> None:
        self.total = 0.0
        self._stalls: list[tuple[float, float]] = []  # when they ended, and how long they were

    def longest_since(self, moment: float) -> float:
        """The longest stall that ended after a moment of the machine's monotonic clock."""
        return max((length for ended, length in self._stalls if ended >= moment), default=0.0)

    async def measure(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(TURN)
            now = time.monotonic()
            late = now - before - TURN - USUAL
            self.total += max(0.0, late)
            if late > STALL:
                self._stalls.append((now, late))


@asynccontextmanager
async def measure_loop_lag() -> AsyncIterator[LoopLag]:
    """The lag of this loop, for as long as the block runs."""
    lag = LoopLag()
    _all.append(lag)
    measuring = asyncio.ensure_future(lag.measure())
    try:
        yield lag
    finally:
        measuring.cancel()


def longest_stall(since: float) -> float:
    """The longest one of all the loops of this process that were measured, also of those that have ended."""
    return max((each.longest_since(since) for each in _all), default=0.0)
