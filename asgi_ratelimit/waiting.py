"""Waiting once: a queue in which only the head asks the store, and the queues of a limiter."""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, TypeVar

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import RateLimited, StoreUnavailable
from asgi_ratelimit.store import Buckets

__all__ = ["WaitQueue", "Waiter", "WaitersByKey"]

Reply = TypeVar("Reply")

Estimate = Callable[[Reply, int], int]

_rank = attrgetter("rank")


@dataclass(slots=True, eq=False)
class Waiter:
    """A place in a queue."""

    rank: tuple[int, int]  # the lowest is served first: (-priority, number of its arrival). Each rank is unique
    deadline_us: int | None  # None: it waits for ever
    turn: asyncio.Future[bool]  # True: it is the head. False: its turn comes too late


class WaitQueue(Generic[Reply]):
    """Waiters by rank. Only the head asks the store; its last reply also counts for the waiters behind it.

    `estimate(reply, ahead)`: microseconds from the reply to the earliest turn of a waiter with `ahead` others before
    it. With an estimate, waiters learn that they are too late as soon as a reply shows it.
    """

    __slots__ = ("_behind", "_clock", "_estimate", "_head", "last", "last_us")

    def __init__(self, clock: Clock, estimate: Estimate[Reply] | None = None) -> None:
        self._clock, self._estimate = clock, estimate
        self._head: Waiter | None = None
        self._behind: list[Waiter] = []
        self.last: Reply | None = None  # the last reply of the store
        self.last_us = 0  # when it came

    def __len__(self) -> int:
        return len(self._behind) + (self._head is not None)

    @property
    def is_held(self) -> bool:
        """Whether any waiter has to wait."""
        return bool(self._behind) or self.last is not None

    def enter(self, rank: tuple[int, int], deadline_us: int | None) -> Waiter:
        """A place in the queue of the running event loop. It has to be left."""
        waiter = Waiter(rank, deadline_us, asyncio.get_running_loop().create_future())
        if self._head is None:
            self._head = waiter
            waiter.turn.set_result(True)
        else:
            insort(self._behind, waiter, key=_rank)
        return waiter

    def leave(self, waiter: Waiter) -> bool:
        """Give the place up, served or not. After the head, the next one becomes the head. True: the queue is empty."""
        if waiter is self._head:
            self._head = None
            while self._behind and self._head is None:
                following = self._behind.pop(0)
                if not following.turn.done():
                    self._head = following
                    following.turn.set_result(True)
        else:
            place = self.position(waiter) - 1
            if place < len(self._behind) and self._behind[place] is waiter:
                del self._behind[place]
        return self._head is None

    async def wait_turn(self, waiter: Waiter) -> bool:
        """Wait until it is the head. False: its deadline passed, or is sure to pass."""
        if waiter.deadline_us is None:
            return await waiter.turn
        seconds = (waiter.deadline_us - self._clock.now_us()) / 1e6
        timer = self._clock.call_later(seconds, lambda: _give_up(waiter))
        try:
            return await waiter.turn
        finally:
            timer.cancel()

    def note(self, reply: Reply, now_us: int) -> None:
        """Store a reply to the head. Those behind that will be too late are called off."""
        self.last, self.last_us = reply, now_us
        if self._estimate is None:
            return
        for ahead, waiter in enumerate(self._behind, start=1):
            if waiter.deadline_us is not None and self.earliest_us(ahead, now_us) > waiter.deadline_us:
                _give_up(waiter)

    def position(self, waiter: Waiter) -> int:
        """How many stand before it."""
        return 0 if waiter is self._head else 1 + bisect_left(self._behind, waiter.rank, key=_rank)

    def is_too_late(self, waiter: Waiter) -> bool:
        """Whether its turn is sure to come after its deadline, by the last reply."""
        if waiter.deadline_us is None:
            return False
        return self.earliest_us(self.position(waiter), waiter.deadline_us) > waiter.deadline_us

    def earliest_us(self, ahead: int, now_us: int) -> int:
        """When a waiter with so many before it can go at the earliest, by the last reply."""
        if self.last is None or self._estimate is None:
            return now_us
        return max(now_us, self.last_us + self._estimate(self.last, ahead))

    def dismiss(self, message: str) -> None:
        """Serve no waiter any more: those behind the head get a RuntimeError."""
        for waiter in self._behind:
            if not waiter.turn.done():
                waiter.turn.set_exception(RuntimeError(message))
                waiter.turn.exception()  # a waiter that leaves at this moment never reads it, and that is no error


