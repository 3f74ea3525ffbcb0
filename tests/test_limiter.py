"""Limiter: its verbs, and standing in line."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_ratelimit import (
    Decision,
    FixedWindow,
    LeakyBucket,
    Limiter,
    MemoryStore,
    RateLimited,
    SlidingWindow,
    TokenBucket,
)
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock

pytestmark = pytest.mark.anyio


class CountingStore(MemoryStore):
    """A MemoryStore that counts how often it is asked."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.asked = 0

    def open(self, *args: Any) -> Any:
        buckets = super().open(*args)
        decide, store = buckets.decide, self

        class Counting:
            peek, refund, reset, block = buckets.peek, buckets.refund, buckets.reset, buckets.block

            def decide(self, *asked: Any) -> Any:
                store.asked += 1
                return decide(*asked)

        return Counting()


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def run_until(clock: ManualClock, tasks: list[asyncio.Task[Any]], step: float = 0.1, most: int = 10_000) -> None:
    """Advance the clock until all tasks are done."""
    for _ in range(most):
        await settle()
        if all(task.done() for task in tasks):
            return
        clock.advance(step)
    raise AssertionError(f"{sum(not task.done() for task in tasks)} tasks are stuck")


# Construction and bad input


@pytest.mark.parametrize("bad", [0, -1, 6, 1.0, 1.5, "1", None, True, float("nan")])
async def test_a_bad_cost_is_a_value_error_that_names_the_capacity(bad: Any) -> None:
    limiter = Limiter("5/s")
    for verb in (limiter.try_acquire, limiter.acquire, limiter.peek):
        with pytest.raises(ValueError, match=r"a cost must be a whole number from 1 to 5, the capacity, not"):
            await verb("a", bad)
    assert (await limiter.peek("a")).remaining == 5


async def test_a_cost_above_the_smallest_capacity_of_a_list_is_refused() -> None:
    with pytest.raises(ValueError, match="from 1 to 2, the capacity"):
        await Limiter(["5/s", "2/m"]).try_acquire("a", 3)


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "60", None, True, False])
async def test_a_block_of_no_length_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"a block lasts a number of seconds from 0, e\.g\. 60"):
        await Limiter("5/s").block("a", bad)


@pytest.mark.parametrize("bad", [-1, float("nan"), False, True, "", b"", "1", [], ()])
async def test_a_bad_timeout_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="timeout must be seconds from 0"):
        await Limiter("5/s").acquire("a", timeout=bad)
    with pytest.raises(ValueError, match="timeout must be seconds from 0"):
        SyncLimiter("5/s").acquire("a", timeout=bad)


@pytest.mark.parametrize("bad", ["", None, 5])
def test_a_limiter_needs_a_name(bad: Any) -> None:
    with pytest.raises(ValueError, match="the name of a limiter is a string"):
        Limiter("5/s", name=bad)


async def test_a_limiter_without_a_store_has_one_of_its_own() -> None:
    assert (await Limiter("1/h").try_acquire("a")).allowed
    assert (await Limiter("1/h").try_acquire("a")).allowed


# All or nothing

a_limit = st.one_of(
    st.builds(TokenBucket, st.sampled_from(["3/s", "5/3s", "7/s"]), st.integers(1, 6)),
    st.builds(lambda queue: LeakyBucket("3/2s", queue=queue), st.integers(0, 5)),
    st.sampled_from([SlidingWindow("3/s"), SlidingWindow("5/2s"), FixedWindow("4/s"), FixedWindow("6/3s")]),
)


@settings(max_examples=200)
@given(
    st.lists(a_limit, min_size=2, max_size=4, unique_by=lambda limit: limit.identity),
    st.lists(st.tuples(st.integers(0, 1_500_000), st.integers(1, 3)), max_size=40),
)
def test_a_refused_call_has_charged_none_of_a_list(some: list[Limit], trace: list[tuple[int, int]]) -> None:
    """And an allowed one all of them: each limit alone, given the allowed calls only, is in the same state."""
    clock = ManualClock()
    limiter = Limiter(some, store=MemoryStore(clock=clock))
    alone = [Limiter(limit, store=MemoryStore(clock=clock)) for limit in some]

    async def check() -> None:
        for pause, cost in trace:
            clock.advance(pause / 1e6)
            cost = min(cost, limiter.capacity)
            answer = await limiter.try_acquire("a", cost)
            single = [await one.peek("a", cost) for one in alone]
            assert answer.allowed == all(one.allowed for one in single)
            if answer.allowed:
                single = [await one.try_acquire("a", cost) for one in alone]
            assert [part.measure for part in answer.parts] == [one.measure for one in single]
            if not answer.allowed:
                assert answer.retry_after == max(one.retry_after for one in single)
            else:
                assert answer.remaining == min(one.remaining for one in single)

    asyncio.run(check())


