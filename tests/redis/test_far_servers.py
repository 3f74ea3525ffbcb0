"""A healthy server far away: whoever would be answered in time waits for it, and who is not is counted."""

from __future__ import annotations

import asyncio

import pytest

from asgi_ratelimit import Decision, Limiter
from asgi_ratelimit.limits import Outage
from asgi_ratelimit.redis import RedisStore, StoreEvent
from tests.support.server_counts import calls
from tests.support.servers import Proxy, Server

pytestmark = pytest.mark.anyio

TIMEOUT = 1.0  # ten times the usual one, since the machine may be busy
CHECKS = 40


async def spread(limiter: Limiter, seconds: float) -> list[Decision]:
    """The decisions of checks that come one by one, all of them before the first can be answered."""
    tasks = []
    for number in range(CHECKS):
        tasks.append(asyncio.ensure_future(limiter.try_acquire(f"user {number}")))
        await asyncio.sleep(seconds / CHECKS)  # the arrivals have to be spread
    return await asyncio.gather(*tasks)


@pytest.mark.parametrize(("share", "outage"), [(0.55, "local"), (0.8, "closed")])
async def test_a_server_that_answers_before_the_timeout_decides_everything(
    proxy: Proxy, share: float, outage: Outage
) -> None:
    events: list[StoreEvent] = []
    async with RedisStore(proxy.url, timeout=TIMEOUT, outage=outage, on_event=events.append) as store:
        limiter = Limiter("5/day", store=store)
        proxy.delay(share * TIMEOUT)
        await limiter.peek("first")
        decisions = await spread(limiter, share * TIMEOUT)
        proxy.pass_through()
    assert {decision.reason for decision in decisions} == {"ok"}
    assert events == []


async def test_a_server_that_becomes_slow_is_used_as_soon_as_that_is_known(proxy: Proxy) -> None:
    async with RedisStore(proxy.url, timeout=TIMEOUT) as store:
        limiter = Limiter("5/day", store=store)
        await limiter.peek("first")
        proxy.delay(0.6 * TIMEOUT)
        decisions = await spread(limiter, 0.6 * TIMEOUT)
        proxy.pass_through()
    assert {decision.reason for decision in decisions} == {"ok"}


async def test_checks_that_are_answered_too_late_are_counted_and_reported(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[StoreEvent] = []
    store = RedisStore(proxy.url, timeout=TIMEOUT, on_event=events.append)
    await store.start()
    limiter = Limiter("5/day", store=store)
    proxy.delay(0.8 * TIMEOUT)
    # While the first is on its way, four calls are sent. The others wait for a reply, and that is too long.
    decisions = await spread(limiter, 0.75 * TIMEOUT)
    proxy.pass_through()
    late = sum(decision.reason == "degraded" for decision in decisions)
    await store.aclose()
    assert late > 0
    assert sum(event.checks for event in events) == late
    assert events[-1].kind in ("missed", "up")
    assert f"checks decided without it: {late}" in caplog.text or events[0].kind == "down"


async def test_a_far_server_is_not_sent_a_call_for_each_check(proxy: Proxy, any_redis: Server) -> None:
    async with RedisStore(proxy.url, timeout=10 * TIMEOUT) as store:
        limiter = Limiter("5/day", store=store)
        proxy.delay(2 * TIMEOUT)
        await limiter.peek("first")
        before = calls(any_redis)
        decisions = await asyncio.gather(*(limiter.try_acquire(f"user {number}") for number in range(2000)))
        proxy.pass_through()
    assert {decision.reason for decision in decisions} == {"ok"}
    assert calls(any_redis) - before <= 64
