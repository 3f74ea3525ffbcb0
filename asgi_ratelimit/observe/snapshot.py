"""What Stats has counted up to a moment: plain values, for a page, a command or another process."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["KeyCounts", "LimiterCounts", "Outage", "Period", "Snapshot"]


@dataclass(frozen=True, slots=True)
class Period:
    """What was decided in one minute or hour. `start` is in seconds since the Unix epoch."""

    start: float
    allowed: int = 0
    refused: int = 0

    @property
    def total(self) -> int:
        """All decisions of the period."""
        return self.allowed + self.refused


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """What one of the heaviest keys was allowed and refused. Each count is too high by at most `error`."""

    key: str  # its digest, or the key itself with Stats(keys="clear")
    allowed: int = 0
    refused: int = 0
    error: int = 0


@dataclass(frozen=True, slots=True)
class LimiterCounts:
    """The decisions of one limiter.

    allowed, limited, blocked, shadow, exempt, unavailable: one of these for each decision
    cached, degraded: how many of them came from the deny cache, and from this process's memory in an outage
    near: allowed, with at least 80 % used
    waited, waited_seconds: calls that were held and then let in
    shadow_keys: how many different keys shadow mode would have refused; a lower bound once it is large
    busiest: the minute with the most decisions; None without any
    minutes, hours: the last hour by minute, and the last day by hour, oldest first, those without decisions included
    keys: the heaviest keys, heaviest first
    """

    name: str
    allowed: int = 0
    limited: int = 0
    blocked: int = 0
    shadow: int = 0
    exempt: int = 0
    unavailable: int = 0
    cached: int = 0
    degraded: int = 0
    near: int = 0
    waited: int = 0
    waited_seconds: float = 0.0
    shadow_keys: int = 0
    busiest: Period | None = None
    minutes: tuple[Period, ...] = ()
    hours: tuple[Period, ...] = ()
    keys: tuple[KeyCounts, ...] = ()

    @property
    def refused(self) -> int:
        """Limited, blocked or unavailable."""
        return self.limited + self.blocked + self.unavailable


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage of a server: it began at `start`, and has lasted `seconds`; None: it has not ended."""

    node: str
    start: float
    seconds: float | None = None
    cause: str = ""
    checks: int = 0  # decisions without the server


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All counts at one moment.

    limiters: by name
    outages: the last ones, oldest first
    discord: how many events of each kind of the way out there were, e.g. {"response": 120, "refused": 1}
    processes: how many processes these are the counts of
    """

    time: float
    limiters: dict[str, LimiterCounts] = field(default_factory=dict)
    outages: tuple[Outage, ...] = ()
    discord: dict[str, int] = field(default_factory=dict)
    processes: int = 1
