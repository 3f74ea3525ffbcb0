"""Turns: of many calls that start at once a few are prepared at a time, so that the first ones leave meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Final

from asgi_ratelimit.discord.routes import INTERACTION

__all__ = ["Turns"]

_AT_ONCE: Final = 8  # calls in one pass of the event loop; each takes 0.2 ms or so until it waits for something
_NO_TIME_S: Final = 1e-6  # the shortest deadline
_Options = Mapping[str, Any] | None


@dataclass(slots=True, eq=False)
class _Line:
    """The calls of one event loop: those that have started in this pass of it, and those that wait for another."""

    started: int = 1
    waiting: list[tuple[float, int, asyncio.Future[None]]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)


class Turns:
    """Lets a few calls start in each pass of an event loop. The others wait, those of the highest priority first."""

    def __init__(self, *, is_ordered: bool = False) -> None:
        """`is_ordered`: calls keep their order, whatever their priorities are, unless one says otherwise."""
        self._is_ordered = is_ordered
        self._lines: dict[asyncio.AbstractEventLoop, _Line] = {}  # of event loops with calls in their present pass

    async def take(self, url: object, extensions: _Options) -> _Options:
        """Wait for the turn of a call to this address. Returns its extensions, with the time left to its deadline."""
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            self._lines[loop] = _Line()
            loop.call_soon(self._go_on, loop)
            return extensions
        if line.started < _AT_ONCE and not line.waiting:
            line.started += 1
            return extensions
        turn: asyncio.Future[None] = loop.create_future()
        heappush(line.waiting, (self._rank(str(url), extensions or {}), next(line.numbers), turn))
        came = loop.time()
        await turn
        return _after(loop.time() - came, extensions)

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the next pass of the event loop: the turn of the next ones. A call that was cancelled takes none."""
        line = self._lines[loop]
        line.started = 0
        while line.waiting and line.started < _AT_ONCE:
            _, _, turn = heappop(line.waiting)
            if not turn.done():
                turn.set_result(None)
                line.started += 1
        if line.started:
            loop.call_soon(self._go_on, loop)
        else:
            del self._lines[loop]
            self._forget_closed()

    def _forget_closed(self) -> None:
        """An event loop that was closed in the middle of a pass never comes back."""
        for loop in [each for each in list(self._lines) if each.is_closed()]:
            self._lines.pop(loop, None)

    def _rank(self, url: str, extensions: Mapping[str, Any]) -> float:
        """The lowest goes first: calls about interactions, which have seconds only, then by priority."""
        if "interactions/" in url or INTERACTION in url:
            return -math.inf
        ordered = extensions.get("ordered")
        if self._is_ordered if ordered is None else ordered:
            return 0.0
        priority = extensions.get("priority", 0)
        return -priority if isinstance(priority, int) else 0.0


def _after(seconds: float, extensions: _Options) -> _Options:
    """The same, so many seconds later."""
    deadline = extensions.get("deadline") if extensions else None
    if (
        extensions is None
        or isinstance(deadline, bool)
        or not isinstance(deadline, (int, float))
        or not 0 < deadline < math.inf
    ):
        return extensions
    return {**extensions, "deadline": max(deadline - seconds, _NO_TIME_S)}
