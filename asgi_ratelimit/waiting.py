"""Waiting once: a queue in which only the head asks the store, and the queues of a limiter."""

from __future__ import annotations

import asyncio
import itertools
import math
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, TypeVar

from asgi_ratelimit.bells import Bell, Bells, waits_for_slot
from asgi_ratelimit.call_keys import CallKey
from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import RateLimited
from asgi_ratelimit.store import Buckets

__all__ = ["WaitQueue", "Waiter", "WaitersByKey"]

Reply = TypeVar("Reply")

Estimate = Callable[[Reply, int], int]

_rank = attrgetter("rank")
_AT_ANY_MOMENT_US = 1  # the wait for a slot that may be freed at once


@dataclass(slots=True, eq=False)
class Waiter:
    """A place in a queue."""

    rank: tuple[int, int]  # the lowest is served first: (-priority, number of its arrival). Each rank is unique
    deadline_us: int | None  # None: it waits for ever
    turn: asyncio.Future[bool]  # True: it is the head. False: its turn comes too late
    cost: int = 1
    patience_us: int | None = None  # until then it waits for its turn, as long as no reply shows that it is too late


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

    def enter(
        self, rank: tuple[int, int], deadline_us: int | None, cost: int = 1, patience_us: int | None = None
    ) -> Waiter:
        """A place in the queue of the running event loop. It has to be left."""
        patience_us = deadline_us if patience_us is None else patience_us
        waiter = Waiter(rank, deadline_us, asyncio.get_running_loop().create_future(), cost, patience_us)
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
        if waiter.patience_us is None:
            return await waiter.turn
        seconds = (waiter.patience_us - self._clock.now_us()) / 1e6
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
            if waiter.deadline_us is not None and self.earliest_us(ahead, now_us) > max(now_us, waiter.deadline_us):
                _give_up(waiter)

    def position(self, waiter: Waiter) -> int:
        """How many stand before it."""
        return 0 if waiter is self._head else 1 + bisect_left(self._behind, waiter.rank, key=_rank)

    def cost_ahead(self, waiter: Waiter) -> int:
        """The cost of all that stand before it."""
        before = self._behind[: max(0, self.position(waiter) - 1)]
        return sum((each.cost for each in before), 0 if self._head is None else self._head.cost)

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
    """The queues of one limiter, one for each key and event loop. An empty queue is dropped.

    A caller that finds no queue checks at once, like all that come at the same time. Only refused callers queue.
    """

    def __init__(self, clock: Clock, buckets: Buckets) -> None:
        self._clock, self._buckets = clock, buckets
        self.bells = Bells()
        self._arrivals = itertools.count()
        self._queues: dict[tuple[int, CallKey, str], WaitQueue[Decision]] = {}

    def has_queue(self, key: CallKey, per: str) -> bool:
        """Whether a caller on this event loop waits for this key."""
        return (id(asyncio.get_running_loop()), key, per) in self._queues

    async def acquire(self, key: CallKey, cost: int, per: str, timeout: float | None) -> tuple[Decision, float]:
        """Check until it is allowed, each time at the moment that the refusal named. Then wait for the delay.

        Returns the decision, and the seconds that the caller has waited for it; 0.0 if the first check allowed it.
        """
        started_us = self._clock.now_us()
        deadline_us = None if timeout is None else started_us + round(timeout * 1e6)
        arrival = next(self._arrivals)
        decision = None if self.has_queue(key, per) else await self._check(key, cost, per)
        if decision is not None and not decision.allowed:
            self._refuse_if_late(decision, _sure_wait_us(decision), deadline_us)
        waits = decision is None or not decision.allowed
        if decision is None or not decision.allowed:
            decision = await self._wait_in_queue(arrival, key, cost, per, deadline_us, decision)
        if decision.delay_us:
            await self._wait_out(decision, deadline_us)
        waits = waits or decision.delay_us > 0
        return decision, (self._clock.now_us() - started_us) / 1e6 if waits else 0.0

    async def _check(self, key: CallKey, cost: int, per: str) -> Decision:
        reply = self._buckets.decide(key, cost, per, True)
        return reply if isinstance(reply, Decision) else await reply

    async def _wait_in_queue(
        self, arrival: int, key: CallKey, cost: int, per: str, deadline_us: int | None, refusal: Decision | None
    ) -> Decision:
        place = (id(asyncio.get_running_loop()), key, per)
        queue = self._queues.setdefault(place, WaitQueue(self._clock, _least_wait_us))
        waiter = queue.enter((0, arrival), deadline_us, cost)
        if refusal is not None:
            queue.note(refusal, self._clock.now_us())
        try:
            if queue.is_too_late(waiter):
                self._refuse_if_used_up(queue, waiter)
            if not (waiter.turn.done() or await queue.wait_turn(waiter)):
                self._refuse_if_used_up(queue, waiter)
                decision = await self._check(key, cost, per)
                if not decision.allowed:
                    raise RateLimited(decision)
                return decision
            return await self._check_until_allowed(queue, arrival, key, cost, per, deadline_us)
        finally:
            if queue.leave(waiter) and self._queues.get(place) is queue:
                del self._queues[place]

    async def _check_until_allowed(
        self, queue: WaitQueue[Decision], arrival: int, key: CallKey, cost: int, per: str, deadline_us: int | None
    ) -> Decision:
        await self._wait_by_last_reply(queue, cost, deadline_us)
        bell = Bell(self._clock, arrival)
        try:
            while True:
                self.bells.hang(bell, queue.last)
                bell.clear()
                decision = await self._check(key, cost, per)
                queue.note(decision, self._clock.now_us())
                if decision.allowed:
                    return decision
                await self._wait_for_change(bell, decision, deadline_us)
        finally:
            self.bells.take_down(bell)

    async def _wait_for_change(self, bell: Bell, refusal: Decision, deadline_us: int | None) -> None:
        """Until the moment that the refusal named, or until a slot may be free."""
        wait_us = _sure_wait_us(refusal)
        self._refuse_if_late(refusal, wait_us, deadline_us)
        if wait_us > _AT_ANY_MOMENT_US or not waits_for_slot(refusal):
            await self._clock.sleep(wait_us / 1e6)
        else:
            last_us = self._clock.now_us() + refusal.retry_us
            last_us = last_us if deadline_us is None else min(deadline_us, last_us)
            await bell.wait((last_us - self._clock.now_us()) / 1e6)

    async def _wait_by_last_reply(self, queue: WaitQueue[Decision], cost: int, deadline_us: int | None) -> None:
        """The last reply to this caller, or to the former head, shows when to check next: half as many checks."""
        now_us = self._clock.now_us()
        due_us = _due_us(queue, cost, now_us)
        if now_us < due_us and (deadline_us is None or due_us <= deadline_us):
            await self._clock.sleep((due_us - now_us) / 1e6)

    async def _wait_out(self, decision: Decision, deadline_us: int | None) -> None:
        try:
            self._refuse_if_late(decision, decision.delay_us, deadline_us)
            await self._clock.sleep(decision.delay)
        except BaseException:
            refunding = self._buckets.refund(decision)
            self.bells.ring(decision)
            if refunding is not None:
                await refunding
            raise

    def _refuse_if_late(self, decision: Decision, wait_us: int, deadline_us: int | None) -> None:
        if deadline_us is not None and self._clock.now_us() + wait_us > deadline_us:
            raise RateLimited(decision.as_refusal(decision.cost, wait_us))

    def _refuse_if_used_up(self, queue: WaitQueue[Decision], waiter: Waiter) -> None:
        """A caller that is called off is refused if by the last reply those before it need all that flows in."""
        now_us, last = self._clock.now_us(), queue.last
        wait_us = _due_us(queue, queue.cost_ahead(waiter) + waiter.cost, now_us) - now_us
        if last is not None and (wait_us > 0 or _slots_left(last) <= queue.position(waiter)):
            raise RateLimited(
                last.as_refusal(waiter.cost, max(wait_us, _AT_ANY_MOMENT_US), passed_us=now_us - queue.last_us)
            )


def _least_wait_us(reply: Decision, ahead: int) -> int:
    """Microseconds from a refusal until a caller with so many before it can be served at the earliest."""
    return 0 if reply.allowed else _wait_us(reply, ahead + 1)


def _due_us(queue: WaitQueue[Decision], cost: int, now_us: int) -> int:
    """When so much is allowed at the earliest, by the last reply."""
    return now_us if queue.last is None else queue.last_us + _wait_us(queue.last, cost)


def _wait_us(reply: Decision, cost: int) -> int:
    return max(reply.sure_wait_us(cost), reply.retry_us if reply.reason == "blocked" else 0)


def _sure_wait_us(refusal: Decision) -> int:
    """Microseconds that its caller has to wait in any case."""
    if not waits_for_slot(refusal):
        return refusal.retry_us
    return max(_AT_ANY_MOMENT_US, refusal.sure_wait_us(refusal.cost))


def _slots_left(reply: Decision) -> float:
    return min((part.remaining for part in reply.parts if part.policy.limit.holds), default=math.inf)


def _give_up(waiter: Waiter) -> None:
    if not waiter.turn.done():
        waiter.turn.set_result(False)
