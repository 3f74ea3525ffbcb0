"""Permits for calls to Discord: their interface, and those of one process."""

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
from asgi_ratelimit.discord.permits.bucket import AWAIT_RESPONSE, CallReport, LearnedBucket
from asgi_ratelimit.store import PerStore, Store

__all__ = [
    "AWAIT_RESPONSE",
    "EXPIRY_US",
    "SECOND_US",
    "Granted",
    "MemoryPermits",
    "Permit",
    "Permits",
    "PermitsByOwner",
    "Wait",
    "WaitCause",
    "local_permits",
    "permits_by_owner",
]

EXPIRY_US: Final = 15_000_000  # after which a permit that is not settled counts as lost
SECOND_US: Final = 1_001_000  # a second on Discord's clock, which may run slower
_MOST_ROUTES: Final = 10_000
_UNNAMED: Final = ("", "")
_MANY_OWNERS: Final = 64  # at which those without any permit are forgotten
_RECYCLED: Final = 2  # old buckets looked at for each new permit,
_STEP: Final = 200  # and at each step of a sweep, which stays well under a millisecond
_PAUSE_S: Final = 0.02  # between two steps,
_REST_S: Final = 30.0  # and between two rounds

WaitCause = Literal["banned", "stopped", "route", "bucket", "answer", "global"]


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave for one call. It has to be settled.

    name        its own: without spaces, used once
    route       the kind of call
    major       the resource that the call is about
    per_second  the global limit: the owner's calls in any second; 0 for a call that it does not count
    bucket      that it charges; "" if that is not learned yet
    sent_us     when it was granted
    together    whether all resources share that bucket
    untouched   whether no other call, of any process, may have been counted in it
    """

    name: str
    route: str
    major: str
    per_second: int
    bucket: str
    sent_us: int
    together: bool = False
    untouched: bool = False

    @property
    def resource(self) -> str:
        """The resource of its bucket."""
        return "" if self.together else self.major


@dataclass(frozen=True, slots=True)
class _Reply:
    """The state of a call's bucket, in microseconds: `full_us` until it is full, `slot_us` of its kind."""

    bucket: str
    limit: int
    remaining: int
    full_us: int
    kind: int
    slot_us: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Granted(_Reply):
    """The call may go."""

    permit: Permit


@dataclass(frozen=True, slots=True)
class Wait(_Reply):
    """The call may not go yet: for `wait_us` at least, or AWAIT_RESPONSE."""

    cause: WaitCause
    wait_us: int


class Permits(Protocol):
    """The permits of one owner, e.g. of one bot's token, in one store. A verb may return its result or promise it.

    clock  that permits go by. A shared store has the server's
    """

    @property
    def clock(self) -> Clock: ...

    def take(
        self, name: str, route: str, major: str, per_second: int, spare: int = 0, together: bool = False
    ) -> Granted | Wait | Awaitable[Granted | Wait]:
        """Charge the bucket and the global limit, or neither. The arguments are those of the Permit.

        `spare` calls of the bucket are left to others.
        """
        ...

    def settle(self, permit: Permit, report: CallReport) -> Awaitable[None] | None:
        """Give the permit back, and learn from the call's outcome."""
        ...

    def sweep(self) -> float | None:
        """Forget some of the past. Returns the seconds until there may be more; None: nothing is left."""
        ...


