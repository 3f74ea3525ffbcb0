"""Observers of an app: its own, the log, and metrics for Prometheus and OpenTelemetry."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette

from asgi_ratelimit import MemoryStore, RateLimitMiddleware
from asgi_ratelimit.observe import (
    Event,
    KeyCounts,
    LimiterCounts,
    LogObserver,
    Observer,
    Observers,
    OpenTelemetryObserver,
    Outage,
    Period,
    PrometheusObserver,
    Snapshot,
)
from asgi_ratelimit.redis import RedisStore


def note(event: Event) -> None:
    if event.kind == "limited" and event.answered_by != "cache":
        print(event.limiter, event.key_digest, event.seconds)


note(Event(kind="limited", limiter="app"))  # as in a test of the function

registry = CollectorRegistry()
provider = MeterProvider(shutdown_on_exit=False)
observers: list[Observer] = [
    note,
    LogObserver(every=300, level=logging.WARNING, logger=logging.getLogger(__name__)),
    PrometheusObserver(registry=registry),
    OpenTelemetryObserver(meter_provider=provider),
]

store = RedisStore("redis://localhost:6379/0", observers=observers)
cache = MemoryStore(observers=[OpenTelemetryObserver()])
app = Starlette()
app.add_middleware(RateLimitMiddleware, limit="100/minute", store=store)


def listen_as_well(observers: Observers, observer: Observer) -> None:
    if observer not in observers:
        observers.add(observer)


def scrape() -> bytes:
    return generate_latest(registry)


def refusals(snapshot: Snapshot) -> Iterator[tuple[str, int, KeyCounts, Period | None]]:
    for name, counts in snapshot.limiters.items():
        yield name, counts.refused, heaviest(counts), counts.busiest


def heaviest(counts: LimiterCounts) -> KeyCounts:
    return counts.keys[0]


def lasts(outage: Outage) -> bool:
    return outage.seconds is None
