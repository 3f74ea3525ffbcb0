"""A check is answered in time. Its deadline starts when it comes, and a check that is late is not sent."""

from __future__ import annotations

import asyncio

import pytest

from asgi_ratelimit import Decision, Limiter
from asgi_ratelimit.redis import RedisStore
from tests.support.server_counts import calls
from tests.support.servers import Proxy, Server

SLACK = 0.5  # seconds by which a busy machine may be late
MOST_CALLS, MOST_IN_A_CALL = 4, 128

pytestmark = pytest.mark.anyio


async def timed(limiter: Limiter, key: str = "a") -> tuple[Decision, float]:
    loop = asyncio.get_running_loop()
    started = loop.time()
    return await limiter.try_acquire(key), loop.time() - started


def start(limiter: Limiter, key: str = "a") -> asyncio.Task[tuple[Decision, float]]:
    return asyncio.ensure_future(timed(limiter, key))


async def test_no_check_waits_for_a_silent_server_longer_than_the_timeout(proxy: Proxy) -> None:
    async with RedisStore(proxy.url, timeout=1.0) as store:
        limiter = Limiter("500/day", store=store)
        await limiter.peek("a")
        proxy.silence()
        tasks = [start(limiter)]
        for _ in range(3):
            await asyncio.sleep(0.25)  # the arrivals have to be spread
            tasks += [start(limiter) for _ in range(50)]
        for decision, seconds in await asyncio.gather(*tasks):
            assert decision.reason == "degraded"
            assert seconds <= 1.0 + SLACK
        assert tasks[-1].result()[1] <= 0.25 + SLACK  # the first one's deadline trips the breaker
        proxy.pass_through()


async def test_a_check_that_comes_during_a_long_call_is_answered_in_time(proxy: Proxy) -> None:
    async with RedisStore(proxy.url, timeout=2.0) as store:
        limiter = Limiter("500/day", store=store)
        await limiter.peek("a")
        proxy.delay(1.3)
        first = start(limiter)
        await asyncio.sleep(0)
        second = start(limiter)  # sent after the first call's reply, it would be answered after 2.6 s
        assert (await first)[0].reason == "ok"
        decision, seconds = await second
        assert decision.reason == "ok"
        assert seconds <= 2.0 + SLACK
        proxy.pass_through()


async def test_a_check_that_was_not_sent_in_time_is_never_sent(proxy: Proxy, any_redis: Server) -> None:
    async with RedisStore(proxy.url, timeout=0.5) as store:
        limiter = Limiter("5000/day", store=store)
        await limiter.peek("a")
        before = calls(any_redis)
        proxy.silence()
        answers = await asyncio.gather(*(limiter.try_acquire("a") for _ in range(1000)))
        assert {answer.reason for answer in answers} == {"degraded"}
        assert sum(answer.allowed for answer in answers) == 1000
        proxy.pass_through()
        async with asyncio.timeout(20):
            while (answer := await limiter.peek("a")).reason == "degraded":
                await asyncio.sleep(0.01)
        # The calls that were under way when the silence started: a few at most, and the one of this test.
        assert calls(any_redis) - before <= MOST_CALLS + 1
        assert answer.remaining >= 5000 - MOST_CALLS * MOST_IN_A_CALL
