"""RedisStore shows the behaviour of every store, on every kind of server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from asgi_ratelimit import FixedWindow, LeakyBucket, Limiter, SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock, StoreContract
from tests.support.stores import PATIENCE, new_store


@pytest.mark.anyio
@pytest.mark.parametrize("deny_cache", [0, 10_000], ids=["asking always", "remembering refusals"])
class TestRedisStore(StoreContract):
    @pytest.fixture(autouse=True)
    async def where(self, every_url: str, deny_cache: int) -> AsyncIterator[None]:
        self.url, self.deny_cache = every_url, deny_cache
        self.stores: list[RedisStore] = []
        yield
        for store in self.stores:
            await store.aclose()

    def make_store(self, clock: ManualClock) -> RedisStore:
        self.stores.append(new_store(self.url, clock=clock, deny_cache=self.deny_cache))
        return self.stores[-1]


# By the server's own clock, with limits so slow that no test is slow enough to see anything flow back.

SLOW: tuple[Limit, ...] = (
    TokenBucket("5/day"),
    LeakyBucket("1/day", queue=4),
    FixedWindow("5/day"),
    SlidingWindow("5/day"),
)


@pytest.fixture
async def timed(every_url: str) -> AsyncIterator[RedisStore]:
    async with new_store(every_url) as store:
        yield store


@pytest.mark.anyio
async def test_by_the_server_s_clock_a_bucket_allows_its_capacity_and_no_more(timed: RedisStore) -> None:
    for limit in SLOW:
        limiter = Limiter(limit, store=timed)
        answers = [await limiter.try_acquire("a") for _ in range(7)]
        assert [answer.allowed for answer in answers] == [True] * 5 + [False] * 2, limit
        assert [answer.remaining for answer in answers] == [4, 3, 2, 1, 0, 0, 0], limit
        assert all(0 < answer.retry_after <= 86_400 for answer in answers[5:]), limit
        assert (await limiter.try_acquire("b")).allowed


@pytest.mark.anyio
async def test_by_the_server_s_clock_a_list_is_charged_all_or_nothing(timed: RedisStore) -> None:
    limiter = Limiter([TokenBucket("2/day"), *SLOW[1:]], store=timed)
    answers = [await limiter.try_acquire("a") for _ in range(4)]
    assert [answer.allowed for answer in answers] == [True, True, False, False]
    assert [part.remaining for part in (await limiter.peek("a")).parts] == [0, 3, 3, 3]


@pytest.mark.anyio
async def test_by_the_server_s_clock_a_refund_gives_the_charge_back_once(timed: RedisStore) -> None:
    for limit in SLOW:
        limiter = Limiter(limit, store=timed)
        await limiter.try_acquire("a")
        charged = await limiter.try_acquire("a", cost=3)
        for _ in range(2):
            await limiter.refund(charged)
            assert (await limiter.peek("a")).remaining == 4, limit


@pytest.mark.anyio
async def test_by_the_server_s_clock_a_block_holds_until_it_is_lifted(timed: RedisStore) -> None:
    limiter = Limiter("5/day", store=timed)
    await limiter.block("a", 3600)
    refusal = await limiter.try_acquire("a")
    assert (refusal.allowed, refusal.reason, refusal.remaining) == (False, "blocked", 0)
    assert 0 < refusal.retry_after <= 3600
    assert (await limiter.try_acquire("b")).allowed
    await limiter.block("a", 0)
    assert (await limiter.try_acquire("a")).remaining == 4
    await limiter.block("a", 3600)
    await limiter.reset("a")
    assert (await limiter.try_acquire("a")).remaining == 4


@pytest.mark.anyio
async def test_by_the_server_s_clock_a_cost_is_allowed_after_its_retry_after(timed: RedisStore) -> None:
    for limit in (
        TokenBucket("1/50ms"),
        LeakyBucket("1/50ms", queue=0),
        FixedWindow("1/50ms"),
        SlidingWindow("1/50ms"),
    ):
        limiter = Limiter(limit, store=timed)
        for _ in range(3):
            assert (await limiter.acquire("a", timeout=PATIENCE)).allowed, limit
