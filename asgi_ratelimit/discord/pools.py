"""Many connections in small pools. httpx's own pool looks at all of its connections for each request.

With a hundred connections that costs more than the request: https://github.com/encode/httpcore/pull/1035
"""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import httpx

from asgi_ratelimit.discord.per_loop import PerLoop

__all__ = ["CONNECTIONS", "RESERVE", "LoopTransports", "Pools", "bound_to_loop", "pooled"]

CONNECTIONS: Final = 100  # by default, as in httpx; but all of them stay alive
RESERVE: Final = 10  # more, for interactions, which have seconds only and so do not wait for slow calls
_OWN_TRANSPORT: Final = (
    "the transport that you gave to this client {}: leave transport= out, and the client has connections for each "
    "event loop; or make a client with a transport for each"
)
_SIZE: Final = 4  # connections of one pool

MakeTransport = Callable[[httpx.Limits], httpx.AsyncBaseTransport]


def pooled(
    *,
    most: int = CONNECTIONS + RESERVE,
    limits: httpx.Limits | None = None,
    verify: ssl.SSLContext | str | bool = True,
    cert: str | tuple[str, str] | tuple[str, str, str] | None = None,
    trust_env: bool = True,
    **options: Any,
) -> httpx.AsyncBaseTransport:
    """httpx's own transport, with its own options. Over HTTP/2 one connection is enough, and one pool."""
    limits = limits or httpx.Limits(max_connections=most, max_keepalive_connections=most)
    context = httpx.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)

    def make_transport(limits: httpx.Limits) -> httpx.AsyncBaseTransport:
        return httpx.AsyncHTTPTransport(verify=context, trust_env=trust_env, limits=limits, **options)

    make = partial(make_transport if options.get("http2") else partial(Pools, make_transport), limits)
    return LoopTransports(make)


class LoopTransports(httpx.AsyncBaseTransport):
    """A transport for any number of event loops, each with connections of its own."""

    def __init__(self, make: Callable[[], httpx.AsyncBaseTransport]) -> None:
        """`make` makes one; the first one at once, as it takes its time and may refuse an option."""
        self._make, self._spare = make, [make()]
        self._transports = PerLoop(self._next, _close)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transports.current().handle_async_request(request)

    async def aclose(self) -> None:
        await self._transports.aclose()

    def _next(self) -> httpx.AsyncBaseTransport:
        return self._spare.pop() if self._spare else self._make()


class _LoopBound(httpx.AsyncBaseTransport):
    """A transport of the user's: its connections belong to the event loop that uses it, as long as that loop runs."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_moved = False  # it has served another event loop, which has ended

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._loop.is_running():
                raise RuntimeError(_OWN_TRANSPORT.format("is in use on another event loop"))
            self._loop, self._has_moved = loop, self._loop is not None
        try:
            return await self._inner.handle_async_request(request)
        except RuntimeError as error:
            if self._has_moved and "loop is closed" in str(error):
                raise RuntimeError(_OWN_TRANSPORT.format("has connections of an event loop that has ended")) from error
            raise

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _close(transport: httpx.AsyncBaseTransport) -> None:
    await transport.aclose()


def bound_to_loop(inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
    """A transport of the user's, which says so when two event loops use it at the same time: its calls would hang."""
    return inner if isinstance(inner, (LoopTransports, httpx.MockTransport)) else _LoopBound(inner)


@dataclass(slots=True, eq=False)
class _Pool:
    transport: httpx.AsyncBaseTransport
    size: int  # connections
    out: int = 0  # requests without a closed response
    used: float = 0.0  # when the last of them came


class Pools(httpx.AsyncBaseTransport):
    """A transport for the connections that `limits` allows. It opens no more of them than are needed at a time."""

    def __init__(self, make_transport: MakeTransport, limits: httpx.Limits) -> None:
        """`make_transport` makes the transport of one pool; the first one at once, as it takes its time."""
        self._make_transport, self._limits = make_transport, limits
        self._idle_s = math.inf if limits.keepalive_expiry is None else limits.keepalive_expiry
        self._pools: list[_Pool] = []
        self._roomy()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self._close_unused()
        pool = self._roomy()
        pool.out, pool.used = pool.out + 1, time.monotonic()
        try:
            response = await pool.transport.handle_async_request(request)
        except BaseException:
            pool.out -= 1
            raise
        response.stream = _Stream(response.stream, pool)
        return response

    async def aclose(self) -> None:
        pools, self._pools = self._pools, []
        for pool in pools:
            await pool.transport.aclose()

    def _roomy(self) -> _Pool:
        """The first one with a connection to spare, so that a few requests use the same few connections."""
        for pool in self._pools:
            if pool.out < pool.size:
                return pool
        most = self._limits.max_connections
        size = _SIZE if most is None else min(_SIZE, most - _SIZE * len(self._pools))
        if size <= 0:
            return min(self._pools, key=lambda pool: pool.out)
        pool = _Pool(self._make_transport(_part(self._limits, size)), size)
        self._pools.append(pool)
        return pool

    async def _close_unused(self) -> None:
        """Close the last pools: only many requests at a time need them."""
        oldest = time.monotonic() - self._idle_s
        while len(self._pools) > 1 and not self._pools[-1].out and self._pools[-1].used < oldest:
            await self._pools.pop().transport.aclose()


class _Stream(httpx.AsyncByteStream):
    """A response's body; when it is closed, the connection is free again."""

    def __init__(self, body: Any, pool: _Pool) -> None:
        self._body, self._pool, self._is_closed = body, pool, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            yield chunk

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._pool.out -= 1
        await self._body.aclose()


def _part(limits: httpx.Limits, size: int) -> httpx.Limits:
    """The share of limits for all connections that so many of them have."""
    most, idle = limits.max_connections, limits.max_keepalive_connections
    if idle is not None:
        idle = math.ceil(idle * size / most) if most else min(idle, 1)
    return httpx.Limits(max_connections=size, max_keepalive_connections=idle, keepalive_expiry=limits.keepalive_expiry)
