"""Charges that are settled in memory: once, in every limit of a list, and what cannot be owed is reported."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asgi_ratelimit import (
    Concurrency,
    FixedWindow,
    Limit,
    Limiter,
    MemoryStore,
    TokenBucket,
)
from asgi_ratelimit.observe import Event
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock
from tests.support.limits import HUNDREDS


def observed(clock: ManualClock) -> tuple[MemoryStore, list[tuple[str, int]]]:
    """A store, and its events about what is owed."""
    events: list[tuple[str, int]] = []

    def note(event: Event) -> None:
        if event.kind in ("owed", "lost"):
            events.append((event.kind, event.cost))

    return MemoryStore(clock=clock, observers=[note]), events


@pytest.mark.parametrize("limit", HUNDREDS, ids=repr)
def test_what_a_bucket_cannot_owe_is_an_event(clock: ManualClock, limit: Limit) -> None:
    store, events = observed(clock)
    limiter = SyncLimiter(limit, store=store)
    charged = limiter.try_acquire("a", 10)
    limiter.settle(charged, 200)
    assert events == []
    limiter.settle(charged, 9_000)
    assert events == []
    limiter.reset("a")
    limiter.settle(limiter.try_acquire("a", 10), 201)
    assert events == [("owed", 191)]


@pytest.mark.parametrize("bad", [-1, 1.5, True, "3", None, float("nan")])
def test_a_cost_that_is_no_whole_number_settles_nothing(store: MemoryStore, bad: Any) -> None:
    limiter = SyncLimiter("9/h", store=store)
    charged = limiter.try_acquire("a", 3)
    with pytest.raises(ValueError, match=r"a call has cost a whole number from 0, e\.g\. 1200, not"):
        limiter.settle(charged, bad)
    limiter.settle(charged, 1)
    assert limiter.peek("a").remaining == 8


@pytest.mark.parametrize("limit", HUNDREDS, ids=repr)
def test_what_is_never_settled_stays_charged_as_estimated(store: MemoryStore, limit: Limit) -> None:
    limiter = SyncLimiter(limit, store=store)
    limiter.try_acquire("a", 60)
    assert limiter.peek("a").remaining == 40
    assert not limiter.try_acquire("a", 41).allowed


@pytest.mark.parametrize("limit", HUNDREDS, ids=repr)
def test_a_debt_lasts_until_it_is_waited_for_however_many_ask(
    store: MemoryStore, clock: ManualClock, limit: Limit
) -> None:
    limiter = SyncLimiter(limit, store=store)
    limiter.settle(limiter.try_acquire("a", 100), 130)
    told = limiter.try_acquire("a").retry_after
    for _ in range(3):
        step = told / 4
        clock.advance(step)
        assert limiter.try_acquire("a").retry_after == pytest.approx(told - step, abs=2e-6)
        told = limiter.try_acquire("a").retry_after
    clock.advance(told)
    assert limiter.try_acquire("a").allowed


def test_one_limit_of_a_list_may_owe_all_of_it_and_another_only_a_part(clock: ManualClock) -> None:
    store, events = observed(clock)
    limiter = SyncLimiter([TokenBucket("10/minute"), FixedWindow("1000/hour")], store=store)
    limiter.settle(limiter.try_acquire("a", 10), 500)
    assert events == [("owed", 490)]
    refused = limiter.try_acquire("a")
    assert [part.remaining for part in refused.parts] == [0, 500]
    assert refused.retry_after == 66.0  # one more capacity, and the call itself


def test_scopes_of_a_list_are_settled_each_in_its_bucket(store: MemoryStore) -> None:
    limits = [TokenBucket("9/h"), TokenBucket("9/h", scope="shared"), TokenBucket("9/h", scope="global")]
    limiter = SyncLimiter(limits, store=store)
    limiter.settle(limiter.try_acquire("a", 2, per="x"), 6)
    left = {(key, per): [part.remaining for part in limiter.peek(key, per=per).parts] for key in "ab" for per in "xy"}
    assert left == {("a", "x"): [3, 3, 3], ("a", "y"): [9, 9, 3], ("b", "x"): [9, 3, 3], ("b", "y"): [9, 9, 3]}


def test_a_blocked_or_reset_key_settles_what_it_was_charged_before(store: MemoryStore) -> None:
    limiter = SyncLimiter("9/h", store=store)
    charged = limiter.try_acquire("a", 3)
    limiter.block("a", 60)
    limiter.settle(charged, 5)
    assert limiter.peek("a").reason == "blocked"
    limiter.block("a", 0)
    assert limiter.peek("a").remaining == 4
    charged = limiter.try_acquire("a", 3)
    limiter.reset("a")
    limiter.settle(charged, 1)
    assert limiter.peek("a").remaining == 9
    charged = limiter.try_acquire("a", 3)
    limiter.reset("a")
    limiter.settle(charged, 5)  # an overage is never forgiven
    assert limiter.peek("a").remaining == 7


def test_a_limit_that_has_changed_since_settles_in_the_bucket_that_it_has_now(store: MemoryStore) -> None:
    """The record counts in other ticks then: it moves between the tables of the two limits."""
    one, other = (SyncLimiter(rate, store=store, name="plan") for rate in ("7/s", "11/s"))
    charged = one.try_acquire("a", 3)
    assert other.try_acquire("a", 2).remaining == 4  # of 11, of which 3/7 and 2/11 are used
    one.settle(charged, 0)
    assert other.peek("a").remaining == 8  # the fraction of a microsecond is rounded up
    one.settle(one.try_acquire("a"), 9)
    assert other.peek("a").remaining == 0
    assert len(store) == 1


def test_threads_that_reserve_and_settle_lose_nothing() -> None:
    limiter = SyncLimiter("1000/h", store=MemoryStore(clock=ManualClock()))
    barrier = threading.Barrier(16)

    def reserve_and_settle(number: int) -> int:
        barrier.wait()
        used = 0
        for step in range(50):
            decision = limiter.try_acquire("a", 4)
            if decision.allowed:
                limiter.settle(decision, (number + step) % 6)
                used += (number + step) % 6
        return used

    with ThreadPoolExecutor(16) as pool:
        used = sum(pool.map(reserve_and_settle, range(16)))
    assert 1000 - used <= 3 or used >= 1000
    assert limiter.peek("a").remaining == max(0, 1000 - used)
    assert used < 1000 + 16 * 5  # the overages of the calls that were in flight


@pytest.mark.anyio
async def test_a_waiter_waits_for_the_debt_as_well(store: MemoryStore, clock: ManualClock) -> None:
    limiter = Limiter("10/10s", store=store)
    await limiter.settle(await limiter.try_acquire("a", 10), 14)
    waiter = asyncio.ensure_future(limiter.acquire("a"))
    for seconds in (4.0, 0.999999):
        await asyncio.sleep(0)
        clock.advance(seconds)
    await asyncio.sleep(0)
    assert not waiter.done()
    clock.advance(0.000001)
    assert (await waiter).allowed


# A record that is not there any more


def clear(store: MemoryStore, clock: ManualClock) -> None:
    store.clear()


def outlive(store: MemoryStore, clock: ManualClock) -> None:
    """All is full again, and new limits have had the empty shards dropped."""
    clock.advance(400_000)
    for count in (1, 2, 3):
        Limiter(f"{count}/s", store=store)


@pytest.mark.parametrize("drop", [clear, outlive])
@pytest.mark.parametrize("limit", HUNDREDS, ids=repr)
@pytest.mark.parametrize(("used", "left"), [(0, 100), (4, 100), (10, 100), (110, 0), (150, 0)])
def test_a_charge_is_settled_in_the_record_of_the_present(
    clock: ManualClock, limit: Limit, drop: Any, used: int, left: int
) -> None:
    store = MemoryStore(clock=clock)
    limiter = SyncLimiter(limit, store=store)
    charged = limiter.try_acquire("a", 10)
    drop(store, clock)
    limiter.settle(charged, used)
    assert limiter.peek("a").remaining == left
    assert len(store) == (used > 10)
    limiter.reset("a")
    assert len(store) == 0


@pytest.mark.parametrize("limit", [*HUNDREDS, Concurrency(3)], ids=repr)
@pytest.mark.parametrize("used", [0, 1, 90])
def test_another_store_settles_nothing(clock: ManualClock, limit: Limit, used: int) -> None:
    store, other = MemoryStore(clock=clock), MemoryStore(clock=clock)
    limiter, stranger = SyncLimiter(limit, store=store), SyncLimiter(limit, store=other)
    charged = limiter.try_acquire("a", 2)
    left = limiter.peek("a").remaining
    stranger.settle(charged, used)
    stranger.release(charged)
    assert (len(store), len(other), limiter.peek("a").remaining) == (1, 0, left)
    SyncLimiter(limit, store=store).refund(charged)
    assert (len(store), limiter.peek("a").remaining) == (0, limit.capacity)
