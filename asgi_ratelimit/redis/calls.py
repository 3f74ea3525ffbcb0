"""The calls of scripts: the checks that travel in one, and the replies that are expected."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol

from asgi_ratelimit.redis.wire import Question, Reply, Script

__all__ = ["Batch", "Check", "Redirect", "groups_of", "is_answer"]


class Check(Question, Protocol):
    """A question to the server, and the caller that waits for the answer."""

    script: Script  # that answers it
    slot: int  # of a cluster; 0 elsewhere
    due: float  # the moment, by the event loop's clock, at which it is answered without the server
    asking: bool  # it follows an ASK
    hops: int  # how often it was sent elsewhere
    future: asyncio.Future[Any]

    def answer(
        self, checks: Sequence[Check], number: int, reply: Reply, place: int, sent_us: int, received_us: int, /
    ) -> tuple[int, int]:
        """Read the answer at `place`, to this check, which has this number among the checks of its call.

        Checks that follow may be answered as well. Returns the number of the first that has not been, and the place of
        its answer.
        """
        ...

    def fail(self, error: BaseException, /) -> None:
        """Answer without the server."""
        ...


Redirect = Callable[[str, Sequence[Check]], None]  # the server's message, and the checks that it concerns


class Batch:
    """A call in flight: for each expected reply the checks that it answers, or None if it answers no check."""

    __slots__ = ("due", "expected", "first_due", "sent_at", "sent_us", "size", "without_script")

    def __init__(self, sent_us: int, sent_at: float, due: float, first_due: float, size: int) -> None:
        self.sent_us = sent_us
        self.sent_at = sent_at  # by the event loop's clock
        self.due, self.first_due = due, first_due  # of the call itself, and of the first check that waits for it
        self.size = size  # checks
        self.expected: deque[Sequence[Check] | None] = deque()
        self.without_script: list[Sequence[Check]] = []  # the server does not have their script yet

    def checks(self) -> list[Check]:
        return [check for group in (*self.expected, *self.without_script) if group for check in group]


def groups_of(checks: Sequence[Check], *, by_slot: bool) -> Sequence[Sequence[Check]]:
    """One group for each call of a script: of one slot in a cluster, and of those that follow an ASK."""
    if len(checks) == 1 or len({*map(_place_in_cluster if by_slot else _script_of, checks)}) == 1:
        return [checks]
    place = _place_in_cluster if by_slot else _sha_of
    return [list(group) for _, group in groupby(sorted(checks, key=place), key=place)]


_script_of, _sha_of = attrgetter("script"), attrgetter("script.sha")
_place_in_cluster = attrgetter("script.sha", "slot", "asking")


def is_answer(reply: Reply, number: int) -> bool:
    """Whether it is the reply of a script to the call of that number."""
    return len(reply) > 2 and reply[-1] == number and type(reply[0]) is int and reply[0] > 0
