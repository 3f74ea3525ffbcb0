"""Attempts that are held: one line for each key, of which only the head asks, woken as soon as a result is known."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.waiting import WaitQueue

__all__ = ["Answer", "HeldAttempts"]

_POLL_S: Final = 0.05  # in which a result in another process is seen


class Answer(Protocol):
    """The answer to an attempt."""

    @property
    def is_final(self) -> bool:
        """Whether no result of another attempt can change it."""
        ...


AnswerT = TypeVar("AnswerT", bound=Answer)


class _Line:
    def __init__(self, clock: Clock) -> None:
        self.queue: WaitQueue[None] = WaitQueue(clock)
        self.news = asyncio.Event()


class HeldAttempts:
    """The lines of one limiter, one for each key and event loop. An empty line is dropped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._arrivals = itertools.count()
        self._lines: dict[tuple[int, str], _Line] = {}

    async def ask(self, key: str, question: Callable[[], Awaitable[AnswerT]], deadline_us: int) -> AnswerT:
        """Ask until the answer is final, or the deadline has passed. First come, first served."""
        arrival, place = next(self._arrivals), (id(asyncio.get_running_loop()), key)
        if place not in self._lines:
            answer = await question()
            if answer.is_final or self._clock.now_us() >= deadline_us:
                return answer
        line = self._lines.setdefault(place, _Line(self._clock))
        waiter = line.queue.enter((0, arrival), deadline_us)
        try:
            if waiter.turn.done() or await line.queue.wait_turn(waiter):
                return await self._ask_as_head(line, question, deadline_us)
            return await question()
        finally:
            if line.queue.leave(waiter) and self._lines.get(place) is line:
                del self._lines[place]

    def wake(self, key: str) -> None:
        """A result is known: let the head of this event loop's line ask again."""
        line = self._lines.get((id(asyncio.get_running_loop()), key))
        if line is not None:
            line.news.set()

    async def _ask_as_head(self, line: _Line, question: Callable[[], Awaitable[AnswerT]], deadline_us: int) -> AnswerT:
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
