"""Standing in line: by priority, then by arrival, each with a moment at which it gives up."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from dataclasses import dataclass
from operator import attrgetter

from asgi_ratelimit.discord.permits.bucket import FIXED, SLIDING
from asgi_ratelimit.discord.permits.memory import SECOND_US, Wait

__all__ = ["Queue", "Turn"]


_rank = attrgetter("rank")


@dataclass(slots=True, eq=False)
class Turn:
    """A place in a queue: higher priorities first, then who came first, also on a second attempt."""

    rank: tuple[int, int]
    due_us: int | None  # when it gives up
    called: asyncio.Future[bool]  # True: it is your turn; False: it would be too late


class Queue:
    """Calls of which only the first asks the store. What it was told is remembered for those behind."""

    __slots__ = ("_behind", "_head", "_heard_us", "_lease", "_per_second")

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._head: Turn | None = None
        self._behind: list[Turn] = []
        self._lease: Wait | None = None
        self._heard_us = 0

    def __len__(self) -> int:
        return len(self._behind) + (self._head is not None)

    @property
    def is_held(self) -> bool:
        """Whether anybody in it has to wait."""
        return bool(self._behind) or self._lease is not None

    @property
    def lease(self) -> Wait | None:
        """What the store said last."""
        return self._lease

    def enter(self, turn: Turn) -> None:
        if self._head is None:
            self._head = turn
            turn.called.set_result(True)
        else:
            insort(self._behind, turn, key=_rank)

    def leave(self, turn: Turn) -> None:
        """Give the place up, served or not: the next one is called if it was the first."""
        if turn is not self._head:
            place = self.place_of(turn) - 1
            if place < len(self._behind) and self._behind[place] is turn:
                del self._behind[place]
            return
        self._head = None
        while self._behind and self._head is None:
            following = self._behind.pop(0)
            if not following.called.done():
                self._head = following
                following.called.set_result(True)

    def heard(self, lease: Wait, now_us: int) -> None:
        """Note what the first one was told; those behind who will be too late are told so."""
        self._lease, self._heard_us = lease, now_us
        for ahead, turn in enumerate(self._behind, start=1):
            if turn.due_us is not None and self.earliest_us(ahead, now_us) > turn.due_us and not turn.called.done():
                turn.called.set_result(False)

    def place_of(self, turn: Turn) -> int:
        """How many stand before it."""
        return 0 if turn is self._head else 1 + bisect_left(self._behind, turn.rank, key=_rank)

    def earliest_us(self, ahead: int, now_us: int) -> int:
        """When a call with so many before it can go at the earliest, as far as that is known."""
        lease = self._lease
        if lease is None or lease.wait_us < 0:
            return now_us
        due_us = self._heard_us + lease.wait_us
        if lease.cause == "bucket" and lease.kind == FIXED:
            due_us += ahead // lease.limit * lease.slot_us
        elif lease.cause == "bucket" and lease.kind == SLIDING:
            due_us += ahead * lease.slot_us
        elif lease.cause == "global":
            due_us += ahead // self._per_second * SECOND_US
        return max(now_us, due_us)

    def dismiss(self, said: str) -> None:
        """Nobody is served here any more: RuntimeError for who waits."""
        for turn in self._behind:
            if not turn.called.done():
                turn.called.set_exception(RuntimeError(said))
                turn.called.exception()  # it is no error that one who leaves at this moment never sees it
