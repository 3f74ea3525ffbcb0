"""Refusals from the cache: only those that Redis would make too, and never for longer than a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from asgi_ratelimit import Decision, FixedWindow, Limiter, SlidingWindow, TokenBucket
from asgi_ratelimit.decision import Policy
from asgi_ratelimit.limits import Limit, State
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.redis.deny_cache import DenyCache
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Server
from tests.support.stores import calls_of_the_script, new_store

NOW = 1_700_000_000_000_000
SECOND = 1_000_000
FAST, SLOW = TokenBucket("5/5s"), TokenBucket("1/day")


def decision_of(limit: Limit, state: State, cost: int = 1, *, at: str, now_us: int = NOW) -> Decision:
    """The decision of Redis for a bucket in this state."""
    allowed = limit.take(state, now_us, cost) is not None
    return Decision(Policy("x", limit), cost, state, now_us, allowed=allowed, bucket_key=at)


def used_up(limit: TokenBucket, cost: int = 1, *, at: str, now_us: int = NOW) -> Decision:
    return decision_of(limit, now_us * limit.ticks + limit.depth, cost, at=at, now_us=now_us)


def find(
    deny: DenyCache, keys: list[str], cost: int, now_us: int, limits: Sequence[Limit] | None = None
) -> Decision | None:
    """The stored refusal of a call whose limits are those that the refusals of its keys are about, unless named."""
    about = [
        deny.refusals[key].part.policy if key in deny.refusals else Policy("x", FixedWindow("9/h")) for key in keys[1:]
    ]
    policies = about if limits is None else [Policy("x", limit) for limit in limits]
    return deny.find(keys, policies, cost, now_us)


def remembering(*wholes: Decision, keys: list[str], size: int = 10) -> DenyCache:
    deny = DenyCache(size)
    for whole in wholes:
        deny.remember(keys, whole, NOW, NOW)
    return deny


def test_a_refusal_is_repeated_with_the_rest_of_its_wait() -> None:
    deny = remembering(used_up(FAST, at="a"), keys=["block", "a"])
    refusal = find(deny, ["block", "a"], 1, NOW + 300_000)
    assert refusal is not None
    assert (refusal.allowed, refusal.reason, refusal.remaining) == (False, "cached", 0)
    assert (refusal.retry_us, refusal.reset_us) == (700_000, 4_700_000)
    assert refusal == refusal.parts[0]


def test_refusals_with_long_states_are_bound_by_their_bytes() -> None:
    limit, deny = SlidingWindow("5000/day"), DenyCache(10_000)
    state = tuple(range(NOW - 5000, NOW))
    for number in range(1_000):
        keys = [f"block{number}", f"a{number}"]
        deny.remember(keys, decision_of(limit, state, at=keys[1]), NOW, NOW)
    assert 50 < len(deny) < 100, "of 200 kB each there is room for 16 MiB"
    assert find(deny, keys, 1, NOW) is not None, "the last one is there"
    for number in range(1_000):
        deny.forget([f"a{number}"])
    deny.remember(keys, decision_of(limit, state, at=keys[1]), NOW, NOW)
    assert len(deny) == 1


def test_a_refusal_ends_when_the_call_would_be_allowed() -> None:
    deny = remembering(decision_of(FAST, NOW + 4_300_000, at="a"), keys=["block", "a"])
    assert find(deny, ["block", "a"], 1, NOW + 299_999) is not None
    assert find(deny, ["block", "a"], 1, NOW + 300_000) is None
    assert len(deny) == 0


def test_a_refusal_ends_after_a_second_however_long_the_wait() -> None:
    deny = remembering(used_up(SLOW, at="a"), keys=["block", "a"])
    assert find(deny, ["block", "a"], 1, NOW + SECOND - 1) is not None
    assert find(deny, ["block", "a"], 1, NOW + SECOND) is None


def test_a_refusal_ends_earlier_by_the_time_that_its_answer_took() -> None:
    deny = DenyCache(10)
    deny.remember(["block", "a"], decision_of(FAST, NOW + 4_300_000, at="a"), NOW - 200_000, NOW)
    assert find(deny, ["block", "a"], 1, NOW + 99_999) is not None
    assert find(deny, ["block", "a"], 1, NOW + 100_000) is None


def test_a_smaller_cost_and_another_bucket_are_not_refused() -> None:
    deny = remembering(used_up(FAST, 3, at="a"), keys=["block", "a"])
    assert find(deny, ["block", "a"], 2, NOW) is None
    assert find(deny, ["block", "b"], 3, NOW) is None
    assert find(deny, ["block", "a"], 3, NOW) is not None


def test_a_higher_cost_gets_its_own_wait() -> None:
    deny = remembering(used_up(FAST, 1, at="a"), keys=["block", "a"])
    refusal = find(deny, ["block", "a"], 4, NOW + 100_000)
    assert refusal is not None
    assert (refusal.cost, refusal.retry_us) == (4, 3_900_000)


def test_the_longest_wait_is_reported_and_every_part_of_the_same_call() -> None:
    whole = Decision.combine(
        [used_up(FAST, at="a"), used_up(SLOW, at="b"), decision_of(FixedWindow("9/h"), None, at="c")]
    )
    deny = remembering(whole, keys=["block", "a", "b", "c"])
    assert len(deny) == 2
    refusal = find(deny, ["block", "a", "b", "c"], 1, NOW + 400_000)
    assert refusal is not None
    assert refusal.limit == 1
    assert refusal.retry_us == 86_400 * SECOND - 400_000
    assert [part.remaining for part in refusal.parts] == [0, 0, 9]
    assert [part.allowed for part in refusal.parts] == [False, False, True]


def test_a_bucket_with_a_refund_does_not_speak_for_the_others_that_refused() -> None:
    whole = Decision.combine([used_up(FAST, at="a"), used_up(SLOW, at="b")])
    deny = remembering(whole, keys=["block", "a", "b"])
    deny.forget(["b"])
    refusal = find(deny, ["block", "a", "b"], 1, NOW + 400_000)
    assert refusal is not None
    assert (refusal.limit, refusal.retry_us) == (5, 600_000)


def test_of_two_refusals_the_longer_wait_is_reported() -> None:
    deny = DenyCache(10)
    deny.remember(["block of b", "of b", "of all"], used_up(FAST, at="of b"), NOW, NOW)
    deny.remember(["block of a", "of a", "of all"], used_up(SLOW, at="of all"), NOW, NOW)
    deny.remember(["block of c", "of c", "of all"], used_up(FAST, at="of c"), NOW, NOW)
    for key in "bc":
        refusal = find(deny, [f"block of {key}", f"of {key}", "of all"], 1, NOW)
        assert refusal is not None
        assert refusal.limit == 1


def test_another_key_gets_the_refusal_of_the_shared_bucket_only() -> None:
    whole = Decision.combine([decision_of(FAST, None, at="of a"), used_up(SLOW, at="of all")])
    deny = remembering(whole, keys=["block of a", "of a", "of all"])
    refusal = find(deny, ["block of b", "of b", "of all"], 1, NOW)
    assert refusal is not None
    assert refusal.parts == (refusal,)
    assert refusal.limit == 1


def test_a_block_is_remembered_like_a_bucket() -> None:
    decision = Decision.blocked([decision_of(FAST, None, at="a")], 60 * SECOND, "block")
    deny = remembering(decision, keys=["block", "a"])
    refusal = find(deny, ["block", "a"], 1, NOW + 250_000)
    assert refusal is not None
    assert (refusal.remaining, refusal.retry_us, refusal.reset_us) == (0, 59_750_000, 59_750_000)


def test_a_forgotten_refusal_is_checked_again() -> None:
    deny = remembering(used_up(FAST, at="a"), keys=["block", "a"])
    deny.forget(["block", "a", "unknown"])
    assert find(deny, ["block", "a"], 1, NOW) is None


def test_only_the_last_refusals_are_remembered() -> None:
    deny = DenyCache(3)
    for n in range(10):
        deny.remember(["block", f"key{n}"], used_up(FAST, at=f"key{n}"), NOW, NOW)
    assert [n for n in range(10) if find(deny, ["block", f"key{n}"], 1, NOW)] == [7, 8, 9]


def test_a_refusal_by_another_limit_of_the_same_bucket_does_not_count() -> None:
    deny = remembering(used_up(FAST, at="a"), keys=["block", "a"])
    for other in (TokenBucket("9/5s"), TokenBucket("5/5s burst 9"), TokenBucket("5/5s", enforce=False)):
        assert find(deny, ["block", "a"], 1, NOW, [other]) is None
    assert find(deny, ["block", "a"], 1, NOW, [TokenBucket("5/5s")]) is not None


def test_a_list_in_which_one_limit_has_changed_is_told_of_the_others_alone() -> None:
    whole = Decision.combine([used_up(FAST, at="a"), used_up(SLOW, at="b")])
    deny = remembering(whole, keys=["block", "a", "b"])
    refusal = find(deny, ["block", "a", "b"], 1, NOW, [FAST, TokenBucket("2/day")])
    assert refusal is not None
    assert (refusal.limit, refusal.parts) == (5, (refusal,))
    assert find(deny, ["block", "a", "b"], 1, NOW, [TokenBucket("9/5s"), TokenBucket("2/day")]) is None


def test_nothing_is_remembered_if_that_is_wanted() -> None:
    assert len(remembering(used_up(FAST, at="a"), keys=["block", "a"], size=0)) == 0


# In a store


@pytest.fixture
async def store(any_redis: Server) -> AsyncIterator[RedisStore]:
    async with new_store(any_redis.url) as store:
        any_redis.command("CONFIG", "RESETSTAT")
        yield store


@pytest.mark.anyio
async def test_a_flood_of_refused_calls_asks_redis_once_a_second(any_redis: Server, store: RedisStore) -> None:
    limiter = Limiter("1/day", store=store)
    await limiter.try_acquire("a")
    started = time.monotonic()
    answers = [await limiter.try_acquire("a") for _ in range(1_000)]
    seconds = time.monotonic() - started
    assert {answer.reason for answer in answers} == {"limited", "cached"}
    assert calls_of_the_script(any_redis) <= 3 + seconds


@pytest.mark.anyio
async def test_peek_and_acquire_are_answered_by_redis(any_redis: Server, store: RedisStore) -> None:
    limiter = Limiter("1/300ms", store=store)
    await limiter.try_acquire("a")
    await limiter.try_acquire("a")
    calls_before = calls_of_the_script(any_redis)
    assert (await limiter.peek("a")).reason == "limited"
    assert calls_of_the_script(any_redis) == calls_before + 1
    assert (await limiter.acquire("a", timeout=10)).reason == "ok"
    assert calls_of_the_script(any_redis) >= calls_before + 2


@pytest.mark.anyio
async def test_a_reset_a_refund_and_the_end_of_a_block_are_seen_at_once(store: RedisStore) -> None:
    limiter = Limiter("1/day", store=store)
    charged = await limiter.try_acquire("a")
    assert [(await limiter.try_acquire("a")).reason for _ in range(2)] == ["limited", "cached"]
    await limiter.refund(charged)
    assert (await limiter.try_acquire("a")).allowed
    await limiter.try_acquire("a")
    await limiter.reset("a")
    assert (await limiter.try_acquire("a")).allowed
    await limiter.block("b", 60)
    assert [(await limiter.try_acquire("b")).reason for _ in range(2)] == ["blocked", "cached"]
    await limiter.block("b", 0)
    assert (await limiter.try_acquire("b")).allowed


@pytest.mark.anyio
async def test_a_block_that_is_remembered_is_still_one(store: RedisStore) -> None:
    events: list[tuple[str, str]] = []
    store.observers.add(lambda event: events.append((event.kind, event.answered_by)))
    for limits in ("1/day", ["1/day", "9/hour"]):
        limiter, key = Limiter(limits, store=store, name=f"of {limits}"), "x:block"  # as a user may be called
        decisions = [await limiter.try_acquire(key) for _ in range(3)]
        assert [decision.is_block for decision in decisions] == [False] * 3
        await limiter.block(key, 60)
        decisions = [await limiter.try_acquire(key) for _ in range(3)]
        assert [decision.is_block for decision in decisions] == [True] * 3
    one = [("limited", "store"), ("limited", "cache"), ("blocked", "store"), ("blocked", "cache"), ("blocked", "cache")]
    assert [event for event in events if event[0] not in ("allowed", "near")] == one * 2


@pytest.mark.anyio
async def test_a_settlement_is_seen_at_once(any_redis: Server) -> None:
    async with new_store(any_redis.url, clock=ManualClock()) as store:
        limiter = Limiter("5/5s", store=store)
        one, other = await limiter.try_acquire("a", 2), await limiter.try_acquire("a", 3)
        assert [(await limiter.try_acquire("a")).reason for _ in range(2)] == ["limited", "cached"]
        await limiter.settle(one, 4)
        refused = await limiter.try_acquire("a")
        assert (refused.allowed, refused.retry_after) == (False, 3.0)
        await limiter.settle(other, 0)
        assert (await limiter.try_acquire("a")).allowed


@pytest.mark.anyio
async def test_a_user_with_a_better_plan_is_not_refused_by_the_one_before(any_redis: Server) -> None:
    async with new_store(any_redis.url, clock=ManualClock()) as store:
        for kind in (TokenBucket, FixedWindow, SlidingWindow):
            free, paid = (Limiter(kind(f"{count}/h"), store=store, name="plan") for count in (2, 8))
            await free.try_acquire("a")
            assert not (await free.try_acquire("a", 2)).allowed
            assert (await paid.try_acquire("a", 2)).allowed, kind
            assert not (await free.try_acquire("a", 2)).allowed


@pytest.mark.anyio
async def test_a_reset_that_another_store_makes_is_seen_within_a_second(any_redis: Server) -> None:
    async with new_store(any_redis.url, prefix="same") as store, new_store(any_redis.url, prefix="same") as other:
        limiter = Limiter("1/day", store=store)
        await limiter.try_acquire("a")
        assert not (await limiter.try_acquire("a")).allowed
        await Limiter("1/day", store=other).reset("a")
        reset = time.monotonic()
        while not (await limiter.try_acquire("a")).allowed:
            assert time.monotonic() < reset + 5
            await asyncio.sleep(0)


@pytest.mark.anyio
async def test_a_refusal_that_was_on_its_way_when_its_key_was_reset_is_not_remembered(any_redis: Server) -> None:
    async with new_store(any_redis.url) as store:
        limiter = Limiter("1/day", store=store)
        await limiter.try_acquire("a")
        refusal, reset = limiter.decide("a", 1, ""), limiter._buckets.reset("a", "")
        assert not isinstance(refusal, Decision)
        assert reset is not None
        assert not (await refusal).allowed
        await reset
        assert (await limiter.try_acquire("a")).allowed


@pytest.mark.anyio
async def test_a_cheaper_call_that_was_allowed_removes_the_refusal_of_a_dearer_one(any_redis: Server) -> None:
    async with new_store(any_redis.url, clock=ManualClock()) as store:
        limiter = Limiter("5/5s", store=store)
        await limiter.try_acquire("a", cost=3)
        assert (await limiter.try_acquire("a", cost=3)).retry_after == 1.0
        await limiter.try_acquire("a", cost=2)
        assert (await limiter.try_acquire("a", cost=3)).retry_after == 3.0


@pytest.mark.anyio
async def test_a_block_is_reported_in_place_of_a_cached_refusal(any_redis: Server) -> None:
    async with new_store(any_redis.url, clock=ManualClock()) as store:
        limiter = Limiter("5/5s", store=store)
        for _ in range(6):
            await limiter.try_acquire("a")
        await limiter.block("a", 60)
        assert (await limiter.try_acquire("a")).retry_after == 60.0


@pytest.mark.anyio
async def test_the_cache_holds_no_more_than_its_size(any_redis: Server) -> None:
    async with new_store(any_redis.url, deny_cache=10) as store:
        limiter = Limiter("1/day", store=store)
        for n in range(50):
            await limiter.try_acquire(f"key{n}")
            assert not (await limiter.try_acquire(f"key{n}")).allowed
        assert len(store.deny) == 10


@pytest.mark.anyio
async def test_a_cached_refusal_names_the_soft_limits_that_are_exceeded(any_redis: Server) -> None:
    soft = TokenBucket("1/day", enforce=False)
    async with new_store(any_redis.url) as store:
        limiter = Limiter([soft, TokenBucket("1/hour")], store=store)
        answers = [await limiter.try_acquire("a") for _ in range(3)]
    assert [answer.reason for answer in answers] == ["ok", "limited", "cached"]
    assert [(answer.over, answer.parts[0].over) for answer in answers] == [((), ()), *2 * [((soft,), (soft,))]]
