"""Limits that change, over Redis: what was used of them is kept, across a restart of the app too."""

from __future__ import annotations

import asyncio
import re
import secrets
from hashlib import blake2b

import pytest

from asgi_ratelimit import Concurrency, FixedWindow, LeakyBucket, Limiter, SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit, Quota
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.redis.fallback import ServerClock
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Server
from tests.support.stores import names_of, new_store

pytestmark = pytest.mark.anyio

KINDS: list[tuple[Limit, Limit]] = [
    (TokenBucket("100/hour"), TokenBucket("101/hour")),
    (LeakyBucket("100/hour", queue=99), LeakyBucket("101/hour", queue=99)),
    (FixedWindow("100/hour"), FixedWindow("101/hour")),
    (SlidingWindow("100/hour"), SlidingWindow("101/hour")),
    (Quota("100/day"), Quota("101/day")),
]


async def admitted(store: RedisStore, limit: Limit, calls: int) -> int:
    limiter = Limiter(limit, store=store, name="plan")
    decisions = [await limiter.try_acquire("a") for _ in range(calls)]
    return sum(decision.allowed for decision in decisions)


@pytest.mark.parametrize(("before", "after"), KINDS, ids=lambda limit: type(limit).__name__)
async def test_a_limit_that_was_changed_between_two_runs_of_the_app_is_no_fresh_bucket(
    every_url: str, before: Limit, after: Limit
) -> None:
    prefix, clock = f"plan{secrets.token_hex(4)}", ManualClock()
    async with new_store(every_url, prefix=prefix, clock=clock) as store:
        assert await admitted(store, before, 150) == 100
    async with new_store(every_url, prefix=prefix, clock=clock) as store:
        assert await admitted(store, after, 150) <= 1
        clock.advance(86_400)
        assert await admitted(store, after, 150) >= 100


async def test_an_adaptive_limit_lets_no_more_pass_than_the_largest(every_url: str) -> None:
    clock = ManualClock()
    async with new_store(every_url, clock=clock) as store:
        passed = sum([await admitted(store, TokenBucket(f"{100 + n}/hour"), 1) for n in range(300)])
    assert passed <= 399
    assert passed >= 100


async def test_a_plan_that_is_toggled_hands_out_nothing(every_url: str) -> None:
    clock = ManualClock()
    async with new_store(every_url, clock=clock) as store:
        free, pro = TokenBucket("60/minute"), TokenBucket("600/minute")
        passed = sum([await admitted(store, (free, pro)[n % 2], 60) for n in range(40)])
    assert passed <= 600


async def test_a_remembered_refusal_does_not_refuse_a_higher_plan(any_redis: Server) -> None:
    async with new_store(any_redis.url, clock=ManualClock(), deny_cache=1_000) as store:
        assert await admitted(store, FixedWindow("60/minute"), 61) == 60
        assert await admitted(store, FixedWindow("600/minute"), 600) == 540


# Records


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (TokenBucket("100/minute"), r"\d{16}"),
        (TokenBucket("7/s"), r"\d{16}:\d:7"),
        (FixedWindow("100/minute"), r"\d{16}:1"),
        (Quota("100/month"), r"\d{16}:1"),
    ],
    ids=str,
)
async def test_a_record_is_a_few_digits(any_redis: Server, limit: Limit, text: str) -> None:
    async with new_store(any_redis.url) as store:
        await Limiter(limit, store=store, name="x").try_acquire("a")
    (name,) = names_of(any_redis, "*")
    assert re.fullmatch(text, any_redis.command("GET", name))


