"""Turns: so many requests begin in each turn of the event loop, so that those that are ready to go on may do so."""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["Turn", "TurnLine", "TurnRate"]

Turn = asyncio.Future[bool]  # whether it has come; else the request is shed


class TurnRate(Protocol):
    """The reader of a controller. per_turn: how many requests may begin in one turn of the loop."""

    per_turn: int


class TurnLine:
    """A line of requests, first come first served. Each turn of the event loop begins the next ones.

    What comes in at once would work at once, and hold up all others.
    """

    def __init__(self, quota: TurnRate) -> None:
        self._quota = quota
        self._line: dict[Turn, int] = {}  # and the class of each
        self._begun = 0  # in this turn of the loop, or too many before
        self._is_planned = False

    def begins(self, loop: asyncio.AbstractEventLoop, *, at_once: bool = False) -> bool:
        """Whether one more may begin in this turn of the loop; it counts then. `at_once`: it may in any case."""
        if not at_once and (self._line or self._begun >= self._quota.per_turn):
            return False
        self._begun += 1
        self._plan(loop)
        return True

    def wait(self, loop: asyncio.AbstractEventLoop, one: int) -> Turn:
        """A place in the line, for a request of this class."""
        turn: Turn = loop.create_future()
        self._line[turn] = one
        self._plan(loop)
        return turn

    def shed(self, number: int) -> None:
        """Shed so many: the least important ones, and of those the ones that have waited longest."""
        chosen = sorted(self._line, key=self._line.__getitem__, reverse=True)[:number] if number > 0 else ()
        for turn in chosen:
            del self._line[turn]
            _answer(turn, False)

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_planned:
            self._is_planned = True
            loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """A new turn of the loop: the first ones of the line may begin."""
        quota, self._is_planned = self._quota.per_turn, False
        self._begun = max(0, self._begun - quota)
        while self._line and self._begun < quota:
            turn = next(iter(self._line))
            del self._line[turn]
            self._begun += _answer(turn, True)
        if self._line or self._begun:
            self._plan(loop)


def _answer(turn: Turn, has_come: bool) -> bool:
    """Whether anybody waits for it. Else its client has left."""
    if turn.done():
        return False
    turn.set_result(has_come)
    return True