class WaitersByKey:
    """The queues of one limiter, one for each key and event loop. An empty queue is dropped."""

    def __init__(self, clock: Clock, buckets: Buckets) -> None:
        self._clock, self._buckets = clock, buckets
        self._arrivals = itertools.count()
        self._lines: dict[tuple[int, str, str], WaitQueue[Decision]] = {}

    def has_queue(self, key: str, per: str) -> bool:
        """Whether a caller on this event loop waits for this key."""
        return (id(asyncio.get_running_loop()), key, per) in self._lines

    async def acquire(self, key: str, cost: int, per: str, timeout: float | None) -> Decision:
        """Check until it is allowed, each time at the moment that the refusal named. Then wait for the delay."""
        deadline_us = None if timeout is None else self._clock.now_us() + round(timeout * 1e6)
        place = (id(asyncio.get_running_loop()), key, per)
        queue = self._lines.setdefault(place, WaitQueue(self._clock, _least_wait_us))
        waiter = queue.enter((0, next(self._arrivals)), deadline_us)
        try:
            if queue.last is not None and queue.is_too_late(waiter):
                raise _too_late(queue, cost, timeout)
            if not (waiter.turn.done() or await queue.wait_turn(waiter)):
                raise _too_late(queue, cost, timeout)
            if queue.last is not None:
                await self._wait_by_last_reply(queue, queue.last, cost, deadline_us)
            decision = await self._check_until_allowed(queue, key, cost, per, deadline_us)
        finally:
            if queue.leave(waiter) and self._lines.get(place) is queue:
                del self._lines[place]
        if decision.delay:
            await self._wait_out(decision, deadline_us)
        return decision

    async def _check_until_allowed(
        self, queue: WaitQueue[Decision], key: str, cost: int, per: str, deadline_us: int | None
    ) -> Decision:
        while True:
            reply = self._buckets.decide(key, cost, per, True)
            decision = reply if isinstance(reply, Decision) else await reply
            queue.note(decision, self._clock.now_us())
            if decision.allowed:
                return decision
            self._refuse_if_late(decision, decision.retry_after, deadline_us)
            await self._clock.sleep(decision.retry_after)

    async def _wait_by_last_reply(
        self, queue: WaitQueue[Decision], last: Decision, cost: int, deadline_us: int | None
    ) -> None:
        """The reply to the former head shows when to check next: half as many checks."""
        due_us = queue.last_us + last.wait_us(cost)
        now_us = self._clock.now_us()
        if now_us < due_us and (deadline_us is None or due_us <= deadline_us):
            await self._clock.sleep((due_us - now_us) / 1e6)

    async def _wait_out(self, decision: Decision, deadline_us: int | None) -> None:
        try:
            self._refuse_if_late(decision, decision.delay, deadline_us)
            await self._clock.sleep(decision.delay)
        except BaseException:
            refunding = self._buckets.refund(decision)
            if refunding is not None:
                await refunding
            raise

    def _refuse_if_late(self, decision: Decision, seconds: float, deadline_us: int | None) -> None:
        if deadline_us is not None and self._clock.now_us() + round(seconds * 1e6) > deadline_us:
            raise RateLimited(decision.as_refusal(decision.cost, round(seconds * 1e6)))


def _least_wait_us(reply: Decision, ahead: int) -> int:
    """Microseconds from a refusal until a caller with so many before it can be served at the earliest."""
    return 0 if reply.allowed else max(_least_wait_of(part, ahead + 1) for part in reply.parts)


def _least_wait_of(part: Decision, calls: int) -> int:
    """Until a limit serves so many calls. Each time that they use up its capacity costs them a whole window."""
    limit = part.policy.limit
    windows, rest = divmod(calls - 1, limit.capacity)
    return limit.measure(part.state, part.now_us, rest + 1)[2] + windows * limit.window_us


def _too_late(queue: WaitQueue[Decision], cost: int, timeout: float | None) -> Exception:
    if queue.last is None:
        return StoreUnavailable(f"the store did not answer within {timeout} s")
    return RateLimited(queue.last.as_refusal(cost))


def _give_up(waiter: Waiter) -> None:
    if not waiter.turn.done():
        waiter.turn.set_result(False)
