"""Permits for calls to somebody else's limits: what a store has to offer for them, and how one in memory does."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Awaitable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, Literal, Protocol
from weakref import WeakSet, WeakValueDictionary

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.discord.permits.bucket import ANSWER, Answer, Record
from asgi_ratelimit.store import PerStore, Store

__all__ = [
    "ANSWER",
    "LEASE_US",
    "SECOND_US",
    "Ask",
    "Lease",
    "Leases",
    "MemoryLeases",
    "Permit",
    "Why",
    "local_permits",
]

LEASE_US: Final = 15_000_000  # after which the holder of a permit is taken for dead
SECOND_US: Final = 1_001_000  # a second of the other side's, and a little for what its clock runs slow
_MOST_ROUTES = 10_000
_UNNAMED: Final = ("", "")
_MANY_OWNERS = 64  # at which those without any permit are forgotten
_RECYCLED = 2  # old records looked at for each new permit

Why = Literal["", "banned", "stopped", "route", "bucket", "answer", "global"]


@dataclass(frozen=True, slots=True)
class Ask:
    """A permit that is wanted: `name` is its own, `route` the kind of call, `major` the resource it is about.

    A name has no spaces and is used once.

    `per_second`: the global limit, how many permits of the owner may be used in any second; 0 for a call that it
    does not count.
    """

    name: str
    route: str
    major: str
    per_second: int


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to make one call; to be settled."""

    ask: Ask
    bucket: str  # under which it was given; "": not known yet
    sent_us: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A permit, or why there is none: for how long at least, ANSWER if it depends on the calls in flight.

    The rest is what is known of the bucket, in microseconds: `full_us` until it is full, `slot_us` of its kind.
    """

    permit: Permit | None
    why: Why
    wait_us: int
    bucket: str
    limit: int
    remaining: int
    full_us: int
    kind: int
    slot_us: int
    in_flight: int


class Leases(Protocol):
    """The permits of one owner, e.g. of one bot's token, in one store. Each verb answers at once or promises to."""

    def lease(self, ask: Ask) -> Lease | Awaitable[Lease]:
        """Charge the bucket and the global limit, or neither."""
        ...

    def settle(self, permit: Permit, answer: Answer) -> Awaitable[None] | None:
        """Give the permit back with what became of it."""
        ...

    def sweep(self) -> bool:
        """Forget what is over. Whether anything is left to forget."""
        ...


