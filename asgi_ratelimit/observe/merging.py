"""Merging: the counts of several limiters, or of one in several processes, become one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from asgi_ratelimit.observe.counts import KeyCounts, LimiterCounts, Outage, Period

__all__ = [
    "HOURS", "HOUR_S", "MINUTES", "MINUTE_S", "MOST_LIMITERS", "MOST_OUTAGES", "MOST_SAMPLED", "OTHERS", "latest",
    "merge_all", "merge_limiters", "merge_outages", "periods", "without_lightest",
]  # fmt: skip

OTHERS: Final = "(others)"  # the name of all limiters for which there is no room
MINUTE_S, MINUTES = 60, 60
HOUR_S, HOURS = 3_600, 24
MOST_SAMPLED: Final = 128  # digests of keys that shadow mode would have refused
MOST_LIMITERS: Final = 1_000
MOST_OUTAGES: Final = 20
_LEAST_KEYS: Final = 100
_SUMS: Final = (
    "allowed", "limited", "blocked", "shadow", "exempt", "unavailable", "shed", "gone", "cached", "degraded",
    "near", "waited", "waited_seconds", "escalated", "failed", "in_flight",
)  # fmt: skip

Counted = dict[float, tuple[int, int]]  # allowed and refused by the start of the period


def periods(counted: Counted, now: float, seconds: int, number: int) -> tuple[Period, ...]:
    """The last periods up to the one that it is now, those without decisions included."""
    last = now // seconds * seconds
    starts = [last - seconds * back for back in range(number - 1, -1, -1)]
    return tuple([Period(start, *counted.get(start, (0, 0))) for start in starts])


def merge_limiters(name: str, parts: Sequence[LimiterCounts], now: float) -> LimiterCounts:
    """All counts of the parts under one name."""
    minutes = _sum(period for part in parts for period in part.minutes)
    hours = _sum(period for part in parts for period in part.hours)
    keys, floor = _merge_keys(parts)
    sample = sorted({digest for part in parts for digest in part.shadow_sample})
    return LimiterCounts(
        name,
        **{field: sum(getattr(part, field) for part in parts) for field in _SUMS},
        most_in_flight=max(sum(part.in_flight for part in parts), *(part.most_in_flight for part in parts)),
        shadow_keys=max(len(sample), *(part.shadow_keys for part in parts)),
        busiest=_busiest(minutes, parts),
        minutes=periods(minutes, now, MINUTE_S, MINUTES),
        hours=periods(hours, now, HOUR_S, HOURS),
        keys=keys,
        key_floor=floor,
        shadow_sample=tuple(sample[:MOST_SAMPLED]),
    )


def merge_all(parts: Mapping[str, Sequence[LimiterCounts]], most: int, now: float) -> dict[str, LimiterCounts]:
    """The parts of each limiter as one. There are at most so many: the lightest limiters become one."""
    names = sorted(parts, key=lambda name: (name == OTHERS, -sum([part.total for part in parts[name]])))
    kept = names if len(names) <= most else names[: most - 1]
    merged = {name: merge_limiters(name, parts[name], now) for name in kept}
    others = [part for name in names[len(kept) :] for part in parts[name]]
    return merged | {OTHERS: merge_limiters(OTHERS, others, now)} if others else merged


def without_lightest(limiters: Iterable[LimiterCounts], most: int, now: float) -> dict[str, LimiterCounts]:
    """At most so many limiters: the lightest become one."""
    ordered = sorted(limiters, key=lambda counts: (counts.name == OTHERS, -counts.total))
    if len(ordered) <= most:
        return {counts.name: counts for counts in ordered}
    kept = {counts.name: counts for counts in ordered[: most - 1]}
    return kept | {OTHERS: merge_limiters(OTHERS, ordered[most - 1 :], now)}


def merge_outages(outages: Iterable[Outage]) -> tuple[Outage, ...]:
    """The last ones, oldest first. Those of one server that overlap are one, seen by several processes."""
    merged: list[Outage] = []
    open_until: dict[str, int] = {}  # by node: the place of its last outage
    for outage in sorted(outages, key=lambda outage: outage.start):
        place = open_until.get(outage.node)
        if place is not None and outage.start <= merged[place].end:
            merged[place] = _joined(merged[place], outage)
        else:
            open_until[outage.node] = len(merged)
            merged.append(outage)
    return latest(merged)


def latest(outages: Sequence[Outage]) -> tuple[Outage, ...]:
    """The last of them."""
    return tuple(outages[-MOST_OUTAGES:])


def _joined(one: Outage, other: Outage) -> Outage:
    lasts = one.seconds is None or other.seconds is None
    seconds = None if lasts else max(one.end, other.end) - one.start
    return replace(one, seconds=seconds, cause=one.cause or other.cause, checks=one.checks + other.checks)


def _sum(all_periods: Iterable[Period]) -> Counted:
    counted: defaultdict[float, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for period in all_periods:
        allowed, refused = counted[period.start]
        counted[period.start] = allowed + period.allowed, refused + period.refused
    return counted


def _busiest(minutes: Counted, parts: Sequence[LimiterCounts]) -> Period | None:
    """Of minutes that are in no part's last hour, only those count that were some part's busiest."""
    best = _sum(part.busiest for part in parts if part.busiest is not None)
    for start, counted in minutes.items():
        best[start] = max(best[start], counted, key=sum)
    found = max((Period(start, *counted) for start, counted in best.items()), key=_rank, default=None)
    return found if found is not None and found.total else None


def _rank(period: Period) -> tuple[int, float]:
    return period.total, -period.start


def _merge_keys(parts: Sequence[LimiterCounts]) -> tuple[tuple[KeyCounts, ...], int]:
    """The heaviest keys, and how many decisions any other may have.

    A part that does not list a key may have counted as many as its floor, so that is the key's error there.
    """
    floor = sum(part.key_floor for part in parts)
    rows: dict[str, list[int]] = {}
    for part in parts:
        for key in part.keys:
            row = rows.setdefault(key.key, [0, 0, floor])
            row[0] += key.allowed
            row[1] += key.refused
            row[2] += key.error - part.key_floor
    ordered = sorted(rows.items(), key=lambda item: (-sum(item[1]), item[0]))
    most = max(_LEAST_KEYS, *(len(part.keys) for part in parts))
    heaviest = tuple([KeyCounts(key, *row) for key, row in ordered[:most]])
    return heaviest, max([floor, *(sum(row) for _, row in ordered[most:])])
