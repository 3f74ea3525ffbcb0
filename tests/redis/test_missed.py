"""Checks that are decided without a server that is up: all of them are counted, and reported once a minute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgi_ratelimit.redis import StoreEvent
from asgi_ratelimit.redis.breaker import Breaker
from asgi_ratelimit.redis.missed import Missed


class Timer:
    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due, self.callback, self.is_cancelled = due, callback, False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """An event loop whose time moves by `advance` only."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, callback: Callable[[], object]) -> Timer:
        self.timers.append(Timer(due, callback))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer.due <= self.now and not timer.is_cancelled]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            timer.callback()


class Waiting:
    """A check."""

    def __init__(self, *, answered: bool = False) -> None:
        self.future = self
        self._answered = answered

    def done(self) -> bool:
        return self._answered

    def fail(self, error: BaseException) -> None:
        self._answered = True


def opened() -> tuple[Any, Loop, Breaker, list[StoreEvent]]:
    events: list[StoreEvent] = []
    loop: Any = Loop()
    breaker = Breaker("host:1", events.append)
    return Missed(breaker, loop), loop, breaker, events


def test_the_first_are_reported_after_a_second_and_the_next_after_a_minute() -> None:
    missed, loop, _, events = opened()
    missed.fail([Waiting(), Waiting()], TimeoutError("too late"))
    missed.fail([Waiting()], TimeoutError("too late"))
    assert events == []
    loop.advance(1.0)
    assert events == [StoreEvent("missed", "host:1", "too late", 0.0, 3)]
    for _ in range(59):
        missed.fail([Waiting()], TimeoutError("too late"))
        loop.advance(1.0)
    assert len(events) == 1
    loop.advance(1.0)
    assert [event.checks for event in events] == [3, 59]
    assert [timer for timer in loop.timers if not timer.is_cancelled] == []


def test_a_check_that_has_its_answer_is_not_counted() -> None:
    missed, loop, _, events = opened()
    missed.fail([Waiting(answered=True)], OSError())
    loop.advance(100.0)
    assert events == []


def test_those_of_an_outage_are_reported_at_its_end() -> None:
    missed, loop, breaker, events = opened()
    missed.fail([Waiting()], OSError("gone"))
    breaker.trip(OSError("gone"))
    missed.fail([Waiting()], OSError("gone"))
    loop.advance(100.0)
    breaker.record_probe(None)
    loop.advance(100.0)
    assert [(event.kind, event.checks) for event in events] == [("down", 0), ("up", 2)]


def test_the_rest_is_reported_at_the_end_of_the_connection() -> None:
    missed, loop, _, events = opened()
    missed.fail([Waiting()], TimeoutError())
    missed.report()
    assert [(event.kind, event.cause, event.checks) for event in events] == [("missed", "TimeoutError", 1)]
    loop.advance(100.0)
    assert len(events) == 1
