"""The verbs of a limiter while its server is down: the decisions, the local effects, and the errors."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asgi_ratelimit import (
    Decision,
    FixedWindow,
    LeakyBucket,
    Limiter,
    RateLimited,
    SlidingWindow,
    StoreUnavailable,
    TokenBucket,
)
from asgi_ratelimit.limits import Outage
from asgi_ratelimit.redis import RedisStore, StoreEvent
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Proxy

pytestmark = pytest.mark.anyio

PATIENCE = 10.0  # seconds; the machine may be busy

Verb = Callable[[Limiter], Coroutine[Any, Any, object]]


@pytest.fixture
async def opened(proxy: Proxy, clock: ManualClock) -> AsyncIterator[Callable[..., RedisStore]]:
    """A store at the proxy, on the test's clock."""
    stores: list[RedisStore] = []

    def open_store(**options: Any) -> RedisStore:
        stores.append(RedisStore(proxy.url, **{"clock": clock, "timeout": PATIENCE, **options}))
        return stores[-1]

    yield open_store
    for store in stores:
        await store.aclose()


@pytest.fixture
def store(opened: Callable[..., RedisStore]) -> RedisStore:
    return opened()


@asynccontextmanager
async def down(proxy: Proxy, *limiters: Limiter) -> AsyncIterator[None]:
    """The server does not answer. Afterwards all of the limiters use it again."""
    await asyncio.to_thread(hang_up, proxy)
    yield
    await asyncio.to_thread(proxy.pass_through)
    for limiter in limiters:
        async with asyncio.timeout(PATIENCE):
            while not await shared(limiter):
                await asyncio.sleep(0.003)


def hang_up(proxy: Proxy) -> None:
    proxy.refuse()
    proxy.cut()


async def shared(limiter: Limiter) -> bool:
    try:
        return (await limiter.peek("another")).reason != "degraded"
    except StoreUnavailable:
        return False


async def take(limiter: Limiter, times: int, key: str = "ada") -> list[Decision]:
    return [await limiter.try_acquire(key) for _ in range(times)]


def allowed(decisions: list[Decision]) -> int:
    return sum(decision.allowed for decision in decisions)


@pytest.mark.parametrize(
    "limit",
    [
        "10/minute",
        TokenBucket("7/s", burst=10),
        LeakyBucket("1/s", queue=9),
        SlidingWindow("10/minute"),
        FixedWindow("10/minute"),
        ["10/minute", "100/hour"],
        TokenBucket("10/minute", scope="global"),
        TokenBucket("10/minute", scope="shared"),
    ],
    ids=str,
)
async def test_earlier_charges_count(proxy: Proxy, store: RedisStore, clock: ManualClock, limit: Any) -> None:
    limiter = Limiter(limit, store=store)
    assert allowed(await take(limiter, 4)) == 4
    clock.advance(1e-6)  # an outage goes on from whole microseconds, rounded up
    async with down(proxy):
        decisions = await take(limiter, 10)
    assert allowed(decisions) == 6
    assert {decision.reason for decision in decisions} == {"degraded"}


async def test_charges_of_another_process_count_as_far_as_redis_has_reported_them(
    proxy: Proxy, opened: Callable[..., RedisStore]
) -> None:
    here, there = (Limiter("10/minute", store=opened()) for _ in range(2))
    await take(there, 5)
    await take(here, 1)
    await take(there, 2)
    async with down(proxy):
        assert allowed(await take(here, 10)) == 4


async def test_a_block_that_was_seen_before_holds(proxy: Proxy, store: RedisStore, clock: ManualClock) -> None:
    limiter = Limiter("10/minute", store=store)
    await limiter.block("ada", 60)
    assert (await limiter.peek("ada")).reason == "blocked"
    async with down(proxy):
        decision = await limiter.try_acquire("ada")
        assert (decision.allowed, decision.reason, decision.retry_after) == (False, "blocked", 60.0)
        clock.advance(60)
        assert (await limiter.try_acquire("ada")).allowed