# Waiting


async def test_acquire_waits_exactly_until_its_turn() -> None:
    clock = ManualClock()
    limiter = Limiter("1/10s", store=MemoryStore(clock=clock))
    await limiter.acquire("a")
    waiter = asyncio.create_task(limiter.acquire("a"))
    await settle()
    clock.advance(9.999999)
    await settle()
    assert not waiter.done()
    clock.advance(0.000001)
    assert (await waiter).allowed


async def test_waiters_are_served_first_come_first_served() -> None:
    clock = ManualClock()
    limiter = Limiter("2/s", store=MemoryStore(clock=clock))
    served: list[int] = []

    async def wait(number: int) -> None:
        await limiter.acquire("a", cost=1 + number % 2)
        served.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(30)]
    await run_until(clock, tasks)
    assert served == list(range(30))


async def test_n_waiters_cost_about_n_questions() -> None:
    clock = ManualClock()
    store = CountingStore(clock)
    limiter = Limiter("5/s", store=store)
    tasks = [asyncio.create_task(limiter.acquire("a")) for _ in range(200)]
    await run_until(clock, tasks, step=0.2)
    assert 200 <= store.asked <= 210


async def test_a_waiter_of_another_key_waits_for_nobody() -> None:
    clock = ManualClock()
    limiter = Limiter("1/h", store=MemoryStore(clock=clock))
    await limiter.acquire("a")
    stuck = asyncio.create_task(limiter.acquire("a"))
    await settle()
    assert (await limiter.acquire("b")).allowed
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)


async def test_acquire_raises_at_once_when_the_wait_is_longer_than_its_timeout() -> None:
    limiter = Limiter("1/10s", store=MemoryStore(clock=ManualClock()))
    await limiter.acquire("a")
    with pytest.raises(RateLimited) as raised:
        await limiter.acquire("a", timeout=9.999999)
    assert raised.value.retry_after == 10.0
    assert not raised.value.decision.allowed
    assert "1/10s of 'default' is used up; try again in 10.000 s" in str(raised.value)


async def test_a_timeout_that_just_suffices_is_waited_for() -> None:
    clock = ManualClock()
    limiter = Limiter("1/10s", store=MemoryStore(clock=clock))
    await limiter.acquire("a")
    waiter = asyncio.create_task(limiter.acquire("a", timeout=10))
    await settle()
    clock.advance(10)
    assert (await waiter).allowed


async def test_whoever_stands_in_line_beyond_the_timeout_is_refused_at_once() -> None:
    clock = ManualClock()
    limiter = Limiter("1/10s", store=MemoryStore(clock=clock))
    await limiter.acquire("a")
    first = asyncio.create_task(limiter.acquire("a"))
    await settle()
    with pytest.raises(RateLimited) as raised:
        await limiter.acquire("a", timeout=19.999999)
    assert not raised.value.decision.allowed
    assert raised.value.retry_after == 20.0, "after the one before it"
    second = asyncio.create_task(limiter.acquire("a", timeout=20))
    await settle()
    clock.advance(10)
    assert (await first).allowed
    await settle()
    clock.advance(10)
    assert (await second).allowed


async def test_whose_turn_comes_too_late_to_be_served_in_time_is_refused_at_once() -> None:
    clock = ManualClock()
    limiter = Limiter("1/10s", store=MemoryStore(clock=clock))
    tasks = [asyncio.create_task(limiter.acquire("a", timeout=15)) for _ in range(4)]
    await settle()
    clock.advance(10)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, RateLimited) for result in results] == [False, False, True, True]


async def test_no_charge_is_lost_or_made_twice_when_waiters_are_cancelled_at_random() -> None:
    clock = ManualClock()
    limiter = Limiter("10/s", store=MemoryStore(clock=clock))
    rnd = random.Random(7)
    tasks = [asyncio.create_task(limiter.acquire("a")) for _ in range(1_000)]
    for _ in range(400):
        await settle()
        clock.advance(0.1)
        rnd.choice(tasks).cancel()
    await run_until(clock, tasks)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    served = sum(isinstance(result, Decision) for result in results)
    assert served + sum(isinstance(result, asyncio.CancelledError) for result in results) == 1_000
    assert served > 600
    assert not limiter._waiting._queues


