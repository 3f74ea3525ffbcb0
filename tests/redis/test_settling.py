"""Settlements over Redis: what this process remembers of them when an outage begins."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_ratelimit import Concurrency, FixedWindow, LeakyBucket, Limit, Limiter, Quota, SlidingWindow, TokenBucket
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Server
from tests.support.stores import new_store

pytestmark = pytest.mark.anyio


async def test_what_is_settled_long_after_its_charge_gives_an_outage_nothing(clock: ManualClock) -> None:
    """The server's last reply was about another window, or a bucket in which that charge had flowed back."""
    kinds: list[Limit] = [
        TokenBucket("7/hour"),
        LeakyBucket("7/hour", queue=6),
        FixedWindow("7/hour"),
        SlidingWindow("7/hour"),
        Quota("7/day"),
    ]
    with Server("redis-7.0") as server:
        async with new_store(server.url, clock=clock, outage="local") as store:
            limiters = [Limiter(limit, store=store, name=type(limit).__name__) for limit in kinds]
            old = [await limiter.try_acquire("a", 5) for limiter in limiters]
            clock.advance(86_400)
            for limiter, charged in zip(limiters, old, strict=True):
                assert (await limiter.try_acquire("a", 7)).allowed
                await limiter.settle(charged, 0)
            server.kill()
            answers = [await limiter.try_acquire("a") for limiter in limiters]
    assert [(answer.reason, answer.allowed) for answer in answers] == [("degraded", False)] * len(kinds)


async def test_a_slot_that_is_freed_shortens_no_lease_of_another_in_an_outage(clock: ManualClock) -> None:
    with Server("redis-7.0") as server:
        options: dict[str, Any] = {"clock": clock, "outage": "local", "prefix": "both"}
        async with new_store(server.url, **options) as store, new_store(server.url, **options) as elsewhere:
            limiter, theirs = (Limiter(Concurrency(2, lease=60), store=each) for each in (store, elsewhere))
            held = await limiter.try_acquire("a")
            clock.advance(50)
            kept = await theirs.try_acquire("a")
            await limiter.peek("a")
            await limiter.release(held)
            server.kill()
            clock.advance(30)
            assert kept.allowed
            assert (await limiter.try_acquire("a")).remaining == 0
            assert not (await limiter.try_acquire("a")).allowed
