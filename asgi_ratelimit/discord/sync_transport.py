"""An asynchronous transport for threads: its calls run in an event loop in a daemon thread."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import httpx

from asgi_ratelimit.store import Store
from asgi_ratelimit.sync.loop_thread import LoopThread, current_loop_thread, release, use_of

__all__ = ["SyncTransport"]

Value = TypeVar("Value")

CLOSED: Final = "Cannot send a request, as the client has been closed."
_SMALL: Final = 65_536  # bytes of a body that is read at once: a thread waits once, not for each piece
_CLOSE_S: Final = 0.8


class SyncTransport(httpx.BaseTransport):
    """Any number of threads may send through it. A forked process has connections of its own.

    inner: the transport that sends, in the event loop that all SyncLimiters and SyncDiscordClients share
    store: that of `inner`; its connections on that loop are closed with the last of its users
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, store: Store) -> None:
        self._inner, self._store, self._use = inner, store, use_of(store)
        self._loop_thread: LoopThread | None = None  # that has run calls
        self._tasks: set[asyncio.Task[object]] = set()  # used in the loop only
        self._is_closed = False
        weakref.finalize(self, release, inner).atexit = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As that of the inner transport. An exception that ends the wait, such as KeyboardInterrupt, ends the call."""
        request.read()
        return self.run(partial(self._send, request))

    def run(self, verb: Callable[[], Awaitable[Value]]) -> Value:
        """The result of a function that runs in the event loop. Raises RuntimeError if the client has been closed."""
        if self._is_closed:
            raise RuntimeError(CLOSED)
        self._loop_thread = current_loop_thread()
        return self._loop_thread.run(self._store, partial(self._ended_by_close, verb), self._inner)

    def start(self) -> None:
        """Start the loop, so that the first call need not: at the end of the program it could not."""
        current_loop_thread().start()

    def close(self) -> None:
        """End all calls, with a RuntimeError for each, and close the connections. It takes less than a second."""
        self._is_closed = True
        if self._loop_thread is current_loop_thread():
            with suppress(TimeoutError, RuntimeError):  # the interpreter has ended the loop, and closed all
                self._loop_thread.run(self._store, self._close)
            release(self._inner)

    # The rest runs in the loop

    async def _ended_by_close(self, verb: Callable[[], Awaitable[Value]]) -> Value:
        task: asyncio.Task[object] | None = asyncio.current_task()
        if task is None or self._is_closed:
            raise RuntimeError(CLOSED)
        self._tasks.add(task)
        try:
            return await verb()
        except asyncio.CancelledError:
            if self._is_closed:
                raise RuntimeError(CLOSED) from None
            raise
        finally:
            self._tasks.discard(task)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) <= _SMALL:
            await _read(response)
        if not isinstance(response.stream, httpx.SyncByteStream):  # here, lest the thread is struck meanwhile
            response.stream = _Body(self, current_loop_thread(), response.stream)
        return response

    async def _close(self) -> None:
        async with asyncio.timeout(_CLOSE_S):
            tasks = {task for task in self._tasks if task.get_loop() is asyncio.get_running_loop()}  # no parent's
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            await self._inner.aclose()


class _Body(httpx.SyncByteStream):
    """A response's body, which arrives in the loop piece by piece. A body that nobody holds any more is closed."""

    def __init__(self, transport: SyncTransport, loop_thread: LoopThread, body: httpx.AsyncByteStream) -> None:
        self._transport, self._loop_thread, self._body = transport, loop_thread, body
        loop_thread.hold(body)
        self._close = weakref.finalize(self, release, body)
        self._close.atexit = False

    def __iter__(self) -> Iterator[bytes]:
        if self._loop_thread is not current_loop_thread():
            raise RuntimeError(
                "this response belongs to the process that this one was forked from; send the request here"
            )
        pieces = aiter(self._body)
        while (piece := self._transport.run(partial(_next, pieces))) is not None:
            yield piece

    def close(self) -> None:
        """Let the loop close it, before all later calls. An exception that strikes the thread does not prevent that."""
        self._close()


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


async def _read(response: httpx.Response) -> None:
    """Read the body without decoding it."""
    body = response.stream
    if isinstance(body, httpx.ByteStream) or not isinstance(body, httpx.AsyncByteStream):
        return
    try:
        response.stream = httpx.ByteStream(b"".join([piece async for piece in body]))
    finally:
        await body.aclose()
