"""How late an event loop is, and how much of its time it works: one timer measures both."""

from __future__ import annotations

import asyncio
import time
from typing import Final
from weakref import WeakKeyDictionary

__all__ = ["LoopLag", "Loops"]

EVERY_S: Final = 0.02
_IDLE_S: Final = 2.0  # the timer ends if no question came for so long
_RESOLUTION_S: Final = 0.0015  # of timers, while nothing else runs: those of uvloop have whole milliseconds
_SHARE: Final = 0.2  # of one sample in the lag
_LOAD_S: Final = 0.5  # the time constant of the load


class LoopLag:
    """The lag and the load of one event loop.

    seconds: how late it comes to what is due, as a mean of about 100 ms
    latest: how late it came the last time
    load: the share of its time in which it works, or is late, from 0 to 1, as a mean of about half a second; 1 as well
        while requests are shed
    """

    def __init__(self) -> None:
        self.is_running = False
        self._asked_at = 0.0
        self._clear()

    @property
    def load(self) -> float:
        return max(self._busy, self._shedding)

    def shed(self) -> None:
        """Requests are shed just now."""
        self._shedding = 1.0

    def keep_running(self, loop: asyncio.AbstractEventLoop) -> None:
        """Measure from now on, for 2 s at least."""
        self._asked_at = loop.time()
        if not self.is_running:
            self.is_running = True
            self._sleep(loop)

    def note(self, elapsed: float, worked: float) -> None:
        """Count one sample: the seconds between two turns that were to be 20 ms apart, and those on the processor."""
        late = self.latest = max(0.0, elapsed - EVERY_S - _RESOLUTION_S)
        self.seconds += _SHARE * (late - self.seconds)
        busy = 1.0 if late else min(1.0, max(0.0, worked) / elapsed) if elapsed > 0 else 0.0
        share = min(1.0, elapsed / _LOAD_S)
        self._busy += share * (busy - self._busy)
        self._shedding -= share * self._shedding

    def _clear(self) -> None:
        self.seconds = self.latest = self._busy = self._shedding = 0.0

    def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(EVERY_S, self._wake, loop, loop.time(), time.thread_time())

    def _wake(self, loop: asyncio.AbstractEventLoop, slept_at: float, worked: float) -> None:
        now = loop.time()
        self.note(now - slept_at, time.thread_time() - worked)
        if now - self._asked_at > _IDLE_S:
            self.is_running = False
            self._clear()
        else:
            self._sleep(loop)


class Loops:
    """The lag of each event loop of this process. It ends with its loop."""

    def __init__(self) -> None:
        self._lags: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopLag] = WeakKeyDictionary()

    def of(self, loop: asyncio.AbstractEventLoop) -> LoopLag:
        """The lag of this loop, measured from now on."""
        lag = self._lags.get(loop)
        if lag is None:
            lag = self._lags.setdefault(loop, LoopLag())
        lag.keep_running(loop)
        return lag

    def load(self) -> float:
        """The load of the busiest loop that is measured now."""
        lags = [lag for loop, lag in list(self._lags.items()) if not loop.is_closed()]
        return max([lag.load for lag in lags], default=0.0)
