"""Waiting for a bucket in Redis: whoever is refused was refused by a bucket that is used up."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_ratelimit import (
    Decision,
    FixedWindow,
    Limiter,
    MemoryStore,
    RateLimited,
    SlidingWindow,
    Store,
    TokenBucket,
)
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Proxy, Server
from tests.support.stores import new_store

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(any_redis: Server) -> AsyncIterator[RedisStore]:
    async with new_store(any_redis.url) as store:
        yield store


async def at_once(limiter: Limiter, count: int, timeout: float | None) -> list[Decision | BaseException]:
    return await asyncio.gather(*(limiter.acquire("a", timeout=timeout) for _ in range(count)), return_exceptions=True)


@pytest.mark.parametrize("timeout", [0, 1e-9, 1e-3, 5, None])
async def test_fifty_callers_at_once_all_pass_a_bucket_of_a_hundred(store: RedisStore, timeout: float | None) -> None:
    answers = await at_once(Limiter("100/day", store=store), 50, timeout)
    assert sorted(answer.remaining for answer in answers if isinstance(answer, Decision)) == list(range(50, 100))


@pytest.mark.parametrize("timeout", [0, 1e-9, 1e-3])
async def test_of_fifty_callers_at_once_as_many_pass_as_the_bucket_holds_in_their_order(
    store: RedisStore, timeout: float
) -> None:
    answers = await at_once(Limiter("20/day", store=store), 50, timeout)
    assert [isinstance(answer, Decision) for answer in answers] == [True] * 20 + [False] * 30
    refusals = [answer for answer in answers if isinstance(answer, RateLimited)]
    assert len(refusals) == 30
    assert all(refused.retry_after > 4000 for refused in refusals)


@pytest.mark.parametrize("limit", [TokenBucket("5/day"), FixedWindow("5/day"), SlidingWindow("5/day")], ids=repr)
async def test_callers_behind_a_costly_one_are_refused_with_a_wait_that_is_not_over_at_once(
    store: RedisStore, limit: Limit
) -> None:
    limiter = Limiter(limit, store=store)
    await limiter.acquire("a", cost=3)
    first = asyncio.ensure_future(limiter.acquire("a", cost=5))
    while not limiter.has_line("a"):
        await asyncio.sleep(0)
    for cost in (1, 5):
        with pytest.raises(RateLimited) as raised:
            await limiter.acquire("a", cost=cost, timeout=0.001)
        assert raised.value.retry_after > 40_000
    first.cancel()


async def test_a_wait_that_is_shorter_than_the_timeout_is_no_reason_to_fail_closed(proxy: Proxy) -> None:
    async with new_store(proxy.url, outage="local", timeout=0.4) as store:
        limiter = Limiter("10/day", store=store)
        await limiter.peek("a")
        proxy.silence()
        answers = await at_once(limiter, 20, 0.01)
        proxy.pass_through()
    assert {type(answer) for answer in answers} == {Decision, RateLimited}
    assert sum(isinstance(answer, Decision) for answer in answers) == 10


# In memory and in Redis the same callers are served

TIMEOUTS = st.sampled_from([0, 1e-12, 1e-6, 1, 2.5, 7.5, 1e9, 1e300, math.inf, None])


def test_whatever_their_timeouts_the_same_callers_are_served_as_in_memory(any_redis: Server) -> None:
    clock = ManualClock()
    store = new_store(any_redis.url, clock=clock)

    async def outcomes(name: str, store: Store, cost: int, timeouts: list[float | None]) -> list[str]:
        limiter = Limiter(["5/5s", FixedWindow("7/10s")], store=store, name=name)
        tasks = [asyncio.ensure_future(limiter.acquire("a", cost, timeout=timeout)) for timeout in timeouts]
        done: dict[int, str] = {}
        for step in range(30):
            for _ in range(len(tasks) + 1):
                await limiter.peek("a")  # behind the checks of those that are served now
                for _ in range(5):
                    await asyncio.sleep(0)
            for number, task in enumerate(tasks):
                if task.done() and number not in done:
                    done[number] = type(task.exception()).__name__ if task.exception() else f"served in step {step}"
            if len(done) == len(tasks):
                break
            clock.advance(2.5)
        return [done[number] for number in range(len(tasks))]

    @settings(max_examples=40)
    @given(st.integers(1, 5), st.lists(TIMEOUTS, min_size=1, max_size=5))
    def the_same_are_served(cost: int, timeouts: list[float | None]) -> None:
        name = str(next(numbers))
        redis = runner.run(outcomes(name, store, cost, timeouts))
        memory = runner.run(outcomes(name, MemoryStore(clock=clock), cost, timeouts))
        assert redis == memory

    numbers = itertools.count()
    with asyncio.Runner() as runner:
        the_same_are_served()
        runner.run(store.aclose())


@pytest.mark.parametrize("timeout", [-1, -1e-300, math.nan, "5", b"5", True, (1,)])
async def test_what_is_no_timeout_is_an_error(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout must be seconds from 0"):
        await Limiter("5/s").acquire("a", timeout=timeout)


@pytest.mark.parametrize("seconds", [1e-9, 1e-6, 1, 1e9, 1e300])
async def test_a_block_of_odd_length_is_the_same_as_in_memory(any_redis: Server, seconds: float) -> None:
    clock = ManualClock()
    answers = []
    async with new_store(any_redis.url, clock=clock) as store:
        for each in (store, MemoryStore(clock=clock)):
            limiter = Limiter("5/s", store=each)
            await limiter.block("a", seconds)
            answers.append(await limiter.peek("a"))
    assert answers[0] == answers[1]
