"""Attempts that are held: one line for each key, of which only the head asks, woken as soon as a result is known."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.waiting import WaitQueue

__all__ = ["Answered", "HeldAttempts"]

_POLL_S: Final = 0.05  # in which a result in another process is seen
_MOST_HELD: Final = 1_000  # attempts of all keys
_MOST_OF_A_KEY: Final = 100


class Answered(Protocol):
    """The answer to an attempt."""

    @property
    def is_final(self) -> bool:
        """Whether no result of another attempt can change it."""
        ...


AnswerT = TypeVar("AnswerT", bound=Answered)


class _HeldLine:
    def __init__(self, clock: Clock) -> None:
        self.queue: WaitQueue[None] = WaitQueue(clock)
        self.news = asyncio.Event()


class HeldAttempts:
    """The lines of one limiter, one for each key and event loop. An empty line is dropped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._arrivals = itertools.count()
        self._lines: dict[tuple[int, str], _HeldLine] = {}
        self._count = 0

    async def ask(
        self, key: str, question: Callable[[], Awaitable[AnswerT]], deadline_us: int
    ) -> tuple[AnswerT | None, float]:
        """Ask until the answer is final, or the deadline has passed. First come, first served.

        Returns the answer, and the seconds in the line. None: there is a line, and no room in it.
        """
        arrival, place = next(self._arrivals), (id(asyncio.get_running_loop()), key)
        answer, started_us = None, self._clock.now_us()
        if place not in self._lines:
            answer = await question()
            if answer.is_final or self._clock.now_us() >= deadline_us:
                return answer, 0.0
        line = self._lines.get(place)
        if self._count >= _MOST_HELD or (line is not None and len(line.queue) >= _MOST_OF_A_KEY):
            return answer, 0.0
        return await self._stand_in_line(place, arrival, question, deadline_us), self._seconds_since(started_us)

    def wake(self, key: str) -> None:
        """A result is known: let the head of this event loop's line ask again."""
        line = self._lines.get((id(asyncio.get_running_loop()), key))
        if line is not None:
            line.news.set()

    async def _stand_in_line(
        self, place: tuple[int, str], arrival: int, question: Callable[[], Awaitable[AnswerT]], deadline_us: int
    ) -> AnswerT:
        line = self._lines.setdefault(place, _HeldLine(self._clock))
        waiter = line.queue.enter((0, arrival), deadline_us)
        self._count += 1
        try:
            if waiter.turn.done() or await line.queue.wait_turn(waiter):
                return await self._ask_as_head(line, question, deadline_us)
            return await question()
        finally:
            self._count -= 1
            if line.queue.leave(waiter) and self._lines.get(place) is line:
                del self._lines[place]

    def _seconds_since(self, us: int) -> float:
        return (self._clock.now_us() - us) / 1e6

    async def _ask_as_head(
        self, line: _HeldLine, question: Callable[[], Awaitable[AnswerT]], deadline_us: int
    ) -> AnswerT:
        while True:
            line.news.clear()
            answer = await question()
            if answer.is_final or self._clock.now_us() >= deadline_us:
                return answer
            await self._next_news(line.news, deadline_us)

    async def _next_news(self, news: asyncio.Event, deadline_us: int) -> None:
        left_s = (deadline_us - self._clock.now_us()) / 1e6
        timer = self._clock.call_later(min(left_s, _POLL_S), news.set)
        try:
            await news.wait()
        finally:
            timer.cancel()
