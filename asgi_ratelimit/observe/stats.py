"""Stats: allowed and refused calls by time and key, counted in this process without any other package."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final, Literal
from weakref import WeakSet

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.events import AnsweredBy, Event, EventKind
from asgi_ratelimit.observe.counts import LimiterCounts
from asgi_ratelimit.observe.in_flight import InFlight
from asgi_ratelimit.observe.merging import OTHERS
from asgi_ratelimit.observe.outage_log import OutageLog
from asgi_ratelimit.observe.sharing import EVERY_S, Sharing
from asgi_ratelimit.observe.snapshot import MOST_LIMITERS, Snapshot
from asgi_ratelimit.observe.tally import ALLOWED, PLACES, LimiterTally
from asgi_ratelimit.slot import count_lost_slots
from asgi_ratelimit.store import PerStore, Store

__all__ = ["Stats"]

_DISCORD: Final = ("wait", "response", "refused", "retry", "stopped", "banned", "invalid", "token", "webhook")
_ROWS: Final = 2  # of the sketch of a limiter that stay when rows are dropped, for each key of `top`
_CACHED, _DEGRADED, _SHADOW = (PLACES[name] for name in ("cached", "degraded", "shadow"))
_ABOUT_NO_KEY: Final = tuple([PLACES[kind] for kind in ("near", "exempt", "gone", "escalated", "failed")])


class Stats:
    """An observer that counts, e.g. `stats = Stats()` and `MemoryStore(observers=[stats])`.

    top: how many of the heaviest keys of each limiter a snapshot shows. Their counts are exact as long as a limiter has
        at most 4 * top keys. Then no count is too high, and with N decisions none is too low by more than
        N / (2 * top + 1); each key says how much it may be.
    keys: "digest", or "clear" to show users and addresses as they are

    Its memory does not grow with the number of keys: about 100 kB per limiter with many keys and top=100. There are
    1 000 limiters at most, and all further ones are one called "(others)". It may be given to several stores, and used
    by several threads. After a fork the child counts from zero. Raises ValueError if an option cannot be used.
    """

    is_quick = True

    def __init__(self, top: int = 100, keys: Literal["digest", "clear"] = "digest") -> None:
        if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= 10_000:
            raise ValueError(f"top must be a whole number from 1 to 10_000, e.g. top=100, not {top!r}")
        if keys not in ("digest", "clear"):
            raise ValueError(f'keys must be "digest" or "clear", not {keys!r}')
        self._top, self._clear = top, keys == "clear"
        self._clock: Clock | None = None
        self.begin_anew()
        _all.add(self)

    def attach(self, clock: Clock) -> None:
        """A snapshot's time is that of this clock: of the last store that got this observer."""
        self._clock = clock

    def __call__(self, event: Event) -> None:
        kind = event.kind
        if kind == "waited" and not event.route:  # with a route it is a call to Discord
            self._wait(event)
        elif kind in PLACES and kind != "waited":
            tally = self._tallies.get(event.limiter) or self._open(event.limiter, event.secret)
            _count(tally, tally.counts_of(event.time), kind, event.key, event.answered_by)
        else:
            self._note(event)

    def on_decision(
        self,
        kind: EventKind,
        limiter: str,
        decision: Decision,
        key: str,
        wall: Callable[[], float],
        answered_by: AnsweredBy,
        secret: bytes,
    ) -> None:
        """Count the fields of a decision. To make an event of them takes longer than this."""
        tally = self._tallies.get(limiter) or self._open(limiter, secret)
        now_us = decision.now_us
        counts = tally.counts if tally.start_us <= now_us < tally.end_us else tally.turn(wall(), now_us)
        if kind == "allowed" and answered_by == "store":
            counts[ALLOWED] += 1
            tally.rows[key][0] += 1
        else:
            _count(tally, counts, kind, key, answered_by)

    def on_in_flight(self, limiter: str, change: int) -> None:
        """Count calls that have taken a slot, or freed it."""
        self._in_flight.change(limiter, change)

    def snapshot(self) -> Snapshot:
        """All counts, as they are now."""
        count_lost_slots()
        with self._lock:
            tallies, latest = list(self._tallies.values()), self._latest
            outages, discord, other = self._outages.latest(), dict(self._discord), dict(self._other)
        now = self._clock.wall() if self._clock else max([latest, *(tally.latest() for tally in tallies)])
        limiters = {tally.name: tally.snapshot(now, self._top, self._clear) for tally in tallies}
        for name, (in_flight, most) in self._in_flight.numbers().items():
            counts = limiters.get(name) or LimiterCounts(name)
            limiters[name] = replace(counts, in_flight=in_flight, most_in_flight=most)
        return Snapshot(now, limiters, outages, discord, other=other)

    def reset(self) -> None:
        """Count from zero. What is in flight stays so."""
        self._in_flight.restart()
        with self._lock:
            self._tallies: dict[str, LimiterTally] = {}
            self._outages = OutageLog()
            self._discord, self._other = Counter[str](), Counter[str]()
            self._latest = 0.0  # time of an event that is in no tally

    def begin_anew(self) -> None:
        """Count from zero, as another process: after a fork, for example."""
        self._lock = threading.RLock()
        self._owner, self._shared = secrets.token_hex(8), PerStore(Sharing)
        self._in_flight = InFlight(MOST_LIMITERS - 1, OTHERS)
        self.reset()

    async def share(self, store: Store) -> Snapshot:
        """The counts of all processes that share theirs through this RedisStore.

        It writes those of this process, and reads those of the others: both in one call, once in 5 s at most. In
        between it goes by the last reading. The record of a process has 64 kB at most: 100 limiters and 50 keys of
        each, or fewer. 64 processes have room. A record stays for an hour after it was last written, so a process
        that has ended is counted for as long, but not among `processes`. While Redis cannot answer, and with any other
        store, it returns this process's snapshot.
        """
        snapshot = self.snapshot()
        others = await self._shared.of(store).exchange(self._owner, snapshot)
        return Snapshot.merge([snapshot, *others]) if others else snapshot

    @asynccontextmanager
    async def sharing(self, store: Store) -> AsyncIterator[None]:
        """Share every 5 s, for as long as an app runs: in its lifespan, for example."""
        task = asyncio.create_task(self._keep_sharing(store))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _keep_sharing(self, store: Store) -> None:
        while True:
            await self.share(store)
            await store.clock.sleep(EVERY_S)

    def _open(self, limiter: str, secret: bytes) -> LimiterTally:
        with self._lock:
            if limiter not in self._tallies and len(self._tallies) >= MOST_LIMITERS - 1:
                limiter = OTHERS
            if limiter not in self._tallies:
                self._tallies[limiter] = LimiterTally(limiter, _ROWS * self._top, secret)
            return self._tallies[limiter]

    def _wait(self, event: Event) -> None:
        tally = self._tallies.get(event.limiter) or self._open(event.limiter, event.secret)
        tally.counts_of(event.time)[PLACES["waited"]] += 1
        tally.wait(event.seconds)

    def _note(self, event: Event) -> None:
        kind = event.kind
        with self._lock:
            self._latest = event.time
            if kind in ("down", "recovered"):
                self._outages.note(event)
            elif kind in _DISCORD or kind == "waited":
                self._discord[kind] += 1
            elif kind in self._other or len(self._other) < _MOST_KINDS:
                self._other[kind] += 1


def _count(tally: LimiterTally, counts: list[int], kind: str, key: str, answered_by: AnsweredBy) -> None:
    place = PLACES[kind]
    counts[place] += 1
    if place in _ABOUT_NO_KEY:
        return
    row = tally.rows[key]
    row[0] += 1
    if place == _SHADOW:
        tally.shadow(key)
    elif place != ALLOWED:
        row[1] += 1
    if answered_by != "store":
        counts[_CACHED if answered_by == "cache" else _DEGRADED] += 1


_MOST_KINDS: Final = 100  # of events; this package has fewer, but a caller may invent one
_all: WeakSet[Stats] = WeakSet()


def _after_fork() -> None:
    for stats in list(_all):
        stats.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
