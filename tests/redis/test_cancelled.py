"""Callers that go away: the others of their call are answered, and a charge for waiting is refunded."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest

from asgi_ratelimit import Decision, LeakyBucket, Limiter, TokenBucket
from asgi_ratelimit.redis import RedisStore
from tests.support.server_counts import calls
from tests.support.servers import Cluster, Proxy, Server, wait_until

MANY = 500
SEEDS = range(4)
PATIENCE = 10  # seconds until a hanging test fails

pytestmark = pytest.mark.anyio


async def cancelled_at_random(calls: list[Coroutine[Any, Any, Decision]], random: Random) -> list[Decision | None]:
    """The answers; None of the half that was cancelled, in one turn of the loop or the other."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    victims = random.sample(tasks, len(tasks) // 2)
    while victims:
        for _ in range(random.randrange(20)):
            if victims:
                victims.pop().cancel()
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(answer, (Decision, asyncio.CancelledError)) for answer in answers)
    return [answer if isinstance(answer, Decision) else None for answer in answers]


async def until_full(limiter: Limiter, key: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await limiter.peek(key)).remaining < limiter.capacity:
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_others_of_a_call_are_answered_right_when_a_half_is_cancelled(any_redis: Server, seed: int) -> None:
    async with RedisStore(any_redis.url, timeout=2, deny_cache=0) as store:
        limiter = Limiter("400/day", store=store)
        await limiter.peek("a")
        answers = await cancelled_at_random([limiter.try_acquire("a") for _ in range(MANY)], Random(seed))
        received = [answer for answer in answers if answer is not None]
        assert MANY // 2 <= len(received) < MANY
        assert {answer.reason for answer in received} <= {"ok", "limited"}
        left = [answer.remaining for answer in received if answer.allowed]
        assert left == sorted(set(left), reverse=True)  # each was charged after those before it
        assert [answer.allowed for answer in received] == [True] * len(left) + [False] * (len(received) - len(left))
        after = await limiter.try_acquire("b")
        assert (after.reason, after.remaining) == ("ok", 399)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_caller_that_leaves_a_line_is_charged_nothing(any_redis: Server, seed: int) -> None:
    async with RedisStore(any_redis.url, timeout=2, deny_cache=0) as store:
        limiter = Limiter("5/h", store=store)
        await limiter.peek("a")
        keys = [f"user:{n}" for n in range(MANY)]
        answers = await cancelled_at_random([limiter.acquire(key) for key in keys], Random(seed))
        for key, answer in zip(keys, answers, strict=True):
            if answer is None:
                await until_full(limiter, key)
            else:
                assert (answer.reason, answer.remaining, (await limiter.peek(key)).remaining) == ("ok", 4, 4)


@pytest.mark.parametrize("limit", [TokenBucket("5/h"), LeakyBucket("5/h", queue=4)], ids=lambda x: type(x).__name__)
async def test_a_charge_that_was_under_way_when_the_caller_left_is_refunded(
    any_redis: Server, proxy: Proxy, limit: TokenBucket
) -> None:
    async with RedisStore(proxy.url, timeout=5) as store, RedisStore(any_redis.url) as direct:
        limiter = Limiter(limit, store=store)
        await limiter.peek("a")
        before = calls(any_redis)
        proxy.delay(0.2)
        waiting = asyncio.ensure_future(limiter.acquire("a"))
        await asyncio.sleep(0)
        await asyncio.to_thread(wait_until, lambda: calls(any_redis) > before, "it is charged")
        assert (await Limiter(limit, store=direct).peek("a")).remaining == 4
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        proxy.pass_through()
        await until_full(limiter, "a")


@pytest.mark.parametrize("answers", [1, 2])
async def test_a_charge_is_refunded_when_the_caller_leaves_at_the_moment_of_the_answer(
    cluster: Cluster, answers: int
) -> None:
    """The answer has come, and the caller is cancelled in the same turn of the loop, before he can read it."""
    async with RedisStore(cluster.url, timeout=2) as store:
        limits = [TokenBucket("5/h"), TokenBucket("5/h", scope="global")]
        limiter = Limiter(limits[:answers], store=store)
        await limiter.peek("a")
        waiting: Any = asyncio.ensure_future(limiter.acquire("a"))
        for _ in range(answers):
            await until_answered(waiting)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(PATIENCE):
            while any(part.remaining < 5 for part in (await limiter.peek("a")).parts):
                await asyncio.sleep(0)


async def until_answered(waiting: Any) -> None:
    """Return when the future that a task awaits is done, before the task goes on."""
    before = waiting._fut_waiter
    async with asyncio.timeout(PATIENCE):
        while (future := waiting._fut_waiter) is None or future is before or not future.done():
            await asyncio.sleep(0)


async def test_a_call_to_several_slots_is_charged_in_all_of_them_or_in_none_whenever_it_is_cancelled(
    cluster: Cluster,
) -> None:
    async with RedisStore(cluster.url, timeout=2, deny_cache=0) as store:
        limiter = Limiter([TokenBucket("400/day", scope=scope) for scope in ("user", "shared", "global")], store=store)
        await limiter.peek("a", per="x")
        for _ in range(3):
            await cancelled_at_random([limiter.try_acquire("a", per="x") for _ in range(40)], Random(7))
        for turns in range(12):
            call = asyncio.ensure_future(limiter.try_acquire("a", per="x"))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])

        async def left() -> set[int]:
            return {part.remaining for part in (await limiter.peek("a", per="x")).parts}

        async with asyncio.timeout(PATIENCE):
            while len(await left()) > 1:
                await asyncio.sleep(0)
