"""Seeing: what the limiters, stores and clients of an app do, as events, counts, metrics and log lines.

Any function of an Event is an observer: `MemoryStore(observers=[print])`.
"""

from asgi_ratelimit.events import Event, Observer, Observers
from asgi_ratelimit.log_observer import LogObserver
from asgi_ratelimit.observe.sharing import shared_snapshot
from asgi_ratelimit.observe.snapshot import KeyCounts, LimiterCounts, Outage, Period, Snapshot
from asgi_ratelimit.observe.stats import Stats

__all__ = [
    "Event",
    "KeyCounts",
    "LimiterCounts",
    "LogObserver",
    "Observer",
    "Observers",
    "Outage",
    "Period",
    "Snapshot",
    "Stats",
    "shared_snapshot",
]