class MemoryPermits:
    """Permits in this process's memory: thread-safe, and bounded by the buckets in use in the last minute or so."""

    def __init__(self, clock: Clock) -> None:
        """`sharers`: how many processes use the limits, each without knowing what the others do."""
        self.clock = clock
        self._lock = threading.Lock()
        self.sharers = 1.0
        _all.add(self)
        self._stopped = self._banned = 0
        self._unswept = 0  # buckets that a round of sweeping has not looked at
        self._exempt_stopped = 0  # calls that the global limit does not count, and which it has refused all the same
        self._held: dict[str, int] = {}  # permits under the global limit -> until when they count
        self._by_end: list[tuple[int, str]] = []  # the same as a heap, with former ends
        self._names: OrderedDict[str, tuple[str, str]] = OrderedDict()  # route -> its bucket, and its former one
        self._locked: OrderedDict[tuple[str, str], int] = OrderedDict()  # route and resource -> until when
        self._buckets: OrderedDict[tuple[str, str], LearnedBucket] = OrderedDict()  # bucket (or route) and resource

    def take(
        self, name: str, route: str, major: str, per_second: int, spare: int = 0, together: bool = False
    ) -> Granted | Wait:
        with self._lock:
            now, resource = self.clock.now_us(), "" if together else major
            self._recycle(now, _RECYCLED)
            bucket, _ = self._names.get(route, _UNNAMED)
            learned = self._gathered(route, resource, now)
            if self.sharers > 1:
                per_second, spare = self._share(per_second), max(spare, learned.limit - self._share(learned.limit))
            cause, wait_us = self._wait(learned, route, major, per_second, spare, now)
            if not cause:
                self._take(name, bucket or route, resource, per_second, learned, now)
            state = (
                bucket, learned.limit, learned.remaining, max(0, learned.reset_max - now),
                learned.kind, learned.slot, len(learned.in_flight),
            )  # fmt: skip
            if cause:
                return Wait(*state, cause, wait_us)
            untouched = not spare and learned.is_untouched
            return Granted(*state, Permit(name, route, major, per_second, bucket, now, together, untouched))

    def adopt(self, permit: Permit) -> None:
        """Count a call that another store permitted, whether it would have been permitted here or not."""
        with self._lock:
            now, resource = self.clock.now_us(), permit.resource
            bucket, _ = self._names.get(permit.route, _UNNAMED)
            learned = self._gathered(permit.route, resource, now)
            self._take(permit.name, bucket or permit.route, resource, permit.per_second, learned, now)

    def settle(self, permit: Permit, report: CallReport) -> None:
        with self._lock:
            now = self.clock.now_us()
            self._recycle(now, _RECYCLED)
            if permit.per_second:
                self._release(permit.name, report, now)
            if report.verdict == "banned":
                self._banned = max(self._banned, now + report.retry_us)
            elif report.verdict == "stopped":
                self._stop(now + report.retry_us, is_exempt=not permit.per_second)
            elif report.verdict in ("limited", "sublimited"):
                place = (permit.route, permit.major)
                self._locked[place] = max(self._locked.get(place, 0), now + report.retry_us + 1_000)
            self._learn(permit, report, now)

    def sweep(self) -> float | None:
        with self._lock:
            now = self.clock.now_us()
            if self._unswept <= 0:
                self._unswept = max(len(self._buckets), len(self._locked))
            self._recycle(now, _STEP)
            self._release_held(now)
            self._unswept -= _STEP
            if self._unswept > 0:
                return _PAUSE_S
            self._shrink()
            is_left = self._buckets or self._locked or self._held
            return _REST_S if is_left or now < max(self._stopped, self._exempt_stopped, self._banned) else None

    # These are called with the lock held.

    def _share(self, limit: int) -> int:
        """This process's part of a limit: one call at least, unless the limit is none."""
        return min(limit, max(1, int(limit / self.sharers)))

    def _gathered(self, route: str, major: str, now: int) -> LearnedBucket:
        """The bucket of a call. A former name's bucket, and an unnamed one, move there."""
        bucket, former = self._names.get(route, _UNNAMED)
        if not bucket:
            return self._live((route, major), now) or LearnedBucket()
        learned = self._live((bucket, major), now)
        if learned is None:  # renamed; but other routes may go on under the former name
            learned = self._moved((former, major), (bucket, major), now)
        unnamed = self._moved((route, major), (bucket, major), now)
        if unnamed is not None and learned is not None:
            learned.in_flight |= unnamed.in_flight
            self._buckets[bucket, major] = learned
        return learned or unnamed or LearnedBucket()

    def _moved(self, source: tuple[str, str], target: tuple[str, str], now: int) -> LearnedBucket | None:
        learned = self._live(source, now)
        if learned is not None:
            self._buckets[target] = self._buckets.pop(source)
        return learned

    def _live(self, place: tuple[str, str], now: int) -> LearnedBucket | None:
        learned = self._buckets.get(place)
        return learned if learned is not None and learned.expires_at() > now else None

    def _wait(
        self, learned: LearnedBucket, route: str, major: str, per_second: int, spare: int, now: int
    ) -> tuple[WaitCause | None, int]:
        if now < self._banned:
            return "banned", self._banned - now
        stopped = self._stopped if per_second else self._exempt_stopped
        if now < stopped:
            return "stopped", stopped - now
        locked = self._locked.get((route, major), 0)
        if now < locked:
            return "route", locked - now
        wait = learned.wait(now, spare)
        if wait:
            return "answer" if wait == AWAIT_RESPONSE else "bucket", wait
        if not per_second:
            return None, 0
        self._release_held(now)
        if len(self._held) < per_second:
            return None, 0
        wait = self._by_end[0][0] - now
        return "global", AWAIT_RESPONSE if wait > SECOND_US else wait

    def _take(self, name: str, place: str, major: str, per_second: int, learned: LearnedBucket, now: int) -> None:
        learned.take(name, now, now + EXPIRY_US)
        self._buckets[place, major] = learned
        if per_second:
            self._hold(name, now + EXPIRY_US)

    def _stop(self, until: int, *, is_exempt: bool) -> None:
        self._stopped = max(self._stopped, until)
        if is_exempt:
            self._exempt_stopped = max(self._exempt_stopped, until)

    def _hold(self, name: str, until: int) -> None:
        self._held[name] = until
        heappush(self._by_end, (until, name))

    def _release(self, name: str, report: CallReport, now: int) -> None:
        self._release_held(now)
        self._held.pop(name, None)
        if report.verdict != "unsent":
            # From the response on, not from the sending: Discord counted it at some moment in between.
            self._hold(name, now + SECOND_US)

    def _release_held(self, now: int) -> None:
        """Drop those that count no longer, and former ends at the front of the heap."""
        while self._by_end:
            until, name = self._by_end[0]
            if self._held.get(name) != until:
                heappop(self._by_end)
            elif until <= now:
                heappop(self._by_end)
                del self._held[name]
            else:
                break

    def _learn(self, permit: Permit, report: CallReport, now: int) -> None:
        route, major = permit.route, permit.resource
        current, _ = self._names.get(route, _UNNAMED)
        reported = report.bucket if report.verdict in ("answered", "limited") else ""
        # A refusal may come from another bucket than the route's other responses: that one learns from it, no more.
        is_other = bool(reported) and report.verdict == "limited" and current not in ("", reported)
        if reported and not is_other:
            self._name(route, reported)
            current = reported
        learned = self._buckets[current or route, major] = self._gathered(route, major, now)
        given_by = self._live((permit.bucket or route, major), now) or learned
        for holder in (learned, given_by):
            holder.in_flight.pop(permit.name, None)
        if is_other:
            learned = self._buckets[reported, major] = self._live((reported, major), now) or LearnedBucket()
        learned.settle(report, permit.sent_us, now)

    def _name(self, route: str, bucket: str) -> None:
        current, former = self._names.get(route, _UNNAMED)
        self._names[route] = (bucket, former if current == bucket else current)
        self._names.move_to_end(route)
        if len(self._names) > _MOST_ROUTES:
            self._names.popitem(last=False)

    def _recycle(self, now: int, number: int) -> None:
        """Look at so many of the oldest entries, and forget those that have expired."""
        for _ in range(min(number, len(self._buckets))):
            place, learned = self._buckets.popitem(last=False)
            if learned.expires_at() > now:
                self._buckets[place] = learned
        for _ in range(min(number, len(self._locked))):
            place, until = self._locked.popitem(last=False)
            if until > now:
                self._locked[place] = until

    def _shrink(self) -> None:
        """A dict keeps the room that it once needed."""
        if max(len(self._buckets), len(self._locked)) <= _STEP:
            self._buckets, self._locked = OrderedDict(self._buckets), OrderedDict(self._locked)

    def renew_lock(self) -> None:
        """After a fork, in the child: a thread of the parent that held the lock cannot release it here."""
        self._lock = threading.Lock()


