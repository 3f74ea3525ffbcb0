"""Records that other software has written, of any type and with any contents: a limit stays a limit."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from struct import pack
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_ratelimit import Decision, FixedWindow, LeakyBucket, Limiter, SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.redis import RedisStore, StoreEvent
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Server
from tests.support.stores import names_of, new_store

KINDS: list[Limit] = [
    TokenBucket("3/70s burst 5"),
    TokenBucket("7/s"),
    LeakyBucket("7/70s", queue=4),
    FixedWindow("5/70s"),
    SlidingWindow("5/70s"),
]
START_US = 1_700_000_000_000_000
S = 1_000_000

Command = tuple[Any, ...]  # without the name of the record, which is its second word
TYPES: list[Command] = [
    ("RPUSH", "x"),
    ("SADD", "x"),
    ("HSET", "x", "y"),
    ("ZADD", 1, "x"),
    ("XADD", "*", "x", "y"),
    ("PFADD", "x"),
    ("SETBIT", 70, 1),
]

_near = st.integers(START_US - 100 * S, START_US + 100 * S)
_numbers = st.one_of(
    _near,
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, 7, 2**31, 2**53 - 1, 2**53, 2**53 + 1, START_US, START_US + 3600 * S, 10**18]),
)
_pairs = st.tuples(_numbers, _numbers | st.integers(0, 20)).map(lambda pair: f"{pair[0]}:{pair[1]}".encode())
_debts = st.tuples(_near, *(st.integers(0, 20) | _numbers for _ in range(3))).map(
    lambda numbers: ":".join(map(str, numbers)).encode()
)
_logs = st.lists(_numbers, max_size=12).map(lambda moments: pack(f"<{len(moments)}q", *moments))
_sorted_logs = st.lists(_near, max_size=12).map(lambda moments: pack(f"<{len(moments)}q", *sorted(moments)))
VALUES = st.one_of(
    _pairs,
    _debts,
    _logs,
    _sorted_logs,
    _numbers.map(lambda number: str(number).encode()),
    st.floats().map(lambda number: repr(number).encode()),
    st.binary(max_size=40),
)
POISON = st.one_of(VALUES.map(lambda value: ("SET", value)), st.sampled_from(TYPES))


def write(server: Server, name: str, command: Command) -> None:
    verb, *rest = command
    server.command("DEL", name)
    server.command(verb, name, *rest)


def name_of_the_block(server: Server, before: set[str]) -> str:
    (name,) = (name for name in set(names_of(server)) - before if name.endswith(":block"))
    return name


def assert_plausible(decision: Decision) -> None:
    for part in decision.parts:
        longest_us = 2 * part.policy.limit.window_us  # a bucket may owe as much as it holds
        assert 0 <= part.remaining <= part.limit
        assert 0 <= part.reset_us <= longest_us
        assert part.allowed or 0 < part.retry_us <= longest_us
        assert part.reason in ("ok", "limited")


@pytest.fixture
async def store(redis_server: Server) -> AsyncIterator[RedisStore]:
    async with new_store(redis_server.url, deny_cache=0) as store:
        yield store


# Fuzzing


async def flood(limiter: Limiter, clock: ManualClock) -> None:
    """No more than the capacity pass at once, the answers are plausible, and after some windows the bucket is full."""
    (limit,) = limiter.limits
    for _ in range(3):
        answers = await asyncio.gather(
            limiter.peek("a"), *(limiter.try_acquire("a") for _ in range(limit.capacity + 3))
        )
        for answer in answers:
            assert_plausible(answer)
        assert sum(answer.allowed for answer in answers[1:]) <= limit.capacity
        clock.advance(limit.window_us / 1e6)
    answers = await asyncio.gather(*(limiter.try_acquire("a") for _ in range(limit.capacity + 1)))
    assert sum(answer.allowed for answer in answers) == limit.capacity


@pytest.mark.parametrize("limit", KINDS, ids=repr)
def test_whatever_is_in_a_bucket_its_limit_holds_and_the_answers_are_plausible(any_redis: Server, limit: Limit) -> None:
    clock = ManualClock(START_US / 1e6)
    store = new_store(any_redis.url, clock=clock, deny_cache=0)
    numbers = itertools.count()

    async def poison_and_flood(command: Command) -> None:
        limiter = Limiter(limit, store=store, name=str(next(numbers)))
        await limiter.try_acquire("a")
        (name,) = names_of(any_redis)
        write(any_redis, name, command)
        await flood(limiter, clock)

    @settings(max_examples=60)
    @given(POISON)
    @example(("SET", b"1700000000000000:99999999999"))
    @example(("SET", pack("<5q", *(START_US + n for n in (9, 8, -1, -2, -3)))))
    @example(("SET", pack("<5q", 2**62, 2**62, 2**62, 2**62, START_US)))
    @example(("SET", f"{START_US + S}:{10**15}".encode()))
    def the_limit_holds(command: Command) -> None:
        clock.advance(START_US / 1e6 - clock.wall())
        runner.run(poison_and_flood(command))
        any_redis.command("FLUSHALL")

    with asyncio.Runner() as runner:
        the_limit_holds()
        runner.run(store.aclose())


def test_whatever_is_in_one_of_several_buckets_the_strictest_limit_holds(any_redis: Server) -> None:
    clock = ManualClock(START_US / 1e6)
    store = new_store(any_redis.url, clock=clock, deny_cache=0)
    strict = min(limit.capacity for limit in KINDS)

    async def poison_and_flood(number: int, command: Command) -> None:
        limiter = Limiter(KINDS, store=store)
        await limiter.try_acquire("a")
        write(any_redis, names_of(any_redis)[number], command)
        for _ in range(2):
            answers = await asyncio.gather(*(limiter.try_acquire("a") for _ in range(strict + 3)))
            for answer in answers:
                assert_plausible(answer)
            assert sum(answer.allowed for answer in answers) <= strict
            clock.advance(70)

    @settings(max_examples=60)
    @given(st.integers(0, len(KINDS) - 1), POISON)
    def the_limits_hold(number: int, command: Command) -> None:
        any_redis.command("FLUSHALL")
        clock.advance(START_US / 1e6 - clock.wall())
        runner.run(poison_and_flood(number, command))

    with asyncio.Runner() as runner:
        the_limits_hold()
        runner.run(store.aclose())


def test_whatever_is_in_place_of_a_block_the_key_is_limited_or_blocked_for_a_while(any_redis: Server) -> None:
    clock = ManualClock(START_US / 1e6)
    store = new_store(any_redis.url, clock=clock, deny_cache=0)

    async def poison_and_flood(command: Command) -> None:
        limiter = Limiter("5/70s", store=store, name="blocks")
        await limiter.reset("a")
        await limiter.block("a", 60)
        write(any_redis, name_of_the_block(any_redis, set()), command)
        answers = await asyncio.gather(*(limiter.try_acquire("a") for _ in range(8)))
        assert sum(answer.allowed for answer in answers) in (0, 5)
        for answer in answers:
            assert answer.reason in ("ok", "limited", "blocked")
            assert 0 <= answer.retry_after <= 3_155_760_000
        await limiter.reset("a")
        assert (await limiter.try_acquire("a")).remaining == 4

    @settings(max_examples=60)
    @given(POISON)
    def it_is_limited_or_blocked(command: Command) -> None:
        runner.run(poison_and_flood(command))

    with asyncio.Runner() as runner:
        it_is_limited_or_blocked()
        runner.run(store.aclose())


# One line, and a repair


@pytest.mark.anyio
@pytest.mark.parametrize("command", TYPES, ids=lambda command: command[0])
async def test_a_record_of_a_wrong_type_is_replaced_and_reported_once(
    redis_server: Server, store: RedisStore, caplog: pytest.LogCaptureFixture, command: Command
) -> None:
    limiter = Limiter("3/day", store=store, name="search")
    await limiter.try_acquire("ada@example.org")
    (name,) = names_of(redis_server)
    for _ in range(2):
        write(redis_server, name, command)
        answers = [await limiter.try_acquire("ada@example.org") for _ in range(5)]
        assert [answer.remaining for answer in answers if answer.allowed] == [2, 1, 0]
        assert redis_server.command("PTTL", name) > 0
    (record,) = caplog.records
    assert "a record of the limiter 'search' is not believed" in record.message
    assert "ada" not in record.message


@pytest.mark.anyio
async def test_a_record_that_is_not_believed_is_an_event_once(redis_server: Server) -> None:
    events: list[StoreEvent] = []
    async with new_store(redis_server.url, deny_cache=0, on_event=events.append) as store:
        for _ in range(2):
            await Limiter("3/day", store=store, name="search").try_acquire("a")
            (name,) = names_of(redis_server)
            write(redis_server, name, ("RPUSH", "x"))
            await Limiter("3/day", store=store, name="search").try_acquire("a")
    (event,) = events
    assert (event.kind, "'search'" in event.cause) == ("spoilt", True)


@pytest.mark.anyio
async def test_a_block_of_a_wrong_type_is_removed(redis_server: Server, store: RedisStore) -> None:
    limiter = Limiter("3/day", store=store)
    await limiter.block("a", 60)
    name = name_of_the_block(redis_server, set())
    write(redis_server, name, ("RPUSH", "x"))
    assert (await limiter.try_acquire("a")).allowed
    assert name not in names_of(redis_server)
    await limiter.block("a", 60)
    assert (await limiter.try_acquire("a")).reason == "blocked"


@pytest.mark.anyio
async def test_a_probe_of_a_wrong_type_is_no_outage(redis_server: Server) -> None:
    redis_server.command("RPUSH", "poisoned:{probe}:probe", "x")
    async with new_store(redis_server.url, prefix="poisoned") as store:
        assert (await Limiter("3/day", store=store).try_acquire("a")).remaining == 2


@pytest.mark.anyio
async def test_calls_that_are_not_in_order_are_dropped_once_the_script_and_their_limit_disagree(
    redis_server: Server, store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = Limiter(SlidingWindow("5/h"), store=store)
    await limiter.try_acquire("a")
    (name,) = names_of(redis_server)
    now_us = int(time.time() * 1e6)
    moments = [now_us + 2**50] * 3 + [now_us - 7200 * S, now_us]
    write(redis_server, name, ("SET", pack("<5q", *moments)))
    assert not (await limiter.try_acquire("a")).allowed
    assert (await limiter.peek("a")).remaining == 5
    assert len(caplog.records) == 1


# Redis' clock goes back


async def seconds_blocked(limiter: Limiter, clock: ManualClock) -> float:
    seconds = 0.0
    while (await limiter.try_acquire("a")).reason == "blocked":
        clock.advance(0.5)
        seconds += 0.5
    return seconds


@pytest.mark.anyio
async def test_a_block_lasts_its_own_length_after_the_clock_went_back(
    redis_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    async with new_store(redis_server.url, clock=clock, deny_cache=0) as store:
        limiter = Limiter("1000/s", store=store)
        await limiter.block("a", 3)
        clock.advance(-3600)
        assert await seconds_blocked(limiter, clock) == 3.0
        assert await seconds_blocked(limiter, clock) == 0.0
    assert len(caplog.records) == 1


@pytest.mark.anyio
async def test_a_block_written_by_an_earlier_version_is_believed(redis_server: Server, store: RedisStore) -> None:
    limiter = Limiter("3/day", store=store)
    await limiter.block("a", 60)
    write(redis_server, name_of_the_block(redis_server, set()), ("SET", round((time.time() + 600) * 1e6)))
    blocked = await limiter.try_acquire("a")
    assert (blocked.reason, 590 < blocked.retry_after <= 600) == ("blocked", True)
