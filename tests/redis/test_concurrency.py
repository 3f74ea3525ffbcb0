"""Slots in Redis: renewed by their process while they are held, brought back if they are lost, freed in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from asgi_ratelimit import Concurrency, Decision, Limiter, RateLimited
from asgi_ratelimit.limits import Scope
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Cluster, Server
from tests.support.stores import names_of, new_store

pytestmark = pytest.mark.anyio

TWO = Concurrency(2, lease=9)


@asynccontextmanager
async def opened(url: str, clock: ManualClock | None = None, **options: object) -> AsyncIterator[RedisStore]:
    async with new_store(url, clock=clock, **options) as store:
        yield store


async def passed(clock: ManualClock, seconds: float, limiter: Limiter) -> None:
    """Time goes on in steps of a renewal. What is due is sent before the next check of this loop."""
    for _ in range(int(seconds)):
        clock.advance(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await limiter.peek("a")


async def left(limiter: Limiter, key: str = "a") -> int:
    return (await limiter.peek(key)).remaining


async def test_a_held_slot_is_renewed_and_a_forgotten_one_ends(every_url: str, clock: ManualClock) -> None:
    async with opened(every_url, clock) as store:
        limiter = Limiter(TWO, store=store)
        held, forgotten = await limiter.try_acquire("a"), await limiter.try_acquire("a")
        await passed(clock, 30, limiter)
        assert await left(limiter) == 0
        del forgotten
        await passed(clock, 9, limiter)
        assert await left(limiter) == 1
        await limiter.release(held)
        assert await left(limiter) == 2


async def test_a_lease_ends_once_no_process_renews_it(any_redis: Server, clock: ManualClock) -> None:
    async with (
        opened(any_redis.url, clock, prefix="dead") as dead,
        opened(any_redis.url, clock, prefix="dead") as other,
    ):
        held = await Limiter(TWO, store=dead).try_acquire("a")
        await dead.aclose()  # it renews nothing any more
        limiter = Limiter(TWO, store=other)
        await passed(clock, 8, limiter)
        assert await left(limiter) == 1
        await passed(clock, 1, limiter)
        assert await left(limiter) == 2
        assert held.allowed


async def test_slots_that_are_lost_come_back_with_the_next_renewal(any_redis: Server, clock: ManualClock) -> None:
    async with opened(any_redis.url, clock) as store:
        limiter = Limiter(TWO, store=store)
        first, second = await limiter.try_acquire("a"), await limiter.try_acquire("a")
        any_redis.command("FLUSHALL")
        assert await left(limiter) == 2
        await passed(clock, 3, limiter)
        assert await left(limiter) == 0
        await limiter.release(first)
        await limiter.release(second)
        assert names_of(any_redis) == []


async def test_no_timer_is_left_when_nothing_is_held(any_redis: Server) -> None:
    clock = CountingClock()
    async with opened(any_redis.url, clock) as store:
        limiter = Limiter(TWO, store=store)
        for _ in range(10):
            async with limiter.hold("a"):
                pass
        assert clock.timers == 1
        await passed(clock, 30, limiter)
        assert clock.timers == 1, "it went off once, and found nothing to renew"
        async with limiter.hold("a"):
            assert clock.timers == 2


class CountingClock(ManualClock):
    timers = 0

    def call_later(self, seconds: float, callback: Callable[[], object]) -> object:  # type: ignore[override]
        self.timers += 1
        return super().call_later(seconds, callback)


async def test_a_shorter_lease_is_renewed_in_its_own_time(any_redis: Server, clock: ManualClock) -> None:
    async with opened(any_redis.url, clock) as store:
        long, short = (
            Limiter(TWO, store=store, name="long"),
            Limiter(Concurrency(1, lease=3), store=store, name="short"),
        )
        async with long.hold("a"), short.hold("a"):
            await passed(clock, 20, short)
            assert (await left(long), await left(short)) == (1, 0)


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_check_keeps_no_slot(any_redis: Server, clock: ManualClock, turns: int) -> None:
    async with opened(any_redis.url, clock) as store:
        limiter = Limiter(["100/day", TWO], store=store)
        for verb in (limiter.try_acquire, limiter.acquire):
            task = asyncio.ensure_future(verb("a"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                await limiter.release(task.result())
        await limiter.peek("a")
        assert (await limiter.peek("a")).parts[1].remaining == 2


@pytest.mark.parametrize("scope", ["shared", "global"])
async def test_in_a_cluster_a_refusal_in_another_slot_frees_the_slot(cluster: Cluster, scope: Scope) -> None:
    async with opened(cluster.url) as store:
        limiter = Limiter([TWO, Concurrency(1, scope=scope)], store=store)
        async with limiter.hold("a", per="x"):
            assert not (await limiter.try_acquire("b", per="x")).allowed
            seen = (await limiter.peek("b", per="x")).parts
            assert {part.scope: part.remaining for part in seen} == {"user": 2, scope: 0}
        seen = (await limiter.peek("a", per="x")).parts
        assert {part.scope: part.remaining for part in seen} == {"user": 2, scope: 1}


async def test_no_refusal_is_remembered(any_redis: Server) -> None:
    async with opened(any_redis.url, prefix="p") as here, opened(any_redis.url, prefix="p", deny_cache=100) as there:
        one, other = Limiter(Concurrency(1), store=here), Limiter(Concurrency(1), store=there)
        held = await one.try_acquire("a")
        assert not (await other.try_acquire("a")).allowed
        await one.release(held)
        assert (await other.try_acquire("a")).allowed
        await other.block("a", 60)
        assert [(await other.try_acquire("a")).reason for _ in range(2)] == ["blocked", "cached"]


async def test_a_record_of_others_is_not_believed(any_redis: Server) -> None:
    async with opened(any_redis.url) as store:
        limiter = Limiter(Concurrency(1), store=store)
        await limiter.try_acquire("a")
        (name,) = names_of(any_redis)
        for value in ("", "x", "x" * 16, b"\xff" * 16, b"\xff" * 7 + b"\x7f" + b"\xff" * 8):
            any_redis.command("SET", name, value)
            assert (await limiter.try_acquire("a")).allowed, value


# Outages


async def test_in_an_outage_this_process_counts_on_and_tells_the_server_afterwards(
    fresh_server: Callable[[str], Server], clock: ManualClock
) -> None:
    server = fresh_server("redis-7.0")
    async with opened(server.url, clock, outage="local", timeout=0.5) as store:
        limiter = Limiter(TWO, store=store)
        before = await limiter.try_acquire("a")
        server.stop()
        during = await limiter.try_acquire("a")
        assert (during.allowed, during.reason) == (True, "degraded")
        assert not (await limiter.try_acquire("a")).allowed
        clock.advance(60)
        assert not (await limiter.try_acquire("a")).allowed, "both are still held"
        await limiter.release(before)
        assert (await left(limiter)) == 1
        server.restart()
        await until_it_answers(limiter)
        await passed(clock, 3, limiter)
        assert await left(limiter) == 1, "the server knows of the slot that was taken without it"
        await limiter.release(during)
        assert await left(limiter) == 2


async def until_it_answers(limiter: Limiter) -> Decision:
    while (decision := await limiter.peek("a")).reason == "degraded":
        await asyncio.sleep(0.01)
    return decision


async def test_a_release_without_the_server_is_no_error(any_redis: Server) -> None:
    async with opened(any_redis.url, timeout=0.2) as store:
        limiter = Limiter(TWO, store=store)
        async with limiter.hold("a"):
            any_redis.pause()
    any_redis.resume()


# Threads


def test_threads_hold_slots_on_the_server(any_redis: Server) -> None:
    limiter = SyncLimiter(Concurrency(1, lease=0.3), store=new_store(any_redis.url))
    with limiter.hold("a"), pytest.raises(RateLimited):
        limiter.acquire("a", timeout=0.7)  # more than two leases: the loop thread renews it
    assert limiter.peek("a").remaining == 1


def test_an_event_loop_ends_while_slots_are_held(any_redis: Server) -> None:
    store = new_store(any_redis.url)
    limiter = Limiter(Concurrency(2, lease=0.05), store=store)

    async def take() -> Decision:
        try:
            return await limiter.try_acquire("a")
        finally:
            await store.aclose()

    held = [asyncio.run(take()) for _ in range(2)]
    assert all(decision.allowed for decision in held)


async def test_a_forked_process_neither_renews_nor_frees_the_slots_of_its_parent(
    any_redis: Server, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(any_redis.url, clock) as store:
        limiter = Limiter(TWO, store=store)
        freed, renewed = await limiter.try_acquire("a"), await limiter.try_acquire("a")
        monkeypatch.setattr("os.getpid", lambda: 1)
        await limiter.release(freed)
        assert await left(limiter) == 0
        await passed(clock, 9, limiter)
        assert await left(limiter) == 2
        assert renewed.allowed
