"""A limit of zero refuses everybody, wherever a limit may stand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from asgi_ratelimit import (
    Concurrency,
    FixedWindow,
    LeakyBucket,
    Limit,
    Limiter,
    MemoryStore,
    Quota,
    RateLimited,
    SlidingWindow,
    TokenBucket,
    pace,
)
from asgi_ratelimit.inbound.headers import discord_headers, ietf_headers, retry_after_header
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock

pytestmark = pytest.mark.anyio

KINDS: list[Callable[..., Limit]] = [TokenBucket, LeakyBucket, FixedWindow, SlidingWindow]


@pytest.mark.parametrize(
    "zero", [*(kind("0/day", name="none") for kind in KINDS), Quota("0/day"), Concurrency(0)], ids=str
)
@pytest.mark.parametrize("enforce", [True, False])
async def test_a_cost_that_no_wait_can_be_a_float_of_is_an_error(
    store: MemoryStore, zero: Limit, enforce: bool
) -> None:
    limiter = Limiter([zero, TokenBucket("1/day", enforce=enforce)], store=store)
    refused = await limiter.try_acquire("ada", 2**53)
    assert not refused.allowed
    assert 0 < refused.retry_after < 1e22
    for verb in (limiter.try_acquire, limiter.acquire, limiter.peek):
        for cost in (2**53 + 1, 10**400, 10**5000):
            with pytest.raises(ValueError, match="a cost must be a whole number from 1 to 9007199254740992, not "):
                await verb("ada", cost)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cost", [1, 2, 1000])
async def test_every_call_is_refused_and_its_wait_is_the_period(store: MemoryStore, kind: Any, cost: int) -> None:
    limiter = Limiter(kind("0/day"), store=store)
    for _ in range(2):
        refused = await limiter.try_acquire("ada", cost)
        assert not refused.allowed
        assert (refused.limit, refused.remaining, refused.retry_after, refused.reset_after) == (0, 0, 86400.0, 86400.0)
        assert refused.reason == "limited"
        assert (await limiter.peek("ada", cost)).retry_after == 86400.0
    assert len(store) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_no_time_makes_room(store: MemoryStore, clock: ManualClock, kind: Any) -> None:
    limiter = Limiter(kind("0/2s"), store=store)
    for _ in range(5):
        refused = await limiter.try_acquire("ada")
        assert refused.retry_after == 2.0
        clock.advance(refused.retry_after)


async def test_a_list_with_a_limit_of_zero_charges_nothing(store: MemoryStore) -> None:
    limiter = Limiter(["5/s", "0/hour", SlidingWindow("9/day")], store=store)
    refused = await limiter.try_acquire("ada", 7)
    assert (refused.allowed, refused.limit, refused.retry_after) == (False, 0, 3600.0)
    assert [part.remaining for part in refused.parts] == [5, 0, 9]
    assert len(store) == 0


@pytest.mark.parametrize("timeout", [None, 0, 5, 10**6])
async def test_acquire_does_not_wait_in_vain(store: MemoryStore, timeout: float | None) -> None:
    limiter = Limiter(["0/s", "5/m"], store=store)
    callers = [limiter.acquire("ada", timeout=timeout) for _ in range(3)]
    for refused in await asyncio.gather(*callers, return_exceptions=True):
        assert isinstance(refused, RateLimited)
        assert refused.retry_after == 1.0


def test_a_thread_does_not_wait_in_vain() -> None:
    limiter = SyncLimiter("0/s")
    assert not limiter.try_acquire("ada").allowed
    with pytest.raises(RateLimited):
        limiter.acquire("ada")


async def test_bulk_work_ends_instead_of_hanging(store: MemoryStore) -> None:
    async def work(item: int) -> int:
        return item

    with pytest.raises(RateLimited):
        async for _ in pace(range(3), work, limit="0/day", store=store):
            pass


@pytest.mark.parametrize("cost", [0, -1, True, 1.5])
async def test_a_bad_cost_is_one_here_too(store: MemoryStore, cost: Any) -> None:
    with pytest.raises(ValueError, match="a whole number from 1 to 9007199254740992, not"):
        await Limiter("0/day", store=store).try_acquire("ada", cost)


@pytest.mark.parametrize("kind", KINDS)
async def test_its_headers_hold_zeros_and_the_period(store: MemoryStore, kind: Any) -> None:
    refused = await Limiter(kind("0/minute"), store=store).try_acquire("ada")
    headers = dict(discord_headers(refused, 1000.0, refused=True))
    assert headers[b"x-ratelimit-limit"] == headers[b"x-ratelimit-remaining"] == b"0"
    assert headers[b"x-ratelimit-reset-after"] == b"60.000"
    assert headers[b"x-ratelimit-reset"] == b"1060.000"
    assert retry_after_header(refused) == (b"retry-after", b"60")
    assert dict(ietf_headers([refused])) == {
        b"ratelimit-policy": b'"default";q=0;w=60',
        b"ratelimit": b'"default";r=0;t=60',
    }


def test_it_is_written_as_it_is_read_and_differs_from_others() -> None:
    assert str(LeakyBucket("0/day", queue=5)) == "0/day"
    assert TokenBucket("0/day") != TokenBucket("1/day")
    assert [kind("0/day").capacity for kind in KINDS] == [0, 0, 0, 0]


async def test_a_block_reports_its_own_end(store: MemoryStore) -> None:
    limiter = Limiter("0/minute", store=store)
    await limiter.block("ada", 90)
    refused = await limiter.try_acquire("ada")
    assert (refused.reason, refused.retry_after) == ("blocked", 90.0)


@pytest.mark.parametrize("cost", [1, 3])
async def test_a_quota_of_zero_refuses_every_call_too(store: MemoryStore, clock: ManualClock, cost: int) -> None:
    limiter = Limiter([Quota("0/month", rollover=1.0), "9/s"], store=store)
    for _ in range(3):
        refused = await limiter.try_acquire("ada", cost)
        assert (refused.allowed, refused.limit, refused.remaining) == (False, 0, 0)
        assert refused.retry_after > 86_400 * 27
        clock.advance(86_400 * 31)
    assert len(store) == 0


KINDS_OVER_TIME = [TokenBucket, FixedWindow, SlidingWindow, Quota]


@pytest.mark.parametrize("kind", KINDS_OVER_TIME)
async def test_a_user_who_is_suspended_and_let_in_again_gets_no_fresh_bucket(store: MemoryStore, kind: Any) -> None:
    usual, none = (Limiter(kind(rate), store=store, name="plan") for rate in ("7/day", "0/day"))
    for _ in range(3):
        assert (await usual.try_acquire("ada", 2)).allowed
    assert not (await none.try_acquire("ada")).allowed
    assert (await usual.try_acquire("ada")).remaining == 0
    for limiter in (none, usual, none):
        assert not (await limiter.try_acquire("ada")).allowed


@pytest.mark.parametrize("kind", KINDS_OVER_TIME)
async def test_a_suspended_user_who_owes_still_owes_afterwards(
    store: MemoryStore, clock: ManualClock, kind: Any
) -> None:
    usual, none = (Limiter(kind(rate), store=store, name="plan") for rate in ("4/day", "0/day"))
    await usual.settle(await usual.try_acquire("ada", 4), 6)
    told = (await usual.try_acquire("ada")).retry_after
    assert not (await none.try_acquire("ada")).allowed
    assert (await usual.try_acquire("ada")).retry_after == told
    clock.advance(told)
    assert (await usual.try_acquire("ada")).allowed


@pytest.mark.parametrize("kind", [TokenBucket, FixedWindow, SlidingWindow])
async def test_a_soft_limit_of_zero_refuses_nothing_and_is_always_exceeded(store: MemoryStore, kind: Any) -> None:
    limiter = Limiter([kind("0/day", enforce=False), "9/s"], store=store)
    answer = await limiter.try_acquire("ada", 3)
    assert (answer.allowed, [limit.capacity for limit in answer.over]) == (True, [0])
    assert [part.remaining for part in answer.parts] == [0, 6]