async def test_cancelling_the_first_lets_the_next_one_step_up() -> None:
    clock = ManualClock()
    limiter = Limiter("1/s", store=MemoryStore(clock=clock))
    await limiter.acquire("a")
    first, second = (asyncio.create_task(limiter.acquire("a")) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    clock.advance(1)
    assert (await second).allowed
    assert first.cancelled()


async def test_the_delay_of_a_leaky_bucket_is_waited_out() -> None:
    clock = ManualClock()
    limiter = Limiter(LeakyBucket("2/s", queue=3), store=MemoryStore(clock=clock))
    start = clock.wall()
    moments: list[float] = []

    async def call() -> None:
        await limiter.acquire("a")
        moments.append(clock.wall() - start)

    tasks = [asyncio.create_task(call()) for _ in range(8)]
    await run_until(clock, tasks, step=0.5)
    assert moments == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5])


async def test_a_delay_beyond_the_timeout_is_refused_and_given_back() -> None:
    limiter = Limiter(LeakyBucket("1/s", queue=5), store=MemoryStore(clock=ManualClock()))
    await limiter.acquire("a")
    with pytest.raises(RateLimited):
        await limiter.acquire("a", timeout=0.5)
    assert (await limiter.peek("a")).remaining == 5


async def test_whoever_is_cancelled_in_the_queue_gives_the_last_slot_back() -> None:
    limiter = Limiter(LeakyBucket("1/s", queue=5), store=MemoryStore(clock=ManualClock()))
    await limiter.acquire("a")
    waiter = asyncio.create_task(limiter.acquire("a"))
    await settle()
    assert (await limiter.peek("a")).remaining == 4
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert (await limiter.peek("a")).remaining == 5


async def test_a_blocked_key_waits_for_the_end_of_its_block() -> None:
    clock = ManualClock()
    limiter = Limiter("5/s", store=MemoryStore(clock=clock))
    await limiter.block("a", 30)
    waiter = asyncio.create_task(limiter.acquire("a"))
    await settle()
    clock.advance(29.9)
    await settle()
    assert not waiter.done()
    clock.advance(0.1)
    assert (await waiter).allowed


async def test_whoever_would_time_out_behind_others_of_a_blocked_key_is_refused_with_its_block() -> None:
    clock = ManualClock()
    limiter = Limiter("5/s", store=MemoryStore(clock=clock))
    await limiter.block("a", 30)
    first = asyncio.create_task(limiter.acquire("a"))
    second = asyncio.create_task(limiter.acquire("a", timeout=2))
    await settle()
    with pytest.raises(RateLimited) as raised:
        await second
    assert (raised.value.decision.reason, raised.value.retry_after) == ("blocked", 30.0)
    clock.advance(30)
    assert (await first).allowed


async def test_a_timeout_in_the_line_of_several_limits_is_told_the_longest_wait() -> None:
    limiter = Limiter(["2/s", "2/10s"], store=MemoryStore(clock=ManualClock()))
    await limiter.acquire("a", cost=2)
    refusal = (await limiter.peek("a")).as_refusal(1)
    assert refusal.retry_after == 5.0


def test_one_limiter_serves_several_event_loops() -> None:
    limiter = Limiter("1000/s")

    async def many() -> int:
        return sum([(await limiter.acquire("a")).allowed for _ in range(10)])

    assert asyncio.run(many()) == asyncio.run(many()) == 10


async def test_a_limiter_made_in_a_request_without_a_store_is_warned_about(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    from asgi_ratelimit import limiter as module
    from asgi_ratelimit.warnings import WarnOnce

    async def endpoint(_: Request) -> JSONResponse:
        return JSONResponse((await Limiter("1/h").try_acquire("a")).allowed)

    monkeypatch.setattr(module, "_warn_once", WarnOnce())
    with TestClient(Starlette(routes=[Route("/", endpoint)])) as client:
        assert client.get("/").json() is True
    assert [record.message[:6] for record in caplog.records if record.name == "asgi_ratelimit"] == ["ARL106"]
