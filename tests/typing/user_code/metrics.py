"""Metrics for Prometheus and OpenTelemetry, from the stores of an app."""

from __future__ import annotations

from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette

from asgi_ratelimit import MemoryStore, RateLimitMiddleware
from asgi_ratelimit.observe import Observer, OpenTelemetryObserver, PrometheusObserver
from asgi_ratelimit.redis import RedisStore

registry = CollectorRegistry()
provider = MeterProvider(shutdown_on_exit=False)
observers: list[Observer] = [PrometheusObserver(registry=registry), OpenTelemetryObserver(meter_provider=provider)]

store = RedisStore("redis://localhost:6379/0", observers=observers)
cache = MemoryStore(observers=[OpenTelemetryObserver()])
app = Starlette()
app.add_middleware(RateLimitMiddleware, limit="100/minute", store=store)


def scrape() -> bytes:
    return generate_latest(registry)
