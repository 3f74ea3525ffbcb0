"""One value for each event loop: what waits on one loop cannot be used on another one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import WeakSet

__all__ = ["PerLoop"]

Value = TypeVar("Value")

_Values = dict[asyncio.AbstractEventLoop, Value]
_Lifetimes = dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]]


class PerLoop(Generic[Value]):
    """One value for each event loop. It ends with its event loop, or with `aclose`. A forked process begins anew."""

    def __init__(self, make: Callable[[], Value], close: Callable[[Value], Awaitable[object]]) -> None:
        self._make, self._close = make, close
        self._values: _Values[Value] = {}
        self._lifetimes: _Lifetimes = {}
        _all.add(self)

    def __len__(self) -> int:
        return len(self._values)

    def current(self) -> Value:
        """The value of the running event loop."""
        loop = asyncio.get_running_loop()
        value = self._values.get(loop)
        return self._new(loop) if value is None else value

    def all(self) -> list[Value]:
        """The values of all event loops. They may be in use in other threads."""
        return list(self._values.values())

    async def aclose(self) -> None:
        """Close all values, and wait for that of the running event loop."""
        running = asyncio.get_running_loop()
        for loop, lifetime in list(self._lifetimes.items()):
            if loop is not running:
                with suppress(RuntimeError):  # it has been closed
                    loop.call_soon_threadsafe(partial(_start_closing, lifetime))
        own = self._lifetimes.pop(running, None)
        if own is not None:
            await own.aclose()

    def abandon(self) -> None:
        """Drop all values without closing them. A forked process does so, since they belong to its parent."""
        _inherited.append((self._values, self._lifetimes))
        self._values, self._lifetimes = {}, {}

    def _new(self, loop: asyncio.AbstractEventLoop) -> Value:
        for former in [other for other in list(self._values) if other.is_closed()]:
            self._values.pop(former, None)
            self._lifetimes.pop(former, None)
        value = self._values[loop] = self._make()
        lifetime = self._lifetimes[loop] = _lifetime(loop, self._values, self._lifetimes, self._close)
        with suppress(StopIteration):
            lifetime.__anext__().send(None)
        return value


async def _lifetime(
    loop: asyncio.AbstractEventLoop,
    values: _Values[Value],
    lifetimes: _Lifetimes,
    close: Callable[[Value], Awaitable[object]],
) -> AsyncGenerator[None, None]:
    """Ends with `aclose`, or with the event loop, which ends its generators before it is closed."""
    try:
        yield
    finally:
        lifetimes.pop(loop, None)
        value = values.pop(loop, None)
        if value is not None:
            await close(value)


def _start_closing(lifetime: AsyncGenerator[None, None]) -> None:
    closing = asyncio.ensure_future(lifetime.aclose())
    _closing.add(closing)
    closing.add_done_callback(_closing.discard)


_all: WeakSet[PerLoop[Any]] = WeakSet()
_closing: set[asyncio.Future[None]] = set()
_inherited: list[object] = []  # from the parent of a fork: never closed, since the parent goes on using them


def _after_fork() -> None:
    for values in list(_all):
        values.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
