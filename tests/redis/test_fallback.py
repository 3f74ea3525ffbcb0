"""Decisions while Redis cannot answer: by each limit's `outage`, starting from the last states of Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from asgi_ratelimit import (
    FixedWindow,
    LeakyBucket,
    Limiter,
    Quota,
    SlidingWindow,
    StoreEvent,
    StoreUnavailable,
    TokenBucket,
)
from asgi_ratelimit.limits import Limit, Outage
from asgi_ratelimit.observe import Event
from asgi_ratelimit.redis import RedisStore, fallback
from asgi_ratelimit.redis.fallback import LastKnown
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Proxy, Server
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
        shut = Limiter(["9/h", TokenBucket("2/day", outage="closed")], store=store)
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
@pytest.mark.parametrize("limit", KINDS, ids=repr)
async def test_a_refund_is_not_undone_by_an_outage(mortal: Server, limit: Limit) -> None:
    async with new_store(mortal.url, outage="local") as store:
        limiter = Limiter(limit, store=store)
        await limiter.try_acquire("a", 2)
        charged = await limiter.try_acquire("a", 3)
        await limiter.refund(charged)
        mortal.kill()
        answers = [await limiter.try_acquire("a") for _ in range(4)]
        assert [answer.allowed for answer in answers] == [True, True, True, False]


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


@pytest.mark.anyio
@pytest.mark.parametrize("outage", ["local", "open"])
async def test_a_limit_of_zero_refuses_in_an_outage_too(nowhere: str, clock: ManualClock, outage: Outage) -> None:
    async with new_store(nowhere, outage=outage, clock=clock) as store:
        for limit in (TokenBucket("0/day"), SlidingWindow("0/day", outage="open")):
            refused = await Limiter(["5/s", limit], store=store).try_acquire("a")
            assert (refused.allowed, refused.reason, refused.retry_after) == (False, "degraded", 86400.0)


# What a call has really cost


@pytest.mark.anyio
@pytest.mark.parametrize(("used", "left"), [(0, 5), (1, 4), (2, 3), (4, 1), (7, 0)])
async def test_a_charge_in_memory_is_settled_there_once(alone: RedisStore, used: int, left: int) -> None:
    for limit in (TokenBucket("5/5s"), FixedWindow("5/5s"), SlidingWindow("5/5s")):
        limiter = Limiter([limit, TokenBucket("99/h", scope="global")], store=alone)
        charged = await limiter.try_acquire("a", 2)
        for cost in (used, 0, 9):
            await limiter.settle(charged, cost)
            seen = await limiter.peek("a")
            assert ([part.remaining for part in seen.parts], seen.reason) == ([left, 99 - used], "degraded"), limit
        with pytest.raises(StoreUnavailable):
            await limiter.reset("a")


@pytest.mark.anyio
@pytest.mark.parametrize("limit", KINDS, ids=repr)
async def test_a_settlement_is_not_undone_by_an_outage(mortal: Server, limit: Limit) -> None:
    async with new_store(mortal.url, outage="local") as store:
        limiter = Limiter(limit, store=store)
        await limiter.settle(await limiter.try_acquire("less", 4), 1)
        await limiter.settle(await limiter.try_acquire("more", 2), 4)
        await limiter.settle(await limiter.try_acquire("debt", 4), 7)
        mortal.kill()
        answers = {key: [(await limiter.try_acquire(key)).allowed for _ in range(5)] for key in ("less", "more")}
        assert answers == {"less": [True] * 4 + [False], "more": [True] + [False] * 4}
        refused = await limiter.try_acquire("debt")
        assert (refused.allowed, refused.reason) == (False, "degraded")
        assert refused.retry_after > limit.period / limit.count


@pytest.mark.anyio
async def test_a_settlement_that_the_server_does_not_answer_is_reported_and_fails_no_caller(mortal: Server) -> None:
    events: list[Event] = []
    async with new_store(mortal.url, observers=[events.append]) as store:
        limiter = Limiter("5/day", store=store, name="search")
        charged, other = await limiter.try_acquire("a"), await limiter.try_acquire("b", 2)
        mortal.kill()
        await limiter.settle(charged, 4)
        await limiter.settle(charged, 4)
        await limiter.refund(other)
        await limiter.refund(other)
    assert [(event.kind, event.limiter, event.cost, event.decision) for event in events if event.kind != "down"] == [
        ("allowed", "search", 1, charged),
        ("allowed", "search", 2, other),
        ("lost", "search", 3, charged),
        ("lost", "search", -2, other),
    ]


@pytest.mark.anyio
async def test_what_memory_cannot_owe_is_reported_too(nowhere: str, clock: ManualClock) -> None:
    events: list[Event] = []
    async with new_store(nowhere, outage="local", clock=clock, observers=[events.append]) as store:
        limiter = Limiter(["5/day", SlidingWindow("100/day")], store=store)
        await limiter.settle(await limiter.try_acquire("a"), 90)
    assert [event.cost for event in events if event.kind == "owed"] == [89]


@pytest.mark.anyio
async def test_a_limit_that_has_changed_goes_on_from_what_the_one_before_has_used(mortal: Server) -> None:
    async with new_store(mortal.url, outage="local") as store:
        seven, eleven = (Limiter(TokenBucket(f"{count}/day"), store=store, name="plan") for count in (7, 11))
        await seven.try_acquire("a", 7)
        mortal.kill()
        assert [(await limiter.try_acquire("a")).allowed for limiter in (eleven, seven)] == [False, False]
        assert (await eleven.try_acquire("b", 11)).reason == "degraded"
        assert not (await seven.try_acquire("b")).allowed


@pytest.mark.anyio
async def test_a_soft_limit_refuses_nothing_in_an_outage_and_is_named(alone: RedisStore) -> None:
    soft = TokenBucket("1/day", enforce=False)
    limiter = Limiter([soft, FixedWindow("2/day")], store=alone)
    answers = [await limiter.try_acquire("a") for _ in range(3)]
    assert [answer.allowed for answer in answers] == [True, True, False]
    assert [answer.over for answer in answers[:2]] == [(), (soft,)]


@pytest.mark.anyio
async def test_a_quota_goes_on_to_its_boundary_in_an_outage(mortal: Server, clock: ManualClock) -> None:
    async with new_store(mortal.url, outage="local", clock=clock) as store:
        limiter = Limiter(Quota("5/day", tz="Europe/Berlin"), store=store)
        await limiter.try_acquire("a", 5)
        mortal.kill()
        refused = await limiter.try_acquire("a")
        assert (refused.allowed, refused.reason) == (False, "degraded")
        clock.advance(refused.retry_after)
        assert (await limiter.try_acquire("a")).remaining == 4


# More users than this process counts one by one


@pytest.mark.anyio
@pytest.mark.parametrize("limit", ["5/day", ["5/day", SlidingWindow("9/day")]], ids=str)
async def test_in_a_long_outage_newcomers_share_the_overflow_and_it_is_logged_once(
    nowhere: str, clock: ManualClock, limit: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[StoreEvent] = []
    monkeypatch.setattr(fallback, "_LOCAL_KEYS", 30)
    async with new_store(nowhere, outage="local", clock=clock, on_event=events.append) as store:
        limiter = Limiter(limit, store=store)
        early = [(await limiter.try_acquire(f"early{number}")).allowed for number in range(30)]
        late = [(await limiter.try_acquire(f"late{number}")).allowed for number in range(30)]
        clock.advance(86_400)
        later = [(await limiter.try_acquire(f"later{number}")).allowed for number in range(30)]
    assert sum(early) == (30 if limit == "5/day" else 15 + 5)
    assert sum(late) == (5 if limit == "5/day" else 0)
    assert sum(later) > sum(late)
    full = [event for event in events if event.kind == "full"]
    assert len(full) == len([record for record in caplog.records if "30 buckets" in record.getMessage()]) <= 2


@pytest.mark.anyio
async def test_what_is_known_of_a_user_is_not_taken_for_the_overflow(
    any_redis: Server, proxy: Proxy, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "_LOCAL_KEYS", 3)
    async with new_store(proxy.url, outage="local", clock=clock, timeout=1, deny_cache=0) as store:
        limiter = Limiter("5/day", store=store)
        await limiter.try_acquire("spent", 5)
        await limiter.try_acquire("fresh")
        await limiter.block("mallory", 3600)
        assert (await limiter.try_acquire("mallory")).reason == "blocked"
        proxy.refuse()
        proxy.cut()
        for number in range(3):  # the block is a record, too
            await limiter.try_acquire(f"early{number}")  # the last one is the first in the overflow
        assert not (await limiter.try_acquire("spent")).allowed
        assert not (await limiter.try_acquire("mallory")).allowed
        assert (await limiter.try_acquire("late")).remaining == 3
        assert (await limiter.try_acquire("fresh")).remaining == 3


@pytest.mark.parametrize("calls", [1, 100, 5_000])
def test_what_is_remembered_of_redis_is_bounded_by_its_size(calls: int) -> None:
    known, state = LastKnown(), tuple(range(calls))
    sizes = []
    for number in range(40_000):
        known.note(f"record{number}", state)
        sizes.append(len(known))
    assert max(sizes) <= 2 * 16_384
    assert max(sizes) * calls * 40 <= 2 * 16 * 2**20 + 2 * calls * 40
    assert known.take("record39999") == state


def test_a_record_that_is_written_again_and_again_pushes_no_other_out() -> None:
    known = LastKnown()
    known.note("quiet", (1, 2, 3))
    for end in range(2_000):
        known.note("busy", tuple(range(end)))
        if end % 7 == 0:
            known.take("busy")
    assert known.take("quiet") == (1, 2, 3)


@pytest.mark.anyio
async def test_a_block_is_stored_in_redis_though_this_process_has_no_room_for_it(
    any_redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "_LOCAL_KEYS", 3)
    async with new_store(any_redis.url, outage="local") as store:
        limiter = Limiter("5/day", store=store)
        for number in range(9):
            await limiter.block(f"user {number}", 3600)
        reasons = [(await limiter.try_acquire(f"user {number}")).reason for number in range(9)]
    assert reasons == ["blocked"] * 9
