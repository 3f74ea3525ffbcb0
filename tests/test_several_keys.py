"""A call with a key for each limit of the list: every verb, and what is no such key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_ratelimit import Concurrency, Limit, Limiter, MemoryStore, Policy, RateLimited, StoreUnavailable, TokenBucket
from asgi_ratelimit.call_keys import distinct, of_key, per_limit
from asgi_ratelimit.observe import Event, Stats
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock, unlimited
from tests.support.stores import UnavailableStore

pytestmark = pytest.mark.anyio

KEYS, OTHER = ("203.0.113.7", "account:alice"), ("203.0.113.8", "account:alice")
TWO: list[str | Limit] = ["5/hour", TokenBucket("3/hour", name="account")]


async def left(limiter: Limiter, keys: Any = KEYS) -> list[int]:
    return [part.remaining for part in (await limiter.peek(keys)).parts]


def test_a_string_stands_for_all_limits_and_a_key_is_listed_once() -> None:
    assert list(per_limit("a", 3)) == ["a", "a", "a"]
    assert list(per_limit(("a", "b"), 2)) == ["a", "b"]
    assert distinct("a") == ("a",)
    assert distinct(("b", "a", "b")) == ("b", "a")
    assert of_key([1, 2, 3], "a", "a") == [1, 2, 3]
    assert of_key([1, 2, 3], ("a", "b", "a"), "a") == [1, 3]
    assert of_key([1], ("a", "b"), "b") == [1]  # the parts of a decision may be about one limit alone


async def test_each_verb_takes_a_key_for_each_limit(store: MemoryStore) -> None:
    limiter = Limiter(TWO, store=store)
    decision = await limiter.acquire(KEYS, 2)
    assert await left(limiter) == [3, 1]
    assert await left(limiter, OTHER) == [5, 1]
    await limiter.settle(decision, 1)
    assert await left(limiter) == [4, 2]
    async with limiter.hold(KEYS):
        assert await left(limiter) == [3, 1]
    await limiter.refund(await limiter.try_acquire(KEYS))
    assert not limiter.has_line(KEYS)
    await limiter.block(KEYS, 60)
    assert [(await limiter.try_acquire(keys)).reason for keys in (KEYS, OTHER, "203.0.113.7")] == ["blocked"] * 3
    await limiter.reset(KEYS)
    assert await left(limiter) == [5, 3]


async def test_a_slot_belongs_to_its_own_key(store: MemoryStore) -> None:
    limiter = Limiter(["9/hour", Concurrency(1)], store=store)
    held = await limiter.try_acquire(KEYS)
    assert not (await limiter.try_acquire(OTHER)).allowed
    with pytest.raises(RateLimited):
        await limiter.acquire(OTHER, timeout=0)
    waiting = asyncio.ensure_future(limiter.acquire(OTHER))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert limiter.has_line(OTHER)
    assert not limiter.has_line(KEYS)
    await limiter.release(held)
    assert (await waiting).allowed
    assert await left(limiter) == [8, 0]


def test_threads_call_with_several_keys(store: MemoryStore) -> None:
    limiter = SyncLimiter(TWO, store=store)
    assert [limiter.try_acquire(KEYS).allowed for _ in range(4)] == [True] * 3 + [False]
    with pytest.raises(RateLimited):
        limiter.acquire(OTHER, timeout=0)
    limiter.block(KEYS, 60)
    assert limiter.peek(("203.0.113.9", "account:alice")).reason == "blocked"
    limiter.reset(KEYS)
    with limiter.hold(KEYS) as decision:
        assert [part.remaining for part in decision.parts] == [4, 2]


async def test_a_tuple_that_does_not_fit_is_an_error_that_shows_one_that_does(store: MemoryStore) -> None:
    limiter = Limiter(TWO, store=store)
    for wrong in (("a",), ("a", "b", "c"), ()):
        for verb in (limiter.try_acquire, limiter.acquire, limiter.peek, limiter.reset):
            with pytest.raises(ValueError, match=r"has 2 limits, .* e\.g\. \('203.0.113.7', 'account:alice'\), not \d"):
                await verb(wrong)
        with pytest.raises(ValueError, match="a string is the key of all limits"):
            await limiter.block(wrong, 1)
    for verb in (limiter.try_acquire, limiter.acquire, limiter.peek, limiter.reset):
        with pytest.raises(TypeError, match="each key of a tuple is a string such as"):
            await verb(("a", 7))  # type: ignore[arg-type]
    assert len(store) == 0


async def test_a_tuple_of_one_key_is_that_key(store: MemoryStore) -> None:
    limiter = Limiter("2/hour", store=store)
    await limiter.try_acquire(("a",))
    await limiter.try_acquire("a")
    assert not (await limiter.peek("a")).allowed
    assert (await limiter.peek("a", per="b")).allowed
    with pytest.raises(ValueError, match="has 1 limit, so"):
        await limiter.try_acquire(("a", "b"))


async def test_events_are_about_the_key_that_refused_or_the_first(store: MemoryStore) -> None:
    events: list[Event] = []
    stats = Stats(keys="clear")
    for observer in (events.append, stats):
        store.observers.add(observer)
    limiter = Limiter(TWO, store=store)
    for keys in (KEYS, KEYS, KEYS, OTHER):
        await limiter.try_acquire(keys)
    with pytest.raises(RateLimited):
        await limiter.acquire(OTHER, timeout=0)
    assert [(event.kind, event.key) for event in events if event.kind != "near"] == [
        *[("allowed", "203.0.113.7")] * 3,
        *[("limited", "account:alice")] * 2,
    ]
    heaviest = {row.key: (row.allowed, row.refused) for row in stats.snapshot().limiters["default"].keys}
    assert heaviest == {"203.0.113.7": (3, 0), "account:alice": (0, 2)}


async def test_an_outage_is_reported_about_the_first_key() -> None:
    events: list[Event] = []
    limiter = Limiter(TWO, store=UnavailableStore(observers=[events.append]))
    limiter.takes_several_keys = True
    for verb in (limiter.try_acquire, limiter.acquire):
        with pytest.raises(StoreUnavailable):
            await verb(KEYS)
    assert [(event.kind, event.key) for event in events] == [("unavailable", "203.0.113.7")] * 2


async def test_without_limits_nothing_is_counted_of_several_keys(store: MemoryStore) -> None:
    limiter = Limiter(TWO, store=store)
    with unlimited():
        assert [(await limiter.try_acquire(KEYS)).allowed for _ in range(9)] == [True] * 9
        parts = (await limiter.peek(KEYS)).parts
        assert [part.bucket_key for part in parts] == ["11:203.0.113.7", "account:alice"]
    assert await left(limiter) == [5, 3]


async def test_a_full_store_refuses_a_block_and_keeps_what_is_counted(clock: ManualClock) -> None:
    store = MemoryStore(max_keys=2, clock=clock)
    limiter = Limiter(TWO, store=store)
    await limiter.try_acquire(KEYS)
    with pytest.warns(Warning, match="ARL113"), pytest.raises(StoreUnavailable):
        await limiter.block(("a", "b"), 60)
    assert await left(limiter) == [4, 2]


async def test_a_soft_limit_with_a_key_of_its_own_says_that_it_is_exceeded(store: MemoryStore) -> None:
    soft = TokenBucket("1/hour", name="soft", enforce=False)
    limiter = Limiter(["5/hour", soft], store=store)
    answers = [await limiter.try_acquire(keys) for keys in (KEYS, OTHER)]
    assert [answer.over for answer in answers] == [(), (soft,)]
    assert limiter.reported_key(KEYS, answers[1]) == "203.0.113.7"
    assert Policy("default", soft).bucket == answers[1].parts[1].bucket
