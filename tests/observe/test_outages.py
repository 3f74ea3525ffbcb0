"""The state of a real server in the metrics: up from the start, down in an outage, and up again."""

from __future__ import annotations

import asyncio
import time

import pytest
from opentelemetry.sdk.metrics import MeterProvider

from asgi_ratelimit import Limiter
from asgi_ratelimit.observe import OpenTelemetryObserver
from asgi_ratelimit.redis import RedisStore
from tests.observe.scrapes import Scraped
from tests.support.servers import Proxy

pytestmark = pytest.mark.anyio

PATIENCE = 10.0  # seconds; the machine may be busy


async def acquire_until(limiter: Limiter, reason: str) -> int:
    """Ask until a decision has this reason. Returns how many had another one."""
    started, asked = time.monotonic(), 0
    while (await limiter.try_acquire("user:ada")).reason != reason:
        asked += 1
        assert time.monotonic() - started < PATIENCE
        await asyncio.sleep(0.02)
    return asked


async def test_an_outage_is_in_the_metrics_from_its_start_to_its_end(proxy: Proxy) -> None:
    scraped = Scraped()
    async with RedisStore(proxy.url, timeout=PATIENCE, observers=[scraped.observer]) as store:
        name = repr(store).split("'")[1]
        assert scraped.value("ratelimit_store_up", store=name) == 1.0
        limiter = Limiter("1000/day", store=store, name="app")
        await acquire_until(limiter, "ok")
        await asyncio.to_thread(proxy.refuse)
        await asyncio.to_thread(proxy.cut)
        await acquire_until(limiter, "degraded")
        assert scraped.value("ratelimit_store_up", store=name) == 0.0
        await asyncio.to_thread(proxy.pass_through)
        await acquire_until(limiter, "ok")
        assert scraped.value("ratelimit_store_up", store=name) == 1.0
    without = scraped.value("ratelimit_decisions_total", limiter="app", outcome="allowed", answered_by="fallback")
    assert without is not None
    assert without >= 1.0
    assert scraped.value("ratelimit_store_missed_total", store=name) == without


async def test_each_observer_of_a_store_learns_the_name_of_its_server_and_no_password() -> None:
    early, late = Scraped(), Scraped()
    store = RedisStore("redis://ada:secret@localhost:6379/3", observers=[early.observer])
    store.observers.add(late.observer)
    store.observers.add(OpenTelemetryObserver(MeterProvider(shutdown_on_exit=False)))
    for scraped in (early, late):
        assert [value for labels, value in scraped.changed()["ratelimit_store_up"]] == [1.0]
        assert "localhost:6379" in scraped.text
        assert "secret" not in scraped.text
