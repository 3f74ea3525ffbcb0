"""An event loop of asyncio in virtual time: it never waits, and work takes as long as it says."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

from asgi_ratelimit.testing import ManualClock

__all__ = ["VirtualLoop"]


class _Selector(selectors.SelectSelector):
    """Instead of waiting for sockets it moves the clock to the next timer."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing is planned any more, so the loop would wait for ever")
        self._clock.advance(max(0.0, timeout))
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, with its own order of turns, by a clock that only it and `work` move."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.started, self.worked = self.clock.wall(), 0.0
        super().__init__(_Selector(self.clock))
        self._clock_resolution = 2e-6  # the clock has whole microseconds

    def time(self) -> float:
        return self.clock.now_us() / 1e6

    def work(self, seconds: float) -> None:
        """Keep the processor, and so the loop, busy."""
        self.worked += seconds
        self.clock.advance(seconds)

    def run(self, task: Coroutine[Any, Any, Any]) -> None:
        """Run a task to its end, cancel all others, and close the loop."""
        with asyncio.Runner(loop_factory=lambda: self) as runner:
            runner.run(task)
