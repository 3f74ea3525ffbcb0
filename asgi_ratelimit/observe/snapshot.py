"""What Stats has counted up to a moment: plain values, for a page, a command or another process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from asgi_ratelimit.observe import parsing
from asgi_ratelimit.observe.counts import KeyCounts, LimiterCounts, Outage, Period
from asgi_ratelimit.observe.merging import MOST_LIMITERS, merge_all, merge_outages

__all__ = ["MOST_LIMITERS", "KeyCounts", "LimiterCounts", "Outage", "Period", "Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All counts at one moment.

    limiters: by name
    outages: the last ones, oldest first
    discord: how many events of each kind of the way out there were, e.g. {"response": 120, "refused": 1}
    processes: how many processes these are the counts of
    other: how many events of each other kind there were, e.g. {"missed": 1, "lost": 2}
    """

    time: float
    limiters: dict[str, LimiterCounts] = field(default_factory=dict)
    outages: tuple[Outage, ...] = ()
    discord: dict[str, int] = field(default_factory=dict)
    processes: int = 1
    other: dict[str, int] = field(default_factory=dict)

    @classmethod
    def merge(cls, snapshots: Iterable[Self]) -> Self:
        """The counts of several processes as one.

        All counts are added, also those of each minute and hour up to the latest snapshot's `time`. A key that one
        process lists and another does not has that one's `key_floor` added to its error. `busiest` is exact for minutes
        in the last hour of every process; of an earlier one only those processes are counted of which it was the
        busiest minute. `shadow_keys` is exact for up to 128 keys per process, else a lower bound. Outages of one server
        that overlap are one.
        """
        parts = list(snapshots)
        now = max([part.time for part in parts], default=0.0)
        by_name: dict[str, list[LimiterCounts]] = {}
        for part in parts:
            for counts in part.limiters.values():
                by_name.setdefault(counts.name, []).append(counts)
        return cls(
            now,
            merge_all(by_name, MOST_LIMITERS, now),
            merge_outages(outage for part in parts for outage in part.outages),
            _sum(part.discord for part in parts),
            sum(part.processes for part in parts),
            _sum(part.other for part in parts),
        )

    def ended(self) -> Self:
        """The same, of a process that has ended: none of its calls is in flight."""
        limiters = {name: replace(counts, in_flight=0) for name, counts in self.limiters.items()}
        return replace(self, processes=0, limiters=limiters)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "time": self.time,
            "processes": self.processes,
            "limiters": [counts.to_dict() for counts in self.limiters.values()],
            "outages": [outage.to_dict() for outage in self.outages],
            "discord": dict(self.discord),
            "other": dict(self.other),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The snapshot of which `to_dict` has returned this. Raises ValueError if it is something else."""
        record = parsing.table(value, "all")
        limiters = parsing.each(parsing.limiter, record.get("limiters", ()), "limiters", MOST_LIMITERS)
        return cls(
            parsing.moment(record.get("time"), "time"),
            {counts.name: counts for counts in limiters},
            parsing.each(parsing.outage, record.get("outages", ()), "outages", MOST_LIMITERS),
            _counts(record.get("discord", {}), "discord"),
            parsing.whole(record.get("processes", 1), "processes"),
            _counts(record.get("other", {}), "other"),
        )


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _counts(value: object, name: str) -> dict[str, int]:
    return {kind: parsing.whole(count, name) for kind, count in parsing.table(value, name).items()}
