"""LimiterTally: the counts of one limiter, while they grow."""

from __future__ import annotations

import threading
from typing import Final

from asgi_ratelimit.events import Event
from asgi_ratelimit.observe.counts import KeyCounts, LimiterCounts, Period
from asgi_ratelimit.observe.heavy_hitters import HeavyHitters
from asgi_ratelimit.observe.merging import (
    HOUR_S,
    HOURS,
    MINUTE_S,
    MINUTES,
    MOST_SAMPLED,
    Counted,
    periods,
)

__all__ = ["ALLOWED", "PLACES", "LimiterTally"]

_NAMES: Final = (
    "allowed", "limited", "blocked", "shadow", "exempt", "unavailable", "shed", "gone", "cached", "degraded",
    "near", "waited", "escalated", "failed",
)  # fmt: skip
PLACES: Final = {name: place for place, name in enumerate(_NAMES)}  # of each count in the list of a minute
ALLOWED: Final = PLACES["allowed"]
_LET_IN: Final = (ALLOWED, PLACES["shadow"])
_REFUSED: Final = (PLACES["limited"], PLACES["blocked"], PLACES["unavailable"], PLACES["shed"])
_MOST_SHADOWED: Final = 1_000  # keys


class LimiterTally:
    """The counts of one limiter: a list for each minute, and a row for each heavy key.

    It is counted in without a lock, which would take longer than all the rest: in CPython no other thread comes between
    the two halves of `counts[place] += 1`. What turns to another minute holds one.
    """

    __slots__ = (
        "_busiest", "_digests", "_hours", "_lock", "_minutes", "_shadowed", "_totals", "counts", "end_us", "name",
        "rows", "secret", "start_us", "waited_seconds",
    )  # fmt: skip

    def __init__(self, name: str, size: int, secret: bytes) -> None:
        self.name, self.secret = name, secret
        self.rows = HeavyHitters(size)  # of the keys
        self.start_us = self.end_us = 0  # of the present minute, on the clock of the decisions
        self.counts: list[int] = []
        self.waited_seconds = 0.0
        self._minutes: dict[int, list[int]] = {}  # the lists of the last minutes, by number
        self._hours: Counted = {}  # and so on are the counts of all minutes before these
        self._totals = [0] * len(_NAMES)
        self._busiest: Period | None = None
        self._shadowed: set[str] = set()
        self._digests: dict[str, str] = {}  # of the keys in the last snapshot
        self._lock = threading.RLock()  # a destructor may report an event while it is held

    def turn(self, time: float, now_us: int) -> list[int]:
        """The counts of the minute of that time, which may be an earlier one: a clock may go back.

        Decisions up to its end go by their own `now_us`: to read the clock for each of them would take longer. Until
        then a wall clock that is set does not matter.
        """
        since = time % MINUTE_S
        with self._lock:
            self.counts = self.counts_of(time)
            self.start_us = now_us - int(since * 1e6)
            self.end_us = self.start_us + MINUTE_S * 1_000_000
            return self.counts

    def counts_of(self, time: float) -> list[int]:
        """The counts of the minute of that time."""
        minute = int(time // MINUTE_S)
        with self._lock:
            counts = self._minutes.setdefault(minute, [0] * len(_NAMES))
            if len(self._minutes) > MINUTES + 1:
                self._fold(minute)
                self.start_us = self.end_us = 0  # the present list may be among those that are gone
            return counts

    def latest(self) -> float:
        """The beginning of the last minute with a decision."""
        with self._lock:
            return float(max(self._minutes, default=0) * MINUTE_S)

    def shadow(self, key: str) -> None:
        """Note a key that shadow mode would have refused."""
        with self._lock:
            if len(self._shadowed) < _MOST_SHADOWED:
                self._shadowed.add(key)

    def wait(self, seconds: float) -> None:
        """Add to the time that calls have waited."""
        with self._lock:
            self.waited_seconds += seconds

    def _fold(self, present: int) -> None:
        """Put minutes that are not in the last hour into hours and totals."""
        for minute in [minute for minute in self._minutes if not present - MINUTES < minute <= present]:
            counts = self._minutes.pop(minute)
            period = _period(minute, counts)
            _add(self._hours, period)
            self._totals = [total + count for total, count in zip(self._totals, counts, strict=True)]
            self._busiest = _busier(self._busiest, period)
        hour = present * MINUTE_S // HOUR_S
        self._hours = {start: counted for start, counted in self._hours.items() if start // HOUR_S > hour - HOURS}
        if len(self._hours) > 2 * HOURS:  # of a clock that has gone back
            self._hours = {start: self._hours[start] for start in sorted(self._hours)[:HOURS]}

    def snapshot(self, now: float, top: int, clear: bool) -> LimiterCounts:
        """All of it, as it is now."""
        with self._lock:
            rows = [(key, row) for key, row in self.rows.heaviest_first() if key]  # some decisions have none
            shadowed, floor, waited_seconds = sorted(self._shadowed), self.rows.floor, self.waited_seconds
            minutes = {minute: list(counts) for minute, counts in self._minutes.items()}
            hours, totals, busiest = dict(self._hours), self._totals, self._busiest
        by_minute: Counted = {}
        for minute, counts in sorted(minutes.items()):
            period = _period(minute, counts)
            _add(by_minute, period, MINUTE_S)
            _add(hours, period)
            busiest = _busier(busiest, period)
            totals = [total + count for total, count in zip(totals, counts, strict=True)]
        shown, sample = [key for key, _ in rows[:top]], shadowed[:MOST_SAMPLED]
        digests = self._digests = {key: self._digests.get(key) or self._digest(key) for key in (*shown, *sample)}
        names = shown if clear else [digests[key] for key in shown]
        return LimiterCounts(
            self.name,
            **dict(zip(_NAMES, totals, strict=True)),
            waited_seconds=waited_seconds,
            shadow_keys=len(shadowed),
            busiest=busiest,
            minutes=periods(by_minute, now, MINUTE_S, MINUTES),
            hours=periods(hours, now, HOUR_S, HOURS),
            keys=tuple([_key(name, *row) for name, (_, row) in zip(names, rows, strict=False)]),
            key_floor=max([floor, *(count for _, (count, _, _) in rows[top : top + 1])]),
            shadow_sample=tuple(sorted([digests[key] for key in sample])),
        )

    def _digest(self, key: str) -> str:
        return Event("allowed", key=key, secret=self.secret).key_digest


def _key(name: str, count: int, refused: int, error: int) -> KeyCounts:
    return KeyCounts(name, count - error - refused, refused, error)


def _period(minute: int, counts: list[int]) -> Period:
    allowed, refused = (sum(counts[place] for place in places) for places in (_LET_IN, _REFUSED))
    return Period(float(minute * MINUTE_S), allowed, refused)


def _add(counted: Counted, period: Period, seconds: int = HOUR_S) -> None:
    start = period.start // seconds * seconds
    allowed, refused = counted.get(start, (0, 0))
    counted[start] = allowed + period.allowed, refused + period.refused


def _busier(one: Period | None, other: Period) -> Period | None:
    return other if other.total > (one.total if one else 0) else one