class MemoryLeases:
    """Permits in this process's memory: thread-safe, and bounded by what was in use in the last minute or so."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        _all.add(self)
        self._stopped = self._banned = 0
        self._held: dict[str, int] = {}  # permits under the global limit -> until when they count
        self._by_end: list[tuple[int, str]] = []  # the same as a heap, with former ends
        self._names: OrderedDict[str, tuple[str, str]] = OrderedDict()  # route -> its bucket, and its former one
        self._locked: OrderedDict[tuple[str, str], int] = OrderedDict()  # route and resource -> until when
        self._records: OrderedDict[tuple[str, str], Record] = OrderedDict()  # bucket (or route) and resource

    def lease(self, ask: Ask) -> Lease:
        with self._lock:
            now = self._clock.now_us()
            self._recycle(now, _RECYCLED)
            bucket, _ = self._names.get(ask.route, _UNNAMED)
            record = self._gathered(ask, now)
            why, wait = self._wait(ask, record, now)
            permit = None
            if not wait:
                permit = Permit(ask, bucket, now)
                self._take(ask, bucket, record, now)
            full = max(0, record.hi - now)
            return Lease(
                permit, why, wait, bucket, record.limit, record.remaining,
                full, record.kind, record.slot, len(record.flights),
            )  # fmt: skip

    def adopt(self, ask: Ask) -> None:
        """Count a call that another store has let go, whether it would have been let go here or not."""
        with self._lock:
            now = self._clock.now_us()
            bucket, _ = self._names.get(ask.route, _UNNAMED)
            self._take(ask, bucket, self._gathered(ask, now), now)

    def settle(self, permit: Permit, answer: Answer) -> None:
        with self._lock:
            now, ask = self._clock.now_us(), permit.ask
            self._recycle(now, _RECYCLED)
            if ask.per_second:
                self._release(ask.name, answer, now)
            if answer.verdict == "banned":
                self._banned = max(self._banned, now + answer.retry_us)
            elif answer.verdict == "stopped":
                self._stopped = max(self._stopped, now + answer.retry_us)
            elif answer.verdict in ("limited", "sublimited"):
                place = (ask.route, ask.major)
                self._locked[place] = max(self._locked.get(place, 0), now + answer.retry_us + 1_000)
            self._learn(permit, answer, now)

    def sweep(self) -> bool:
        with self._lock:
            now = self._clock.now_us()
            self._recycle(now, len(self._records) + len(self._locked))
            self._release_held(now)
            # A dict keeps the room that it once needed.
            self._records, self._locked = OrderedDict(self._records), OrderedDict(self._locked)
            return bool(self._records or self._locked or self._held or now < max(self._stopped, self._banned))

    # What follows is called with the lock held.

    def _gathered(self, ask: Ask, now: int) -> Record:
        """The record of a call's bucket. What is known of it under a former name, or under none, moves there."""
        bucket, former = self._names.get(ask.route, _UNNAMED)
        if not bucket:
            return self._found((ask.route, ask.major), now) or Record()
        record = self._found((bucket, ask.major), now)
        if record is None:  # renamed; but other routes may go on under the former name
            record = self._moved((former, ask.major), (bucket, ask.major), now)
        cold = self._moved((ask.route, ask.major), (bucket, ask.major), now)
        if cold is not None and record is not None:
            record.flights |= cold.flights
            self._records[bucket, ask.major] = record
        return record or cold or Record()

    def _moved(self, source: tuple[str, str], target: tuple[str, str], now: int) -> Record | None:
        record = self._found(source, now)
        if record is not None:
            self._records[target] = self._records.pop(source)
        return record

    def _found(self, place: tuple[str, str], now: int) -> Record | None:
        record = self._records.get(place)
        return record if record is not None and record.over() > now else None

    def _wait(self, ask: Ask, record: Record, now: int) -> tuple[Why, int]:
        if now < self._banned:
            return "banned", self._banned - now
        if now < self._stopped and ask.per_second:
            return "stopped", self._stopped - now
        locked = self._locked.get((ask.route, ask.major), 0)
        if now < locked:
            return "route", locked - now
        wait = record.wait(now)
        if wait:
            return "answer" if wait == ANSWER else "bucket", wait
        if not ask.per_second:
            return "", 0
        self._release_held(now)
        if len(self._held) < ask.per_second:
            return "", 0
        wait = self._by_end[0][0] - now
        return "global", ANSWER if wait > SECOND_US else wait

    def _take(self, ask: Ask, bucket: str, record: Record, now: int) -> None:
        record.take(ask.name, now, now + LEASE_US)
        self._records[bucket or ask.route, ask.major] = record
        if ask.per_second:
            self._hold(ask.name, now + LEASE_US)

    def _hold(self, name: str, until: int) -> None:
        self._held[name] = until
        heappush(self._by_end, (until, name))

    def _release(self, name: str, answer: Answer, now: int) -> None:
        self._release_held(now)
        self._held.pop(name, None)
        if answer.verdict != "unsent":
            # From the answer on, not from the sending: nobody knows when in between it was counted.
            self._hold(name, now + SECOND_US)

    def _release_held(self, now: int) -> None:
        """Let go of those that count no longer, and of former ends that stand in front."""
        while self._by_end:
            until, name = self._by_end[0]
            if self._held.get(name) != until:
                heappop(self._by_end)
            elif until <= now:
                heappop(self._by_end)
                del self._held[name]
            else:
                break

    def _learn(self, permit: Permit, answer: Answer, now: int) -> None:
        ask, (known, _) = permit.ask, self._names.get(permit.ask.route, _UNNAMED)
        told = answer.bucket if answer.verdict in ("answered", "limited") else ""
        # A refusal may come from another bucket than the one that answers tell of: that one learns of it, no more.
        elsewhere = bool(told) and answer.verdict == "limited" and known not in ("", told)
        if told and not elsewhere:
            self._name(ask.route, told)
            known = told
        record = self._records[known or ask.route, ask.major] = self._gathered(ask, now)
        given_by = self._found((permit.bucket or ask.route, ask.major), now) or record
        for holder in (record, given_by):
            holder.flights.pop(ask.name, None)
        if elsewhere:
            record = self._records[told, ask.major] = self._found((told, ask.major), now) or Record()
        record.settle(answer, permit.sent_us, now)

    def _name(self, route: str, bucket: str) -> None:
        known, former = self._names.get(route, _UNNAMED)
        self._names[route] = (bucket, former if known == bucket else known)
        self._names.move_to_end(route)
        if len(self._names) > _MOST_ROUTES:
            self._names.popitem(last=False)

    def _recycle(self, now: int, number: int) -> None:
        """Look at so many of the oldest records, and forget those that are over."""
        for _ in range(min(number, len(self._records))):
            place, record = self._records.popitem(last=False)
            if record.over() > now:
                self._records[place] = record
        for _ in range(min(number, len(self._locked))):
            place, until = self._locked.popitem(last=False)
            if until > now:
                self._locked[place] = until

    def renew_lock(self) -> None:
        """After a fork, in the child: a thread of the parent that held the lock cannot release it here."""
        self._lock = threading.Lock()


_all: WeakSet[MemoryLeases] = WeakSet()


def _after_fork() -> None:
    for leases in list(_all):
        leases.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Owners:
    """The permits of every owner in one store."""

    def __init__(self, store: Store) -> None:
        self._clock = store.clock
        self._lock = threading.Lock()
        self._leases: WeakValueDictionary[str, MemoryLeases] = WeakValueDictionary()
        self._lasting: set[MemoryLeases] = set()  # also without a client: they may record a used-up limit
        self._most_lasting = _MANY_OWNERS

    def open(self, owner: str) -> MemoryLeases:
        with self._lock:
            if len(self._lasting) >= self._most_lasting:
                self._lasting = {leases for leases in self._lasting if leases.sweep()}
                self._most_lasting = max(_MANY_OWNERS, 2 * len(self._lasting))
            leases = self._leases.setdefault(owner, MemoryLeases(self._clock))
            self._lasting.add(leases)
            return leases


_owners: PerStore[_Owners] = PerStore(_Owners)


def local_permits(store: Store, owner: str) -> MemoryLeases:
    """The permits of `owner` in this process; for one store and owner they are always the same."""
    return _owners.of(store).open(owner)