_all: WeakSet[MemoryPermits] = WeakSet()


def _after_fork() -> None:
    for permits in list(_all):
        permits.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class PermitsByOwner:
    """The permits of every owner in one store."""

    def __init__(self, store: Store) -> None:
        self._clock = store.clock
        self._lock = threading.Lock()
        self.owners: WeakValueDictionary[str, MemoryPermits] = WeakValueDictionary()
        self._lasting: set[MemoryPermits] = set()  # also without a client: one of their limits may be used up
        self._most_lasting = _MANY_OWNERS

    def open(self, owner: str, clock: Clock | None = None) -> MemoryPermits:
        with self._lock:
            if len(self._lasting) >= self._most_lasting:
                self._lasting = {permits for permits in self._lasting if permits.sweep()}
                self._most_lasting = max(_MANY_OWNERS, 2 * len(self._lasting))
            permits = self.owners.setdefault(owner, MemoryPermits(clock or self._clock))
            self._lasting.add(permits)
            return permits


permits_by_owner: PerStore[PermitsByOwner] = PerStore(PermitsByOwner)


def local_permits(store: Store, owner: str, clock: Clock | None = None) -> MemoryPermits:
    """The permits of `owner` in this process: the same ones for one store and owner. `clock`: else the store's."""
    return permits_by_owner.of(store).open(owner, clock)
