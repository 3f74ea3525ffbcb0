"""Decisions while Redis cannot answer: by each limit's `outage`, starting from the last states of Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from asgi_ratelimit import FixedWindow, LeakyBucket, Limiter, SlidingWindow, StoreUnavailable, TokenBucket
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Server
from tests.support.servers.server import HOST, free_port
from tests.support.stores import new_store

KINDS: list[Limit] = [
    TokenBucket("5/day"),
    LeakyBucket("1/day", queue=4),
    FixedWindow("5/day"),
    SlidingWindow("5/day"),
]


@pytest.fixture
def nowhere() -> str:
    return f"redis://{HOST}:{free_port()}"


@pytest.fixture
def mortal() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
async def alone(nowhere: str, clock: ManualClock) -> AsyncIterator[RedisStore]:
    async with new_store(nowhere, outage="local", clock=clock) as store:
        yield store


@pytest.mark.anyio
async def test_memory_decides_and_says_so(alone: RedisStore, clock: ManualClock) -> None:
    for limit in (TokenBucket("5/5s"), LeakyBucket("1/s", queue=4), FixedWindow("5/5s"), SlidingWindow("5/5s")):
        limiter = Limiter(limit, store=alone)
        answers = [await limiter.try_acquire("a") for _ in range(6)]
        assert [answer.allowed for answer in answers] == [True] * 5 + [False], limit
        assert {answer.reason for answer in answers} == {"degraded"}
        clock.advance(answers[-1].retry_after)
        assert (await limiter.peek("a")).allowed
        assert (await limiter.peek("a")).remaining >= 1


@pytest.mark.anyio
async def test_a_charge_in_memory_is_refunded_there(alone: RedisStore) -> None:
    limiter = Limiter(["5/day", TokenBucket("9/day", scope="global")], store=alone)
    charged = await limiter.try_acquire("a", 3)
    for _ in range(2):
        await limiter.refund(charged)
        assert [part.remaining for part in (await limiter.peek("a")).parts] == [5, 9]


@pytest.mark.anyio
async def test_a_block_and_a_reset_hold_here_and_the_caller_learns_that_it_is_only_here(alone: RedisStore) -> None:
    limiter = Limiter("5/day", store=alone)
    with pytest.raises(StoreUnavailable):
        await limiter.block("a", 60)
    refusal = await limiter.try_acquire("a")
    assert (refusal.allowed, refusal.reason, refusal.retry_after) == (False, "blocked", 60.0)
    with pytest.raises(StoreUnavailable):
        await limiter.reset("a")
    assert (await limiter.try_acquire("a")).allowed


@pytest.mark.anyio
async def test_a_refund_never_fails(alone: RedisStore, mortal: Server) -> None:
    async with new_store(mortal.url) as store:
        charged = await Limiter("5/day", store=store).try_acquire("a")
        mortal.kill()
        await Limiter("5/day", store=store).refund(charged)


@pytest.mark.anyio
async def test_open_allows_every_call_and_counts_none(nowhere: str) -> None:
    async with new_store(nowhere, outage="open") as store:
        limiter = Limiter(["1/day", SlidingWindow("1/day")], store=store)
        for answer in [await limiter.try_acquire("a") for _ in range(20)]:
            assert (answer.allowed, answer.reason, answer.remaining) == (True, "degraded", 1)
            assert [part.reason for part in answer.parts] == ["degraded"] * 2


@pytest.mark.anyio
async def test_closed_allows_no_call_and_the_error_names_the_cause(nowhere: str) -> None:
    async with new_store(nowhere, outage="closed") as store:
        limiter = Limiter("1/day", store=store)
        for verb in (limiter.try_acquire, limiter.peek, limiter.acquire):
            with pytest.raises(StoreUnavailable, match="Redis cannot answer") as caught:
                await verb("a")
            assert caught.value.__cause__ is not None


@pytest.mark.anyio
async def test_a_limit_s_own_outage_overrides_the_store_s(nowhere: str) -> None:
    async with new_store(nowhere, outage="closed") as store:
        local = Limiter(TokenBucket("2/day", outage="local"), store=store)
        assert [(await local.try_acquire("a")).allowed for _ in range(3)] == [True, True, False]
        free = Limiter(TokenBucket("2/day", outage="open"), store=store)
        assert [(await free.try_acquire("a")).allowed for _ in range(3)] == [True] * 3
    async with new_store(nowhere, outage="open") as store:
        shut = Limiter(["9/day", TokenBucket("2/day", outage="closed")], store=store)
        with pytest.raises(StoreUnavailable):
            await shut.try_acquire("a")


@pytest.mark.anyio
@pytest.mark.parametrize("first", ["local", "open"])
async def test_in_a_list_each_limit_goes_its_own_way(nowhere: str, first: str) -> None:
    counted, free = TokenBucket("2/day", outage="local"), FixedWindow("3/day", outage="open")
    async with new_store(nowhere) as store:
        limiter = Limiter([counted, free] if first == "local" else [free, counted], store=store)
        answers = [await limiter.try_acquire("a") for _ in range(3)]
    assert [answer.allowed for answer in answers] == [True, True, False]
    assert (answers[2].limit, answers[2].reason) == (2, "degraded")
    assert {part.limit: part.remaining for part in answers[2].parts} == {2: 0, 3: 3}
    assert [part.limit for part in answers[2].parts] == [limit.capacity for limit in limiter.limits]


@pytest.mark.anyio
@pytest.mark.parametrize("limit", KINDS, ids=repr)
async def test_memory_goes_on_from_the_last_states_of_redis(mortal: Server, limit: Limit) -> None:
    async with new_store(mortal.url, outage="local") as store:
        limiter = Limiter(limit, store=store)
        await limiter.try_acquire("used", 4)
        await limiter.try_acquire("peeked at", 4)
        await limiter.peek("peeked at")
        mortal.kill()
        for key in ("used", "peeked at"):
            answers = [await limiter.try_acquire(key) for _ in range(2)]
            assert [answer.allowed for answer in answers] == [True, False], key
            assert {answer.reason for answer in answers} == {"degraded"}
        assert (await limiter.try_acquire("never seen")).remaining == 4


@pytest.mark.anyio
async def test_memory_knows_the_blocks_that_redis_has_reported(mortal: Server) -> None:
    async with new_store(mortal.url, outage="local") as store:
        limiter = Limiter("5/day", store=store)
        await limiter.block("a", 600)
        assert (await limiter.peek("a")).reason == "blocked"
        await limiter.block("lifted", 600)
        await limiter.peek("lifted")
        await limiter.block("lifted", 0)
        mortal.kill()
        refusal = await limiter.peek("a")
        assert (refusal.reason, refusal.remaining) == ("blocked", 0)
        assert 500 < refusal.retry_after <= 600
        assert (await limiter.try_acquire("lifted")).allowed


@pytest.mark.anyio
async def test_a_reset_is_not_undone_by_an_outage(mortal: Server) -> None:
    async with new_store(mortal.url, outage="local") as store:
        limiter = Limiter("5/day", store=store)
        await limiter.try_acquire("a", 5)
        await limiter.reset("a")
        mortal.kill()
        assert (await limiter.try_acquire("a", 5)).allowed


@pytest.mark.anyio
async def test_a_block_lasts_its_own_length_in_an_outage_after_the_server_s_clock_went_back(
    mortal: Server, clock: ManualClock
) -> None:
    async with new_store(mortal.url, outage="local", clock=clock, deny_cache=0) as store:
        limiter = Limiter("5/day", store=store)
        await limiter.block("a", 3)
        assert (await limiter.try_acquire("a")).retry_after == 3.0
        clock.advance(-3600)
        mortal.kill()
        refusal = await limiter.try_acquire("a")
        assert (refusal.reason, refusal.retry_after) == ("blocked", 3.0)
        clock.advance(3)
        assert (await limiter.try_acquire("a")).reason == "degraded"
