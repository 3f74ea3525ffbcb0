"""Seeing: the work of the limiters, stores and clients of an app, as events, counts, metrics and log lines.

Any function of an Event is an observer: `MemoryStore(observers=[print])`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from asgi_ratelimit.events import Event, Observer, Observers
from asgi_ratelimit.log_observer import LogObserver
from asgi_ratelimit.observe.sharing import shared_snapshot
from asgi_ratelimit.observe.snapshot import KeyCounts, LimiterCounts, Outage, Period, Snapshot
from asgi_ratelimit.observe.stats import Stats

if TYPE_CHECKING:
    from asgi_ratelimit.observe.opentelemetry import OpenTelemetryObserver
    from asgi_ratelimit.observe.prometheus import PrometheusObserver

__all__ = [
    "Event",
    "KeyCounts",
    "LimiterCounts",
    "LogObserver",
    "Observer",
    "Observers",
    "OpenTelemetryObserver",
    "Outage",
    "Period",
    "PrometheusObserver",
    "Snapshot",
    "Stats",
    "shared_snapshot",
]

_EXTRAS = {"OpenTelemetryObserver": "opentelemetry", "PrometheusObserver": "prometheus"}


def __getattr__(name: str) -> object:
    """The observers that need an extra. ImportError, with the name of the extra, if it is not installed."""
    if name not in _EXTRAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXTRAS[name]}"), name)