async def test_records_of_version_0_1_0_are_not_read_and_left_to_expire(any_redis: Server) -> None:
    """Their names end with the digest of an identity that had the count and the capacity in it."""
    limit = TokenBucket("100/minute")
    identity = ("x", "TokenBucket", 100, 60_000_000, 100, None, "user")
    digest = blake2b(repr(identity).encode(), digest_size=16).hexdigest()[:16]
    async with new_store(any_redis.url) as store:
        limiter = Limiter(limit, store=store, name="x")
        await limiter.try_acquire("a")
        (name,) = names_of(any_redis, "*")
        old = f"{name.rpartition(':')[0]}:{digest}"
        any_redis.command("SET", old, "9" * 16, "PX", "60000")
        assert (await limiter.try_acquire("a")).remaining == 98
        assert any_redis.command("GET", old) == "9" * 16


@pytest.mark.parametrize(("before", "after"), KINDS, ids=lambda limit: type(limit).__name__)
async def test_an_outage_goes_on_from_what_was_used_of_the_limit_before(before: Limit, after: Limit) -> None:
    with Server("redis-7.0") as server:
        async with new_store(server.url, outage="local", clock=ManualClock()) as store:
            assert await admitted(store, before, 100) == 100
            server.kill()
            assert await admitted(store, after, 50) <= 1


async def test_a_settlement_counts_in_an_outage_too() -> None:
    """What was charged before it, and is settled while the server does not answer, is owed in this process."""
    with Server("redis-7.0") as server:
        async with new_store(server.url, outage="local", clock=ManualClock()) as store:
            limiter = Limiter("100/minute", store=store)
            decision = await limiter.try_acquire("a", 10)
            server.kill()
            await limiter.settle(decision, 150)
            after = await limiter.try_acquire("a")
            assert (after.allowed, after.reason, after.retry_after) == (False, "degraded", 30.6)


# A quota's boundaries are sent with each check. The server's clock decides on which side a call is.


@pytest.mark.parametrize("days", [-400, -1, 1, 40])
async def test_a_process_with_a_wrong_clock_counts_in_the_period_of_the_server(any_redis: Server, days: int) -> None:
    async with new_store(any_redis.url) as store, new_store(any_redis.url, prefix="right") as right:
        assert isinstance(store.server_clock, ServerClock)
        store.server_clock.set(right.server_clock.now_us() + days * 86_400_000_000)
        limiter, other = [Limiter(Quota("100/week"), store=each) for each in (store, right)]
        first, *_ = await asyncio.gather(*(limiter.try_acquire("a", 5) for _ in range(4)))
        last, honest = await limiter.try_acquire("a", 5), await other.try_acquire("a", 5)
        assert last.remaining == 75
        assert last.reset_after == pytest.approx(honest.reset_after, abs=60)
        assert first.reset_after >= last.reset_after


LISTS: list[list[Limit]] = [
    [TokenBucket("7/hour")],
    [FixedWindow("7/hour"), Concurrency(2)],
    [SlidingWindow("7/hour", scope="shared"), Quota("7/day")],
    [TokenBucket("7/hour"), FixedWindow("7/hour", scope="global"), Concurrency(3, scope="global")],
]


@pytest.mark.parametrize("limits", LISTS, ids=str)
async def test_a_limiter_that_was_made_anew_settles_a_charge_and_frees_its_slot(
    every_url: str, limits: list[Limit]
) -> None:
    name = secrets.token_hex(4)
    async with new_store(every_url) as store, new_store(every_url) as other_store:
        one, other = (Limiter(limits, store=store, name=name) for _ in range(2))
        full = [part.remaining for part in (await one.peek("a", per="x")).parts]
        for used in (0, 1, 2, 5):
            charged = await one.try_acquire("a", 2, per="x")
            await Limiter(limits, store=other_store, name=name).settle(charged, 7)  # it does not know the charge
            for cost in (used, 7):
                await other.settle(charged, cost)
            await other.release(charged)
            left = [part.remaining for part in (await one.peek("a", per="x")).parts]
            holds = [limit.holds for limit in limits]
            assert left == [f if held else f - used for f, held in zip(full, holds, strict=True)]
            await one.reset("a", per="x")
