"""A list of limits with buckets in several slots of a cluster: all or nothing, and nothing lost."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from asgi_ratelimit import FixedWindow, LeakyBucket, Limiter, RateLimited, SlidingWindow, StoreUnavailable, TokenBucket
from asgi_ratelimit.limits import Limit, Scope
from asgi_ratelimit.observe import Event
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Cluster
from tests.support.stores import new_store

SCOPES: tuple[Scope, ...] = ("user", "shared", "global")


class Unreadable(TokenBucket):
    """A limit that the script cannot compute."""

    def encode(self, cost: int, now_us: int) -> list[str | int | float]:
        return ["T"]


@pytest.fixture
async def store(cluster: Cluster, clock: ManualClock) -> AsyncIterator[RedisStore]:
    async with new_store(cluster.url, clock=clock, deny_cache=0) as store:
        yield store


def one_of_each(kind: type[TokenBucket | FixedWindow | SlidingWindow], least: Scope) -> list[Limit]:
    """A limit of every scope, of which one has the smallest capacity."""
    return [kind("2/5s" if scope == least else "9/5s", scope=scope) for scope in SCOPES]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [TokenBucket, FixedWindow, SlidingWindow])
@pytest.mark.parametrize("least", SCOPES)
async def test_a_refused_call_has_charged_none_of_the_limits(store: RedisStore, kind: type, least: Scope) -> None:
    limiter = Limiter(one_of_each(kind, least), store=store)
    answers = [await limiter.try_acquire("a", per="x") for _ in range(5)]
    assert [answer.allowed for answer in answers] == [True, True, False, False, False]
    assert {(answer.scope, answer.limit, answer.remaining) for answer in answers[2:]} == {(least, 2, 0)}
    left = {part.scope: part.remaining for part in (await limiter.peek("a", per="x")).parts}
    assert left == {scope: 0 if scope == least else 7 for scope in SCOPES}


@pytest.mark.anyio
async def test_a_refusal_reports_the_limits_that_did_not_refuse_as_not_charged(
    store: RedisStore,
) -> None:
    for kind in (TokenBucket, FixedWindow, SlidingWindow):
        limiter = Limiter(one_of_each(kind, "global"), store=store, name=kind.__name__)
        refusal = [await limiter.try_acquire("a", per="x") for _ in range(3)][-1]
        assert [part.remaining for part in refusal.parts] == [7, 7, 0]
        assert [part.allowed for part in refusal.parts] == [True, True, False]


@pytest.mark.anyio
async def test_the_place_in_a_queue_is_refunded(store: RedisStore) -> None:
    limiter = Limiter([LeakyBucket("1/s", queue=8), TokenBucket("2/day", scope="global")], store=store)
    answers = [await limiter.try_acquire("a") for _ in range(4)]
    assert [answer.delay for answer in answers] == [0.0, 1.0, 0.0, 0.0]
    assert [part.remaining for part in (await limiter.peek("a")).parts] == [7, 0]


@pytest.mark.anyio
async def test_each_scope_has_its_buckets(store: RedisStore) -> None:
    limits = [TokenBucket("9/day"), TokenBucket("8/day", scope="shared"), TokenBucket("7/day", scope="global")]
    limiter = Limiter(limits, store=store)
    for key, per in (("a", "x"), ("a", "y"), ("b", "x")):
        assert (await limiter.try_acquire(key, per=per)).allowed
    left = {(key, per): (await limiter.peek(key, per=per)).parts for key in "ab" for per in "xy"}
    assert {caller: [part.remaining for part in parts] for caller, parts in left.items()} == {
        ("a", "x"): [8, 6, 4],
        ("a", "y"): [8, 7, 4],
        ("b", "x"): [8, 6, 4],
        ("b", "y"): [9, 7, 4],
    }


@pytest.mark.anyio
async def test_a_refund_gives_all_of_it_back_once(store: RedisStore) -> None:
    limiter = Limiter(one_of_each(TokenBucket, "user"), store=store)
    charged = await limiter.try_acquire("a", 2, per="x")
    await limiter.try_acquire("b", 1, per="x")
    for _ in range(2):
        await limiter.refund(charged)
        assert [part.remaining for part in (await limiter.peek("a", per="x")).parts] == [2, 8, 8]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [TokenBucket, FixedWindow, SlidingWindow])
@pytest.mark.parametrize(("used", "left"), [(0, [9, 9, 9]), (1, [8, 8, 8]), (2, [7, 7, 7]), (6, [3, 3, 3])])
async def test_a_settlement_reaches_every_slot_once(store: RedisStore, kind: type, used: int, left: list[int]) -> None:
    limiter = Limiter([kind("9/h", scope=scope) for scope in SCOPES], store=store)
    charged = await limiter.try_acquire("a", 2, per="x")
    for cost in (used, 9, 0):
        await limiter.settle(charged, cost)
        assert [part.remaining for part in (await limiter.peek("a", per="x")).parts] == left


@pytest.mark.anyio
async def test_what_a_bucket_in_another_slot_cannot_owe_is_reported(cluster: Cluster, clock: ManualClock) -> None:
    events: list[Event] = []
    async with new_store(cluster.url, clock=clock, deny_cache=0, observers=[events.append]) as store:
        limiter = Limiter([TokenBucket("99/h"), TokenBucket("9/h", scope="global")], store=store)
        await limiter.settle(await limiter.try_acquire("a", 2), 30)
        assert [part.remaining for part in (await limiter.peek("a")).parts] == [69, 0]
    assert [(event.kind, event.cost) for event in events if event.kind == "owed"] == [("owed", 28)]


@pytest.mark.anyio
async def test_a_soft_limit_in_another_slot_refuses_nothing_and_is_named(store: RedisStore) -> None:
    soft = TokenBucket("2/h", scope="global", enforce=False)
    limiter = Limiter([TokenBucket("4/h"), soft], store=store)
    answers = [await limiter.try_acquire("a") for _ in range(5)]
    assert [answer.allowed for answer in answers] == [True] * 4 + [False]
    assert [answer.over for answer in answers[:4]] == [(), (), (soft,), (soft,)]
    await limiter.refund(answers[3])
    assert [part.remaining for part in (await limiter.peek("a")).parts] == [1, 0]


@pytest.mark.anyio
async def test_a_reset_makes_all_of_it_full(store: RedisStore) -> None:
    limiter = Limiter(one_of_each(TokenBucket, "shared"), store=store)
    await limiter.try_acquire("a", 2, per="x")
    await limiter.block("a", 60)
    await limiter.reset("a", per="x")
    assert [part.remaining for part in (await limiter.peek("a", per="x")).parts] == [9, 2, 9]


@pytest.mark.anyio
@pytest.mark.parametrize("scopes", [("user", "global"), ("shared",), ("global",)])
async def test_a_blocked_key_is_charged_nothing_whatever_the_scopes(store: RedisStore, scopes: list[Scope]) -> None:
    limiter = Limiter([TokenBucket("5/5s", scope=scope) for scope in scopes], store=store)
    await limiter.block("a", 60)
    for answer in (await limiter.try_acquire("a"), await limiter.peek("a")):
        assert (answer.allowed, answer.reason, answer.retry_after, answer.remaining) == (False, "blocked", 60.0, 0)
        assert answer.parts == (answer,)
        assert answer.as_refusal(1).retry_after == 60.0
    with pytest.raises(RateLimited) as caught:
        await limiter.acquire("a", timeout=1)
    assert caught.value.retry_after == 60.0
    assert all(part.remaining == 5 for part in (await limiter.peek("b")).parts)


@pytest.mark.anyio
@pytest.mark.parametrize("failing", ["shared", "global"])
async def test_a_charge_before_a_failure_is_refunded(cluster: Cluster, clock: ManualClock, failing: Scope) -> None:
    limits = [(Unreadable if scope == failing else TokenBucket)("5/5s", scope=scope) for scope in SCOPES]
    async with new_store(cluster.url, clock=clock, deny_cache=0) as store:
        limiter = Limiter(limits, store=store)
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="arithmetic"):
                await limiter.try_acquire("a", per="x")
        own = Limiter([limit for limit in limits if type(limit) is TokenBucket], store=store)
        assert [part.remaining for part in (await own.peek("a", per="x")).parts] == [5, 5]


@pytest.mark.anyio
async def test_the_parts_are_in_the_order_of_the_limits(store: RedisStore) -> None:
    limits = [TokenBucket("9/h", scope=scope) for scope in ("global", "shared", "user")]
    limiter = Limiter(limits, store=store)
    for _ in range(9):
        decision, peeked = await limiter.try_acquire("a", per="x"), await limiter.peek("a", per="x")
        assert [part.policy.limit for part in decision.parts] == limits
        assert [part.policy.limit for part in peeked.parts] == limits
        assert (decision.scope, peeked.scope) == ("global", "global")  # as with any other store
