"""Clocks: the time in whole microseconds, and waiting for a later one."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from types import MethodType
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock", "Timer"]

_LONGEST_SLEEP = 10.0  # seconds of the event loop's clock


class Timer(Protocol):
    """Something that will happen unless it is cancelled."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """A clock that never needs to agree with another one, except in `wall`."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed moment; only whole microseconds count."""
        ...

    def now_us(self) -> int:
        """Microseconds since that moment."""
        return self.now_ns() // 1000

    def wall(self) -> float:
        """Seconds since the Unix epoch, for headers and events."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` on the running event loop once `seconds` have passed."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return when at least `seconds` have passed on this clock."""
        ...


def _steady_clock() -> Callable[[], int]:
    """The clock that goes on while the machine is suspended, where there is one. Linux's monotonic clock does not."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is not None:
        with suppress(OSError):  # the system has the name only
            time.clock_gettime_ns(boottime)
            return MethodType(time.clock_gettime_ns, boottime)  # called faster than a partial
    return time.monotonic_ns


class SystemClock(Clock):
    """The machine's steady clock: it neither jumps nor goes back, and goes on while the machine is suspended."""

    now_ns = staticmethod(_steady_clock())
    wall = staticmethod(time.time)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)

    async def sleep(self, seconds: float) -> None:
        # The loop's own clock may be up to its resolution early; the store's must not be. It may also stand still while
        # the machine is suspended, so a long sleep looks up now and then.
        until = self.now_us() + round(seconds * 1e6)
        while (left := until - self.now_us()) > 0:
            await asyncio.sleep(min(left / 1e6, _LONGEST_SLEEP))


class ManualClock(Clock):
    """A clock for tests: it stands still until `advance` is called, and counts whole microseconds.

    `start` is in seconds since the Unix epoch, so `wall()` is as deterministic as the rest.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = round(start * 1e6)
        self._timers: list[tuple[int, int, _ManualTimer]] = []
        self._order = itertools.count()

    def now_ns(self) -> int:
        return self._now * 1000

    def wall(self) -> float:
        return self._now / 1e6

    def advance(self, seconds: float) -> None:
        """Move by `seconds` (negative: the clock goes back) and fire the timers that are due."""
        self._now += round(seconds * 1e6)
        while self._timers and self._timers[0][0] <= self._now:
            heapq.heappop(self._timers)[2].fire()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        timer = _ManualTimer(asyncio.get_running_loop(), callback)
        due = self._now + max(0, round(seconds * 1e6))
        if due <= self._now:
            timer.fire()
        else:
            heapq.heappush(self._timers, (due, next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        done = asyncio.Event()
        timer = self.call_later(seconds, done.set)
        try:
            await done.wait()
        finally:
            timer.cancel()


class _ManualTimer:
    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        self._loop = loop
        self._callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        if self._callback is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._callback)
