"""Requests that one door holds instead of refusing them, until they may go on or their client leaves."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.types import Message, Receive

__all__ = ["ClientGone", "Gone", "Holding", "ReadAhead"]

MOST_HELD = 1_000  # requests that one door holds at a time, at most
SHARE = 10  # at most a tenth of them is of one key
_READ_AHEAD = 65_536  # bytes of a body that are read while its request is held

Gone = Callable[[], Awaitable[None]]  # returns when the client has left
Result = TypeVar("Result")


class ClientGone(Exception):
    """The client left while its request was held."""


class Holding:
    """The requests that a door holds, and the wait of each. No key has more than a share of the places."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._count = 0

    def is_full(self, key: str) -> bool:
        """Whether no other request of this key may be held."""
        return self._count >= MOST_HELD or self._counts[key] >= max(1, MOST_HELD // SHARE)

    async def wait(
        self,
        key: str,
        waiting: Awaitable[Result],
        gone: Gone | None,
        on_lost: Callable[[Result], Awaitable[None]] | None = None,
    ) -> Result:
        """The result of `waiting`. Raises ClientGone as soon as the client has left.

        on_lost: called with a result that comes at the moment of a cancellation
        """
        self._count += 1
        self._counts[key] += 1
        try:
            return await (waiting if gone is None else _unless_gone(waiting, gone, on_lost))
        finally:
            self._count -= 1
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]


async def _unless_gone(
    waiting: Awaitable[Result], gone: Gone, on_lost: Callable[[Result], Awaitable[None]] | None
) -> Result:
    wait, leave = asyncio.ensure_future(waiting), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({wait, leave}, return_when=asyncio.FIRST_COMPLETED)
        if leave.done():  # the message that says so comes once, so the app would not learn of it
            raise ClientGone
        return wait.result()
    except (asyncio.CancelledError, ClientGone):
        if on_lost is not None and wait.done() and not wait.cancelled() and wait.exception() is None:
            await on_lost(wait.result())
        raise
    finally:
        await _cancel(wait, leave)


async def _cancel(*futures: asyncio.Future[Any]) -> None:
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


class ReadAhead:
    """Reads ahead while a request is held, to notice that its client leaves. The app receives the same messages."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: deque[Message] = deque()

    async def gone(self) -> None:
        """Return when the client has left."""
        size = 0
        while size <= _READ_AHEAD:
            message = await self._receive()
            self._messages.append(message)
            if message["type"] in ("http.disconnect", "websocket.disconnect"):
                return
            size += len(message.get("body", b""))
        await asyncio.get_running_loop().create_future()  # reads no further

    async def receive(self) -> Message:
        return self._messages.popleft() if self._messages else await self._receive()
