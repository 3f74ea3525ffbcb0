"""What was counted of a limiter, a key, a period and an outage: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["NUMBERS", "KeyCounts", "LimiterCounts", "Outage", "Period"]


@dataclass(frozen=True, slots=True)
class Period:
    """What was decided in one minute or hour. `start` is in seconds since the Unix epoch.

    allowed: calls that were let in; those that shadow mode would have refused are among them
    refused: limited, blocked, unavailable or shed
    """

    start: float
    allowed: int = 0
    refused: int = 0

    @property
    def total(self) -> int:
        """All decisions of the period."""
        return self.allowed + self.refused

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"start": self.start, "allowed": self.allowed, "refused": self.refused}


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """What one of the heaviest keys was allowed and refused.

    Neither count is too high. Together they are too low by at most `error`: so many calls may have come before the key
    was noticed. Calls that shadow mode would have refused count as allowed.
    """

    key: str  # its digest, or the key itself with Stats(keys="clear")
    allowed: int = 0
    refused: int = 0
    error: int = 0

    @property
    def total(self) -> int:
        """All decisions about the key that were counted."""
        return self.allowed + self.refused

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"key": self.key, "allowed": self.allowed, "refused": self.refused, "error": self.error}


@dataclass(frozen=True, slots=True)
class LimiterCounts:
    """The decisions of one limiter.

    allowed, limited, blocked, shadow, exempt, unavailable, shed, gone: one of these for each decision
    cached, degraded: how many of them came from the deny cache, and from this process's memory in an outage
    near: allowed, with at least 80 % used
    waited, waited_seconds: calls that were held and then let in
    failed: log-ins that have failed
    in_flight, most_in_flight: calls that hold a slot of a `Concurrency`: now, and the highest number so far. Merged,
        the latter is that of one process, unless more are in flight now
    shadow_keys: how many different keys shadow mode would have refused; a lower bound once it is large
    busiest: the minute with the most decisions; None without any
    minutes, hours: the last hour by minute, and the last day by hour, oldest first, those without decisions included
    keys: the heaviest keys, heaviest first
    key_floor: a key that is not among them has at most so many decisions
    shadow_sample: digests of some of the keys that shadow mode would have refused, so that no key is counted twice when
        snapshots are merged
    escalated: blocks that have begun after too many refusals of a key, or would have in shadow mode
    """

    name: str
    allowed: int = 0
    limited: int = 0
    blocked: int = 0
    shadow: int = 0
    exempt: int = 0
    unavailable: int = 0
    shed: int = 0
    gone: int = 0
    cached: int = 0
    degraded: int = 0
    near: int = 0
    waited: int = 0
    waited_seconds: float = 0.0
    in_flight: int = 0
    most_in_flight: int = 0
    shadow_keys: int = 0
    busiest: Period | None = None
    minutes: tuple[Period, ...] = ()
    hours: tuple[Period, ...] = ()
    keys: tuple[KeyCounts, ...] = ()
    key_floor: int = 0
    shadow_sample: tuple[str, ...] = ()
    escalated: int = 0
    failed: int = 0

    @property
    def refused(self) -> int:
        """Limited, blocked, unavailable or shed."""
        return self.limited + self.blocked + self.unavailable + self.shed

    @property
    def total(self) -> int:
        """All decisions, all requests that were exempt from them, and all callers that left before theirs."""
        return self.allowed + self.shadow + self.exempt + self.refused + self.gone

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "name": self.name,
            **{name: getattr(self, name) for name in NUMBERS},
            "waited_seconds": self.waited_seconds,
            "busiest": self.busiest and self.busiest.to_dict(),
            "minutes": [period.to_dict() for period in self.minutes],
            "hours": [period.to_dict() for period in self.hours],
            "keys": [key.to_dict() for key in self.keys],
            "shadow_sample": list(self.shadow_sample),
        }


NUMBERS: Final = (
    "allowed", "limited", "blocked", "shadow", "exempt", "unavailable", "shed", "gone", "cached", "degraded",
    "near", "waited", "shadow_keys", "key_floor", "escalated", "failed", "in_flight", "most_in_flight",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage of a server: it began at `start`, and has lasted `seconds`; None: it has not ended."""

    node: str
    start: float
    seconds: float | None = None
    cause: str = ""
    checks: int = 0  # decisions without the server

    @property
    def end(self) -> float:
        """When it ended, in seconds since the Unix epoch; infinity if it has not."""
        return float("inf") if self.seconds is None else self.start + self.seconds

    def to_dict(self) -> Mapping[str, Any]:
        """As JSON can hold it."""
        return {
            "node": self.node, "start": self.start, "seconds": self.seconds, "cause": self.cause, "checks": self.checks
        }  # fmt: skip
