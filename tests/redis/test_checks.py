"""The script: how long records live, and how it reads records that another program has written."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from math import ceil
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_ratelimit import FixedWindow, LeakyBucket, Limiter, Quota, RateLimited, SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Server
from tests.support.stores import names_of, new_store, spoilt
from tests.support.traces import ALL, FORWARD, STARTS, Duel, Step, TraceClock, traces_of

KINDS: list[Limit] = [
    TokenBucket("7/70s burst 100"),
    LeakyBucket("7/70s", queue=50),
    FixedWindow("13/70s"),
    SlidingWindow("13/70s"),
]


@pytest.fixture
async def store(redis_server: Server) -> AsyncIterator[RedisStore]:
    async with new_store(redis_server.url) as store:
        yield store


# How long they live


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [*KINDS, TokenBucket("1/day burst 3"), SlidingWindow("3/day")], ids=repr)
async def test_a_record_lives_until_its_bucket_is_full(redis_server: Server, store: RedisStore, limit: Limit) -> None:
    limiter = Limiter(limit, store=store)
    await limiter.try_acquire("a", cost=3)
    with redis_server.client() as client:
        started = time.monotonic()
        full_ms = (await limiter.peek("a")).reset_us / 1000
        (name,) = names_of(redis_server)
        left_ms = client.pttl(name)
        passed_ms = (time.monotonic() - started) * 1000
    assert full_ms - passed_ms - 1 <= left_ms <= ceil(full_ms) + 1  # the server counts whole milliseconds


@pytest.mark.anyio
@pytest.mark.parametrize("limit", KINDS, ids=repr)
async def test_a_record_of_a_debt_lives_until_it_is_paid(redis_server: Server, store: RedisStore, limit: Limit) -> None:
    limiter = Limiter(limit, store=store)
    await limiter.settle(await limiter.try_acquire("a", cost=3), limiter.capacity + 5)
    with redis_server.client() as client:
        started = time.monotonic()
        full_ms = (await limiter.peek("a")).reset_us / 1000
        (name,) = names_of(redis_server)
        left_ms = client.pttl(name)
        passed_ms = (time.monotonic() - started) * 1000
    assert full_ms > limit.window_us / 1000
    assert full_ms - passed_ms - 1 <= left_ms <= ceil(full_ms) + 1


@pytest.mark.anyio
@pytest.mark.parametrize(("rollover", "owed", "halves"), [(0.0, 0, 1), (0.0, 9, 3), (0.5, 0, 5), (0.5, 9, 5)])
async def test_a_record_of_a_quota_lives_for_as_long_as_it_may_be_of_use(
    redis_server: Server, rollover: float, owed: int, halves: int
) -> None:
    quota, clock = Quota("5/day", rollover=rollover), ManualClock()
    async with new_store(redis_server.url, clock=clock) as store:
        limiter = Limiter(quota, store=store)
        charged = await limiter.try_acquire("a")
        await limiter.settle(charged, owed or 1)
        (name,) = names_of(redis_server)
        end_ms = quota.calendar.around(clock.now_us())[3] / 1000 - clock.now_us() / 1000
        longest_ms = end_ms + halves * quota.window_us / 2000
        still_ms = 86_400_000  # that records live longer by, where a test's clock stands still
        assert longest_ms - 10_000 < redis_server.command("PTTL", name) <= longest_ms + still_ms + 1


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [TokenBucket, LeakyBucket, FixedWindow, SlidingWindow])
@pytest.mark.parametrize("rate", ["300000/s", "7000/3ms", "1/ms", "999/ms"])
async def test_a_bucket_that_is_full_in_less_than_a_millisecond_is_stored_for_one(
    store: RedisStore, kind: type[TokenBucket | FixedWindow | SlidingWindow], rate: str
) -> None:
    limiter = Limiter(kind(rate), store=store)
    for _ in range(20):
        assert (await limiter.try_acquire("a")).reason in ("ok", "limited", "cached")


@pytest.mark.anyio
async def test_a_block_lives_until_it_ends(redis_server: Server, store: RedisStore) -> None:
    started = time.monotonic()
    await Limiter("1/s", store=store).block("a", 60)
    (name,) = names_of(redis_server)
    left_ms = redis_server.command("PTTL", name)
    assert 60_000 - (time.monotonic() - started) * 1000 - 1 <= left_ms <= 60_000


@pytest.mark.anyio
async def test_a_full_bucket_is_not_stored(redis_server: Server, store: RedisStore) -> None:
    for limit in [*KINDS, Quota("9/month")]:
        limiter = Limiter(limit, store=store)
        await limiter.peek("a")
        await limiter.refund(await limiter.try_acquire("a"))
        await limiter.try_acquire("a")
        await limiter.block("a", 60)
        await limiter.reset("a")
        await limiter.block("a", 60)
        await limiter.block("a", 0)
    assert names_of(redis_server) == []


def test_whatever_happens_every_record_has_its_time_to_live(redis_server: Server) -> None:
    clock = TraceClock()
    store = new_store(redis_server.url, clock=clock, deny_cache=0)
    day_ms = 86_400_000  # that records live longer by, where a test's clock stands still
    longest_ms = day_ms + 4 * max(limit.window_us for limit in ALL) // 1000 + 1  # a debt, or a rollover

    @settings(max_examples=100)
    @given(
        st.lists(st.sampled_from(ALL), min_size=1, max_size=3, unique_by=lambda limit: limit.identity),
        STARTS,
        traces_of(FORWARD),
    )
    def all_records_end(limits: list[Limit], start_us: int, trace: list[Step]) -> None:
        clock.begin(start_us)
        runner.run(Duel(limits, clock, store).play(trace))
        with redis_server.client() as client:
            for name in names_of(redis_server):
                assert 0 < client.pttl(name) <= longest_ms, client.get(name)
            client.flushall()

    with asyncio.Runner() as runner:
        all_records_end()
        runner.run(store.aclose())


@pytest.mark.anyio
async def test_a_refusal_writes_nothing(redis_server: Server, store: RedisStore) -> None:
    limiter = Limiter([*KINDS, TokenBucket("2/day"), Quota("9/year")], store=store)
    for _ in range(2):
        assert (await limiter.try_acquire("a")).allowed
    before = {name: redis_server.command("DUMP", name) for name in names_of(redis_server)}
    assert not (await limiter.try_acquire("a", cost=2)).allowed
    await limiter.peek("a")
    after = {name: redis_server.command("DUMP", name) for name in before}
    assert before == after


OTHERS = [SlidingWindow("9/day"), TokenBucket("9/day", scope="global"), Quota("9/day", enforce=False)]

# Records that another program has written

GARBAGE = [
    "",
    "garbage",
    "garbage!",
    ":",
    "1:",
    ":1",
    "1:2:3",
    "1:2:3:4:5",
    "1:2:3:-4",
    "1:2:1e99:3",
    "-5",
    "-5:1",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "0x7f",
    " 1 ",
]
GARBAGE += ["9" * 40, "9" * 15 + ":" + "9" * 30, "\udcff" * 8, "\udc80" * 24, "x" * 4096]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("value", GARBAGE)
async def test_garbage_counts_as_a_full_bucket(redis_server: Server, store: RedisStore, kind: int, value: str) -> None:
    limiter = Limiter(KINDS[kind], store=store)
    await limiter.try_acquire("a")
    (name,) = names_of(redis_server)
    with spoilt(redis_server, name, value):
        allowed = [(await limiter.try_acquire("a")).remaining for _ in range(3)]
        assert allowed == [limiter.capacity - 1, limiter.capacity - 2, limiter.capacity - 3]
        assert redis_server.command("PTTL", name) > 0


@pytest.mark.anyio
@pytest.mark.parametrize("value", GARBAGE)
async def test_garbage_in_place_of_a_block_does_not_let_a_key_pass_unlimited(
    redis_server: Server, store: RedisStore, value: str
) -> None:
    limiter = Limiter("3/day", store=store)
    await limiter.block("a", 60)
    (name,) = names_of(redis_server)
    with spoilt(redis_server, name, value):
        answers = [(await limiter.try_acquire("a")).allowed for _ in range(5)]
        assert sum(answers) in (0, 3)


@pytest.mark.anyio
@pytest.mark.parametrize("limit", KINDS, ids=repr)
async def test_a_record_from_far_ahead_is_an_empty_bucket_for_one_refill_at_most(
    redis_server: Server, limit: Limit
) -> None:
    clock = ManualClock()
    async with new_store(redis_server.url, clock=clock, deny_cache=0) as store:
        limiter = Limiter(limit, store=store)
        await limiter.try_acquire("a")
        (name,) = names_of(redis_server)
        later_us = clock.now_us() + 86_400_000_000
        many = pack(f"<{limit.capacity}q", *[later_us] * limit.capacity).decode(errors="surrogateescape")
        text = f"{later_us}:13" if isinstance(limit, FixedWindow) else f"{later_us}"
        with spoilt(redis_server, name, many if isinstance(limit, SlidingWindow) else text):
            assert (await limiter.peek("a")).remaining == 0
            refused = await limiter.try_acquire("a")
            assert (refused.allowed, refused.remaining) == (False, 0)
            assert refused.retry_after <= limit.window_us / 1e6
            clock.advance(refused.retry_after - 1e-6)
            assert not (await limiter.try_acquire("a")).allowed
            clock.advance(1e-6)
            assert (await limiter.try_acquire("a")).allowed


@pytest.mark.anyio
async def test_a_refusal_writes_a_record_from_far_ahead_anew_and_peek_does_not(redis_server: Server) -> None:
    clock = ManualClock()
    async with new_store(redis_server.url, clock=clock, deny_cache=0) as store:
        limiter = Limiter("7/70s", store=store)
        await limiter.try_acquire("a", cost=7)
        (name,) = names_of(redis_server)
        clock.advance(-3600)
        written = redis_server.command("GET", name)
        await limiter.peek("a")
        assert redis_server.command("GET", name) == written
        await limiter.try_acquire("a")
        assert int(redis_server.command("GET", name)) == clock.now_us() + 70_000_000


@pytest.mark.anyio
async def test_a_window_of_other_software_has_nothing_in_addition(redis_server: Server, store: RedisStore) -> None:
    limiter = Limiter(FixedWindow("5/day"), store=store)
    await limiter.try_acquire("a")
    (name,) = names_of(redis_server)
    with spoilt(redis_server, name, f"{round((time.time() + 60) * 1e6)}:1:0:9000"):
        assert [(await limiter.try_acquire("a")).allowed for _ in range(9)] == [True] * 4 + [False] * 5


# What a token bucket costs in Redis


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("limit", "written"),
    [
        (TokenBucket("5/5s"), "1700000001000000"),
        (TokenBucket("7/s"), "1700000000142857:1:7"),
        (FixedWindow("5/5s"), "1700000005000000:1"),
        (Quota("5/day"), "1700006400000000:1"),
        (SlidingWindow("5/5s"), pack("<q", 1_700_000_000_000_000).decode(errors="surrogateescape")),
    ],
    ids=repr,
)
async def test_a_record_says_no_more_than_it_has_to(redis_server: Server, limit: Limit, written: str) -> None:
    async with new_store(redis_server.url, clock=ManualClock()) as store:
        await Limiter(limit, store=store).try_acquire("a")
        (name,) = names_of(redis_server)
        with redis_server.client() as client:
            raw = client.get(name)
        assert raw in (written, written.encode(errors="surrogateescape"))


@pytest.mark.anyio
@pytest.mark.parametrize("value", ["list", "garbage", "nan"])
async def test_a_spoilt_record_spoils_its_own_check_only(redis_server: Server, value: str) -> None:
    async with new_store(redis_server.url, clock=ManualClock(), deny_cache=0) as store:
        limiter = Limiter(KINDS, store=store)
        await limiter.try_acquire("spoilt")
        bad = names_of(redis_server)
        with ExitStack() as stack:
            for name in bad:
                stack.enter_context(spoilt(redis_server, name, value))
            answers = await asyncio.gather(
                *(limiter.try_acquire(key) for key in ("a", "spoilt", "b", "a", "spoilt", "b")),
            )
        assert [answer.parts[2].remaining for answer in answers[::3] + answers[2::3]] == [12, 11, 12, 11]
        assert [answer.parts[2].remaining for answer in answers[1::3]] == [12, 11]
        assert (await limiter.try_acquire("spoilt")).parts[2].remaining == 12


@pytest.mark.anyio
async def test_a_list_of_limits_with_a_spoilt_record_charges_all_of_them(redis_server: Server) -> None:
    async with new_store(redis_server.url) as store:
        first = Limiter("5/day", store=store)
        await first.try_acquire("a")
        names = set(names_of(redis_server))
        both = Limiter(["5/day", FixedWindow("5/day")], store=store)
        await both.try_acquire("a")
        (second,) = set(names_of(redis_server)) - names
        with spoilt(redis_server, second, "list"):
            answer = await both.try_acquire("a")
        assert [part.remaining for part in answer.parts] == [2, 4]


@pytest.mark.anyio
async def test_a_refund_of_a_spoilt_record_is_lost_and_a_reset_mends_it(
    redis_server: Server, store: RedisStore
) -> None:
    for limit in KINDS:
        limiter = Limiter(limit, store=store)
        charged = await limiter.try_acquire("a")
        (name,) = names_of(redis_server)
        with spoilt(redis_server, name, "list"):
            await limiter.refund(charged)
            await limiter.reset("a")
            assert (await limiter.try_acquire("a")).remaining == limiter.capacity - 1


@pytest.mark.anyio
async def test_a_hundred_thousand_tokens_a_second_are_counted_exactly(redis_server: Server) -> None:
    clock = ManualClock(4_000_000_000.999999)
    async with new_store(redis_server.url, clock=clock, deny_cache=0) as store:
        limiter = Limiter(TokenBucket("300000/s", burst=1), store=store)
        admitted = 0
        for _ in range(900):
            admitted += (await limiter.try_acquire("a")).allowed
            clock.advance(1e-6)
        assert admitted == 225  # one token takes 3⅓ µs, so that whole microseconds let it be every fourth


@pytest.mark.anyio
@pytest.mark.parametrize("limit", ["5/day", ["5/day", *OTHERS]], ids=["one", "list"])
async def test_a_decision_can_be_pickled_and_holds_no_key_of_others(any_redis: Server, limit: Any) -> None:
    async with new_store(any_redis.url) as store:
        limiter = Limiter(limit, store=store)
        await limiter.try_acquire("user:secret")
        for _ in range(6):
            decision = await limiter.try_acquire("user:ada")
            for value in (decision, RateLimited(decision)):
                assert b"secret" not in pickle.dumps(value)
            assert pickle.loads(pickle.dumps(decision)) == decision
        assert not decision.allowed