async def test_afterwards_local_charges_are_not_in_redis(proxy: Proxy, store: RedisStore) -> None:
    limiter = Limiter("10/minute", store=store)
    await take(limiter, 4)
    async with down(proxy, limiter):
        await take(limiter, 6)
    decision = await limiter.try_acquire("ada")
    assert (decision.allowed, decision.remaining, decision.reason) == (True, 5, "ok")


async def test_a_second_outage_starts_from_the_last_states_of_redis(proxy: Proxy, store: RedisStore) -> None:
    limiter = Limiter("10/minute", store=store)
    await take(limiter, 4)
    async with down(proxy, limiter):
        await take(limiter, 6)
    await take(limiter, 1)
    async with down(proxy):
        assert allowed(await take(limiter, 10)) == 5


async def test_a_block_that_was_lifted_elsewhere_does_not_come_back(
    proxy: Proxy, opened: Callable[..., RedisStore]
) -> None:
    here, there = (Limiter("10/minute", store=opened()) for _ in range(2))
    await there.block("ada", 60)
    assert (await here.peek("ada")).reason == "blocked"
    await there.block("ada", 0)
    assert (await here.peek("ada")).reason == "ok"
    async with down(proxy):
        assert allowed(await take(here, 1)) == 1


async def test_a_peek_is_answered_here(proxy: Proxy, store: RedisStore) -> None:
    limiter = Limiter("10/minute", store=store)
    await take(limiter, 4)
    async with down(proxy):
        for _ in range(2):
            decision = await limiter.peek("ada", 6)
            assert (decision.allowed, decision.remaining, decision.reason) == (True, 6, "degraded")
        assert not (await limiter.peek("ada", 7)).allowed


@pytest.mark.parametrize("outage", ["local", "open", "closed"])
async def test_a_refund_is_never_an_error(proxy: Proxy, opened: Callable[..., RedisStore], outage: Outage) -> None:
    limiter = Limiter("10/minute", store=opened(outage=outage))
    (decision,) = await take(limiter, 1)
    async with down(proxy, limiter):
        await limiter.refund(decision)
        await limiter.refund(decision)
    assert (await limiter.peek("ada")).remaining in (9, 10)


async def test_a_local_charge_is_refunded_locally_once(proxy: Proxy, store: RedisStore) -> None:
    limiter = Limiter(["10/minute", "20/hour"], store=store)
    async with down(proxy):
        decision = await limiter.try_acquire("ada", 5)
        await take(limiter, 1)
        for _ in range(2):
            await limiter.refund(decision)
        assert (await limiter.peek("ada")).remaining == 9


async def test_a_local_charge_is_not_refunded_in_redis(proxy: Proxy, store: RedisStore) -> None:
    limiter = Limiter("10/minute", store=store)
    await take(limiter, 4)
    async with down(proxy, limiter):
        decision = await limiter.try_acquire("ada", 5)
        assert decision.reason == "degraded"
    await limiter.refund(decision)
    assert (await limiter.peek("ada")).remaining == 6


async def test_a_reset_is_done_here_and_says_that_it_was_not_done_there(proxy: Proxy, store: RedisStore) -> None:
    limiter = Limiter("10/minute", store=store)
    await take(limiter, 10)
    async with down(proxy):
        assert allowed(await take(limiter, 1)) == 0
        with pytest.raises(StoreUnavailable, match="only this process"):
            await limiter.reset("ada")
        assert allowed(await take(limiter, 11)) == 10


async def test_a_block_is_done_here_and_says_that_it_was_not_done_there(
    proxy: Proxy, store: RedisStore, clock: ManualClock
) -> None:
    limiter = Limiter("10/minute", store=store)
    await take(limiter, 1)
    async with down(proxy, limiter):
        with pytest.raises(StoreUnavailable, match="only this process"):
            await limiter.block("ada", 60)
        assert (await limiter.try_acquire("ada")).reason == "blocked"
        with pytest.raises(StoreUnavailable, match="only this process"):
            await limiter.block("ada", 0)
        assert (await limiter.try_acquire("ada")).allowed


