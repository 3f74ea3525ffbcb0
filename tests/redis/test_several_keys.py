"""A call with a key for each limit: one call of the script on one server, in a cluster in turn and given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from asgi_ratelimit import Concurrency, FixedWindow, Limiter, SlidingWindow, StoreUnavailable, TokenBucket
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.redis import RedisStore, cross_slot
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Cluster, Server
from tests.support.servers.server import HOST, free_port
from tests.support.stores import calls_of_the_script, names_of, new_store

pytestmark = pytest.mark.anyio

TWO: list[str | Limit] = ["5/hour", TokenBucket("3/hour", name="account")]
KEYS, OTHER = ("203.0.113.7", "account:alice"), ("203.0.113.8", "account:alice")


@pytest.fixture
async def across(cluster: Cluster, clock: ManualClock) -> AsyncIterator[RedisStore]:
    async with new_store(cluster.url, clock=clock, deny_cache=0) as store:
        yield store


async def left(limiter: Limiter, keys: str | tuple[str, ...]) -> list[int]:
    """What remains in the bucket of each limit, in the order of the list."""
    parts = (await limiter.peek(keys)).parts
    return [next(part.remaining for part in parts if part.bucket == policy.bucket) for policy in limiter.policies]


async def test_one_server_is_called_once(any_redis: Server, clock: ManualClock) -> None:
    async with new_store(any_redis.url, clock=clock, deny_cache=0) as store:
        limiter = Limiter(TWO, store=store)
        await limiter.try_acquire(KEYS)
        any_redis.command("CONFIG", "RESETSTAT")
        await limiter.try_acquire(KEYS)
        assert calls_of_the_script(any_redis) == 1
        assert await left(limiter, KEYS) == [3, 1]


async def test_the_records_are_those_of_each_key_alone(any_redis: Server, clock: ManualClock) -> None:
    async with new_store(any_redis.url, clock=clock) as store:
        limiter = Limiter(TWO, store=store)
        await limiter.try_acquire("203.0.113.7")
        await limiter.try_acquire("account:alice")
        names = names_of(any_redis)
        await limiter.try_acquire(KEYS)
        assert names_of(any_redis) == names
        assert await left(limiter, "account:alice") == [4, 1]


async def test_a_refusal_is_remembered_for_the_keys_that_it_is_about(any_redis: Server, clock: ManualClock) -> None:
    async with new_store(any_redis.url, clock=clock) as store:
        limiter = Limiter(TWO, store=store)
        for _ in range(4):
            await limiter.try_acquire(KEYS)
        any_redis.command("CONFIG", "RESETSTAT")
        remembered = [await limiter.try_acquire(keys) for keys in (KEYS, OTHER)]
        assert [(one.allowed, one.reason, one.limit) for one in remembered] == [(False, "cached", 3)] * 2
        assert calls_of_the_script(any_redis) == 0
        assert (await limiter.try_acquire(("203.0.113.7", "account:bob"))).allowed
        assert (await limiter.try_acquire(KEYS)).reason == "cached"
        await limiter.block("203.0.113.9", 60)
        for _ in range(2):
            blocked = await limiter.try_acquire(("203.0.113.9", "account:bob"))
            assert (blocked.allowed, blocked.limit, blocked.retry_after) == (False, 5, 60.0)
        assert blocked.reason == "cached"
        await limiter.reset(("203.0.113.9", "account:alice"))
        assert (await limiter.try_acquire(("203.0.113.9", "account:alice"))).allowed


async def test_two_callers_with_crossing_keys_never_overcharge(any_redis: Server) -> None:
    limits = [TokenBucket("50/day"), TokenBucket("50/day", name="account")]
    crossing = [(address, account) for address in "ab" for account in "xy"] * 25
    async with new_store(any_redis.url, prefix="crossing") as one, new_store(any_redis.url, prefix="crossing") as other:
        limiters = [Limiter(limits, store=store) for store in (one, other)]
        answers = await asyncio.gather(*[limiter.try_acquire(keys) for keys in crossing for limiter in limiters])
        assert sum(answer.allowed for answer in answers) == 100
        assert [await left(limiters[0], keys) for keys in (("a", "x"), ("b", "y"))] == [[0, 0]] * 2


# In a cluster


@pytest.mark.parametrize("kind", [TokenBucket, FixedWindow, SlidingWindow])
async def test_in_a_cluster_a_refusal_is_given_back_to_each_key(across: RedisStore, kind: type[TokenBucket]) -> None:
    limiter = Limiter([kind("9/hour"), kind("8/day"), kind("2/hour", name="account")], store=across)
    keys = ("203.0.113.7", "203.0.113.7", "account:alice")
    answers = [await limiter.try_acquire(keys) for _ in range(5)]
    assert [answer.allowed for answer in answers] == [True] * 2 + [False] * 3
    assert {(answer.limit, answer.remaining) for answer in answers[2:]} == {(2, 0)}
    assert [part.remaining for part in answers[4].parts] == [7, 6, 0]
    assert await left(limiter, keys) == [7, 6, 0]
    await limiter.settle(answers[1], 0)
    assert await left(limiter, keys) == [8, 7, 1]


async def test_in_a_cluster_any_pattern_of_keys_is_counted_once(
    across: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_slot, "_MOST_GROUPS", 3)
    limits = [TokenBucket("9/day", name=name) for name in "xyz"]
    limiter = Limiter([*limits, TokenBucket("99/day", scope="global")], store=across)
    decisions = [await limiter.try_acquire(tuple(keys)) for keys in ("abcd", "aaba", "abab", "abba", "baad", "aaaa")]
    assert await left(limiter, tuple("aaaa")) == [4, 6, 6, 93]
    assert await left(limiter, tuple("bbbb")) == [8, 6, 7, 93]
    for decision in decisions:
        await limiter.refund(decision)
    assert await left(limiter, tuple("aaaa")) == [9, 9, 9, 99]
    assert await left(limiter, tuple("bbcb")) == [9, 9, 9, 99]


async def test_in_a_cluster_the_block_of_a_key_without_buckets_counts(across: RedisStore) -> None:
    for scopes in (("global", "user"), ("user", "global"), ("shared", "global")):
        limits = [TokenBucket("9/day", scope=scope) for scope in scopes]
        limiter = Limiter(limits, store=across, name=str(scopes))
        await limiter.block("b", 30)
        await limiter.block("c", 60)
        assert (await limiter.peek(("b", "c"))).retry_after == 60.0
        for keys in (("b", "a"), ("a", "c")):
            assert (await limiter.try_acquire(keys)).reason == "blocked"
            assert (await limiter.peek(keys)).reason == "blocked"
        await limiter.block("b", 0)
        assert (await limiter.try_acquire(("b", "a"))).allowed
        await limiter.reset(("a", "c"))
        assert (await limiter.try_acquire(("a", "c"))).allowed


async def test_in_a_cluster_a_slot_is_freed_in_the_slot_of_its_key(across: RedisStore) -> None:
    limiter = Limiter(["99/hour", Concurrency(1), TokenBucket("99/day")], store=across)
    keys, other = ("203.0.113.7", "account:alice", "red"), ("203.0.113.8", "account:alice", "blue")
    async with limiter.hold(keys):
        assert not (await limiter.try_acquire(other)).allowed
        assert await left(limiter, other) == [99, 0, 99]
    assert (await limiter.try_acquire(other)).allowed
    assert await left(limiter, keys) == [98, 0, 98]


async def test_in_a_cluster_a_thread_waits_with_several_keys(cluster: Cluster) -> None:
    async with new_store(cluster.url) as store:
        limiter = SyncLimiter([TokenBucket("9/s"), TokenBucket("20/s burst 1", name="account")], store=store)
        answers = await asyncio.to_thread(lambda: [limiter.acquire(KEYS, timeout=9).allowed for _ in range(3)])
        assert answers == [True] * 3


# In an outage


async def test_an_outage_goes_on_from_what_each_key_had(fresh: Server, clock: ManualClock) -> None:
    async with new_store(fresh.url, outage="local", clock=clock, deny_cache=0) as store:
        limiter = Limiter(TWO, store=store)
        for _ in range(2):
            await limiter.try_acquire(KEYS)
        await limiter.block("203.0.113.9", 60)
        await limiter.try_acquire(("203.0.113.9", "account:bob"))
        fresh.kill()
        answers = [await limiter.try_acquire(keys) for keys in (OTHER, KEYS)]
        assert [(one.allowed, one.reason) for one in answers] == [(True, "degraded"), (False, "degraded")]
        assert answers[1].limit == 3
        assert await left(limiter, KEYS) == [3, 0]
        assert (await limiter.try_acquire(("203.0.113.9", "account:bob"))).reason == "blocked"
        await limiter.refund(answers[0])
        assert await left(limiter, OTHER) == [5, 1]
        with pytest.raises(StoreUnavailable):
            await limiter.block(("203.0.113.5", "account:eve"), 60)
        for keys in (("203.0.113.5", "account:bob"), ("203.0.113.7", "account:eve")):
            assert (await limiter.try_acquire(keys)).reason == "blocked"
        with pytest.raises(StoreUnavailable):
            await limiter.reset(("203.0.113.5", "account:alice"))
        assert await left(limiter, ("203.0.113.5", "account:alice")) == [5, 3]


async def test_an_outage_knows_the_blocks_that_the_server_has_named_last(fresh: Server, clock: ManualClock) -> None:
    options = {"outage": "local", "clock": clock, "deny_cache": 0, "prefix": "blocks"}
    async with new_store(fresh.url, **options) as store, new_store(fresh.url, **options) as elsewhere:
        limiter, other = Limiter(TWO, store=store), Limiter(TWO, store=elsewhere)
        for number, lifted in ((1, False), (2, True)):
            keys = (f"203.0.113.{number}", f"account:{number}")
            await other.block(keys[1], 60)
            assert (await limiter.try_acquire(keys)).reason == "blocked"
            if lifted:
                await other.block(keys[1], 0)
                assert (await limiter.try_acquire(keys)).allowed
        fresh.kill()
        assert (await limiter.try_acquire(("203.0.113.1", "account:1"))).reason == "blocked"
        assert (await limiter.try_acquire(("203.0.113.2", "account:2"))).reason == "degraded"


async def test_an_outage_counts_some_limits_and_looks_at_every_block(clock: ManualClock) -> None:
    limits = [TokenBucket("9/day", outage="open"), TokenBucket("2/day", name="account")]
    async with new_store(f"redis://{HOST}:{free_port()}", outage="local", clock=clock) as store:
        limiter = Limiter(limits, store=store)
        answers = [await limiter.try_acquire(KEYS) for _ in range(3)]
        assert [answer.allowed for answer in answers] == [True, True, False]
        assert (await limiter.try_acquire(("203.0.113.7", "account:bob"))).allowed
        with pytest.raises(StoreUnavailable):
            await limiter.block("203.0.113.7", 60)
        refusal = await limiter.try_acquire(("203.0.113.7", "account:bob"))
        assert (refusal.allowed, refusal.reason) == (False, "blocked")


async def test_a_slot_is_renewed_under_its_own_key_and_adopted_by_an_outage(fresh: Server, clock: ManualClock) -> None:
    async with new_store(fresh.url, outage="local", clock=clock, deny_cache=0) as store:
        limiter = Limiter(["99/hour", Concurrency(1, lease=9)], store=store)
        held = await limiter.try_acquire(KEYS)
        for _ in range(20):
            clock.advance(1)
            await asyncio.sleep(0)
            await limiter.peek("nothing")
        assert not (await limiter.try_acquire(OTHER)).allowed
        fresh.kill()
        for _ in range(5):
            clock.advance(1)
            assert not (await limiter.try_acquire(OTHER)).allowed
        await limiter.release(held)  # before its lease ends
        assert (await limiter.try_acquire(OTHER)).allowed


@pytest.fixture
def fresh() -> Iterator[Server]:
    with Server() as server:
        yield server
