"""Calls that wait outside the queues: for a ban to end, for a second opinion on a token, before an attempt."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from asgi_ratelimit.discord.calls import Waiting
from asgi_ratelimit.discord.errors import Cause
from asgi_ratelimit.discord.routes import Route

__all__ = ["RestingCalls"]


@dataclass(frozen=True, slots=True, eq=False)
class _Rest:
    """Why a call waits, and until when. `over`: the future that ends it, if it has its own."""

    route: str
    cause: Cause
    until_us: int
    over: asyncio.Future[None] | None


class RestingCalls:
    """The calls of one event loop that wait outside the queues."""

    def __init__(self) -> None:
        self._all: dict[_Rest, None] = {}  # in the order of their beginning

    @contextmanager
    def noted(
        self, route: Route, cause: Cause, until_us: int, over: asyncio.Future[None] | None = None
    ) -> Iterator[None]:
        """A call is shown as waiting within this block."""
        rest = _Rest(str(route), cause, until_us, over)
        self._all[rest] = None
        try:
            yield
        finally:
            del self._all[rest]

    def waiting(self, now_us: int) -> list[Waiting]:
        """These calls by route and cause."""
        rests = list(self._all)
        counts = Counter((rest.route, rest.cause) for rest in rests)
        first = {(rest.route, rest.cause): rest for rest in reversed(rests)}
        return [
            Waiting(route, count, cause, max(0, first[route, cause].until_us - now_us) / 1e6, "", 0, 0)
            for (route, cause), count in counts.items()
        ]

    def end(self, problem: str) -> None:
        """End the waits that have a future of their own, with a RuntimeError."""
        for over in [rest.over for rest in self._all]:
            if over is not None and not over.done():
                over.set_exception(RuntimeError(problem))
                over.exception()  # a call that is cancelled at this moment never reads it, and that is no error