@pytest.mark.parametrize(
    "verb",
    [
        lambda limiter: limiter.try_acquire("ada"),
        lambda limiter: limiter.acquire("ada", timeout=5),
        lambda limiter: limiter.peek("ada"),
    ],
)
async def test_closed_is_an_error_that_names_its_cause(
    proxy: Proxy, opened: Callable[..., RedisStore], verb: Verb
) -> None:
    limiter = Limiter("10/minute", store=opened(outage="closed"))
    async with down(proxy):
        with pytest.raises(StoreUnavailable, match="Redis cannot answer") as raised:
            await verb(limiter)
    assert raised.value.__cause__ is not None
    assert str(raised.value.__cause__) in str(raised.value)


async def test_open_allows_every_call_and_counts_none(proxy: Proxy, opened: Callable[..., RedisStore]) -> None:
    limiter = Limiter("10/minute", store=opened(outage="open"))
    await take(limiter, 4)
    async with down(proxy, limiter):
        decisions = await take(limiter, 100)
        assert {(d.allowed, d.remaining, d.reset_after, d.reason) for d in decisions} == {(True, 10, 0.0, "degraded")}
    assert (await limiter.try_acquire("ada")).remaining == 5


async def test_a_waiting_caller_is_served_locally(proxy: Proxy, store: RedisStore, clock: ManualClock) -> None:
    limiter = Limiter("1/10s", store=store)
    await take(limiter, 1)
    async with down(proxy):
        waiting = asyncio.create_task(limiter.acquire("ada"))
        await a_waiter_sleeps(clock)
        clock.advance(10)
        decision = await waiting
        assert (decision.allowed, decision.reason) == (True, "degraded")
        with pytest.raises(RateLimited):
            await limiter.acquire("ada", timeout=9)


async def test_a_waiting_caller_is_served_by_redis_once_it_is_back(
    proxy: Proxy, store: RedisStore, clock: ManualClock
) -> None:
    limiter = Limiter("1/10s", store=store)
    await take(limiter, 1)
    async with down(proxy, limiter):
        waiting = [asyncio.create_task(limiter.acquire("ada")) for _ in range(2)]
        await a_waiter_sleeps(clock)
    for task in waiting:
        assert not task.done()
        clock.advance(10)
        decision = await task
        assert (decision.allowed, decision.reason) == (True, "ok")
        await a_waiter_sleeps(clock) if task is waiting[0] else None


async def a_waiter_sleeps(clock: ManualClock) -> None:
    async with asyncio.timeout(PATIENCE):
        while not clock._timers:
            await asyncio.sleep(0.001)


async def test_a_call_that_is_on_its_way_when_the_server_falls_silent_is_answered_in_time(
    proxy: Proxy, opened: Callable[..., RedisStore]
) -> None:
    limiter = Limiter("10/minute", store=opened(timeout=0.1))
    await take(limiter, 1)
    await asyncio.to_thread(proxy.silence)
    async with asyncio.timeout(0.1 + 2.0):
        decisions = await asyncio.gather(*(limiter.try_acquire("ada") for _ in range(50)))
    assert {decision.reason for decision in decisions} == {"degraded"}


async def test_a_store_closes_during_an_outage_without_a_trace(proxy: Proxy, opened: Callable[..., RedisStore]) -> None:
    before = asyncio.all_tasks()
    for fault in (hang_up, Proxy.silence):
        store = opened(timeout=0.1)
        limiter = Limiter("10/minute", store=store)
        await take(limiter, 1)
        await asyncio.to_thread(fault, proxy)
        await take(limiter, 2)
        async with asyncio.timeout(2.0):
            await store.aclose()
        await asyncio.to_thread(proxy.pass_through)
        assert asyncio.all_tasks() <= before
    gc.collect()  # an open transport would warn


async def test_an_event_listener_that_fails_is_logged(
    proxy: Proxy, opened: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: StoreEvent) -> None:
        raise LookupError(event.kind)

    limiter = Limiter("10/minute", store=opened(on_event=fail))
    await take(limiter, 1)
    async with down(proxy, limiter):
        assert allowed(await take(limiter, 2)) == 2
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [str(record.exc_info[1]) for record in errors if record.exc_info] == ["down", "up"]
