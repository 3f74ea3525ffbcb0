"""The order of calls: those of one channel or webhook go one after the other."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from asgi_ratelimit.discord.calls import Waiting
from asgi_ratelimit.discord.errors import DiscordRateLimited
from asgi_ratelimit.discord.routes import Route

__all__ = ["Order"]


class Order:
    """Lines of calls on one event loop. In each of them a call goes when the one before it has its response."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[asyncio.Future[None]]] = {}
        self._routes: dict[asyncio.Future[None], Route] = {}  # of the calls that wait

    @property
    def waiting(self) -> list[Waiting]:
        """The calls that wait for the response to one before them, by route and resource."""
        counts = Counter(map(str, list(self._routes.values())))
        return [Waiting(route, count, "answer", 0.0, "", 0, 0) for route, count in counts.items()]

    @asynccontextmanager
    async def turn(self, owner: Hashable, route: Route, seconds: float | None) -> AsyncIterator[None]:
        """Wait for the call's turn. Raises DiscordRateLimited if that takes longer than `seconds`."""
        line = (owner, route.major)
        waiting = self._lines.setdefault(line, deque())
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(ready)
        try:
            if waiting[0] is not ready:
                self._routes[ready] = route
                await _within(ready, seconds, route)
                del self._routes[ready]
            yield
        finally:
            self._routes.pop(ready, None)
            self._leave(line, waiting, ready)

    def _leave(self, line: Hashable, waiting: deque[asyncio.Future[None]], ready: asyncio.Future[None]) -> None:
        was_first = waiting[0] is ready
        waiting.remove(ready)
        if not waiting:
            del self._lines[line]
        elif was_first and not waiting[0].done():
            waiting[0].set_result(None)


async def _within(ready: asyncio.Future[None], seconds: float | None, route: Route) -> None:
    try:
        async with asyncio.timeout(seconds):
            await ready
    except TimeoutError:
        raise DiscordRateLimited(route, 0.0, "answer") from None
