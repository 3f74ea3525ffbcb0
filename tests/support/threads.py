"""Threads that wait, and a store that makes them wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from asgi_ratelimit import Decision, MemoryStore
from asgi_ratelimit.store import Store
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import wait_until

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

PATIENCE = 20  # seconds until a hanging test fails


class PromisingStore(Store):
    """A store of one's own that answers later; it is asked in an event loop only."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.shared = False
        self.closed = 0
        self.before: Callable[[], object] = lambda: None  # called in the loop, before each answer
        self._memory = MemoryStore(clock=clock)

    def open(self, *args: Any) -> Any:
        buckets, store = self._memory.open(*args), self

        class Promising:
            def __getattr__(self, verb: str) -> Any:
                async def later(*asked: Any, **more: Any) -> Any:
                    await asyncio.sleep(0)
                    store.before()
                    return getattr(buckets, verb)(*asked, **more)

                return later

        return Promising()

    async def clear(self) -> None:
        await self._memory.clear()

    async def start(self) -> None:
        return

    async def aclose(self) -> None:
        self.closed += 1


def started(function: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Future[Answer]:
    """Call it in a thread of its own, which does not outlive the tests."""
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(function(*args, **kwargs))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


def standing(limiter: SyncLimiter) -> int:
    """How many stand in its lines."""
    return sum(len(line) for line in list(limiter._limiter._waiting._queues.values()))


def joined(limiter: SyncLimiter, key: str, *, cost: int = 1, timeout: float | None = None) -> Future[Decision]:
    """A thread that waits in `acquire`, and has reached its place in the line."""
    before = standing(limiter)
    answer = started(limiter.acquire, key, cost, timeout=timeout)
    wait_until(lambda: standing(limiter) > before or answer.done(), "the thread stands in line")
    return answer


def pass_time(clock: ManualClock, seconds: float, *, sleepers: int = 1) -> None:
    """Let time pass as soon as so many sleep on the clock."""

    def asleep() -> int:
        return sum(timer._callback is not None for *_, timer in list(clock._timers))

    wait_until(lambda: asleep() >= sleepers, f"{sleepers} sleep")
    clock.advance(seconds)
