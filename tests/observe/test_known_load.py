"""A known load of 10 000 requests of 50 users: every observer agrees with it to the request, and names none of them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from fastapi import Depends, FastAPI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from asgi_ratelimit import RateLimitMiddleware, by_header
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.observe import Observer, OpenTelemetryObserver, Stats
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.observe.scrapes import Scraped
from tests.support.asgi import ask
from tests.support.servers import Proxy

pytestmark = pytest.mark.anyio

REQUESTS: Final = 10_000
OUTAGE: Final = 8_000  # it begins with this request
USERS: Final = [f"user-{number}@example.org" for number in range(50)]
PATHS: Final = ["/health", "/search", "/items/secret-item", "/beta", "/"]
LIMITS: Final = {"app": 120, "search": 20, "/items/{item_id}": 15, "beta": 5}
ROUTES: Final = {"/search": "search", "/items/secret-item": "/items/{item_id}", "/beta": "beta"}

Series = tuple[str, str, str]  # limiter, outcome, answered_by


@dataclass
class Model:
    """What has to come of each request, by counting: no clock moves, so nothing flows back."""

    used: Counter[tuple[str, str]] = field(default_factory=Counter)
    cached: set[tuple[str, str]] = field(default_factory=set)
    counts: Counter[Series] = field(default_factory=Counter)

    def expect(self, user: str, path: str, *, outage: bool) -> int:
        """Count a request. Returns the status of its response."""
        if path == "/health":
            self.counts["app", "exempt", "store"] += 1
            return 200
        if not self._decide(user, "app", outage=outage, asks_cache=True):
            return 429
        route = ROUTES.get(path)
        if route is None or self._decide(user, route, outage=outage, asks_cache=not outage) or route == "beta":
            return 200
        self.used[user, "app"] -= 1  # a refused request is charged by none
        return 429

    def _decide(self, user: str, limiter: str, *, outage: bool, asks_cache: bool) -> bool:
        place, server = (user, limiter), "fallback" if outage else "store"
        if self.used[place] < LIMITS[limiter]:
            self.used[place] += 1
            self.counts[limiter, "allowed", server] += 1
            return True
        is_cached = asks_cache and place in self.cached
        outcome = "shadow" if limiter == "beta" else "limited"
        self.counts[limiter, outcome, "cache" if is_cached else server] += 1
        if not outage:
            self.cached.add(place)
        return False


def app_of(store: RedisStore) -> FastAPI:
    app, by_user = FastAPI(), by_header("x-user")
    app.add_middleware(RateLimitMiddleware, limit="120/day", key=by_user, store=store, exempt=("/health",))
    routes = {
        "/search": RateLimit("20/day", key=by_user, name="search"),
        "/items/{item_id}": RateLimit("15/day", key=by_user),
        "/beta": RateLimit("5/day", key=by_user, name="beta", enforce=False),
    }

    async def answer() -> str:
        return "ok"

    for path, limit in routes.items():
        app.get(path, dependencies=[Depends(limit)])(answer)
    for path in ("/health", "/"):
        app.get(path)(answer)
    return app


def load() -> Iterator[tuple[str, str]]:
    chance = random.Random(7)
    for _ in range(REQUESTS):
        yield chance.choice(USERS), chance.choice(PATHS)


def counted_by_opentelemetry(reader: InMemoryMetricReader) -> Counter[Series]:
    read: Any = reader.get_metrics_data()
    (metric,) = [
        metric
        for resource in read.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "ratelimit_decisions"
    ]
    return Counter(
        {
            (point.attributes["limiter"], point.attributes["outcome"], point.attributes["answered_by"]): point.value
            for point in metric.data.data_points
            if point.value
        }
    )


async def test_all_observers_agree_with_the_load(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asgi_ratelimit")
    clock, model, stats, scraped, reader = ManualClock(), Model(), Stats(), Scraped(), InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    observers: list[Observer] = [stats, scraped.observer, OpenTelemetryObserver(provider)]
    async with RedisStore(proxy.url, clock=clock, timeout=10, observers=observers) as store:
        app = app_of(store)
        for number, (user, path) in enumerate(load()):
            if number == OUTAGE:
                await asyncio.to_thread(proxy.refuse)
                await asyncio.to_thread(proxy.cut)
            answer = await ask(app, path, headers=[("x-user", user), ("authorization", "Bearer s3cret")])
            assert answer.status == model.expect(user, path, outage=number >= OUTAGE), (number, user, path)
        await asyncio.to_thread(proxy.pass_through)
        snapshot = stats.snapshot()
        clock.advance(60)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    expected = +model.counts
    assert {outcome for _, outcome, _ in expected} == {"allowed", "limited", "shadow", "exempt"}
    assert {answered_by for _, _, answered_by in expected} == {"store", "cache", "fallback"}
    series = scraped.changed()["ratelimit_decisions_total"]
    assert {tuple(labels.values()): value for labels, value in series} == {
        (answered_by, limiter, outcome): value for (limiter, outcome, answered_by), value in expected.items()
    }
    assert counted_by_opentelemetry(reader) == expected
    for limiter in LIMITS:
        counts, of_limiter = snapshot.limiters[limiter], {key: n for key, n in expected.items() if key[0] == limiter}
        for outcome in ("allowed", "limited", "shadow", "exempt"):
            assert getattr(counts, outcome) == sum(n for key, n in of_limiter.items() if key[1] == outcome)
        for name, answered_by in (("cached", "cache"), ("degraded", "fallback")):
            assert getattr(counts, name) == sum(n for key, n in of_limiter.items() if key[2] == answered_by)
    assert snapshot.limiters["beta"].shadow_keys == len(USERS)
    assert len(snapshot.limiters["app"].keys) == len(USERS)
    logged = {record.limiter: record.limited for record in caplog.records if hasattr(record, "limited")}  # type: ignore[attr-defined]
    refused: Counter[str] = Counter()
    for (limiter, outcome, _), count in expected.items():
        refused[limiter] += count if outcome == "limited" else 0
    assert logged == dict(+refused)
    for text in (scraped.text, caplog.text, str(snapshot.to_dict()), str(reader.get_metrics_data())):
        for secret in ("user-", "example.org", "secret-item", "203.0.113.7", "s3cret"):
            assert secret not in text
