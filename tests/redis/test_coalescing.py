"""Checks that come while a call is in flight travel together: few calls, few connections, and each its own answer."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from typing import Any

import pytest

from asgi_ratelimit import Decision, FixedWindow, LeakyBucket, Limiter, SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.redis import RedisStore
from tests.support.server_counts import calls, clients, connections_ever, sizes_of_calls
from tests.support.servers import Proxy, Server

MOST_IN_A_CALL = 128  # checks, so that no call keeps the server busy for long
MOST_CONNECTIONS = 4

pytestmark = pytest.mark.anyio


async def checked(limiter: Limiter, keys: list[str]) -> list[Decision]:
    """All at once."""
    return await asyncio.gather(*(limiter.try_acquire(key) for key in keys))


def keys(count: int) -> list[str]:
    return [f"user:{n}" for n in range(count)]


# Together


async def test_a_thousand_checks_at_once_are_a_few_calls_of_bounded_size(redis_server: Server) -> None:
    async with RedisStore(redis_server.url, timeout=2) as store:
        limiter = Limiter("5/h", store=store)
        before = calls(redis_server)
        with sizes_of_calls(redis_server) as sizes:
            answers = await checked(limiter, keys(1000))
        assert {(answer.reason, answer.remaining) for answer in answers} == {("ok", 4)}
        assert calls(redis_server) - before == len(sizes) <= 20
        checks = [size // 2 for size in sizes]  # each with the key of its block and that of its bucket
        assert sum(checks) == 1000
        assert max(checks) <= MOST_IN_A_CALL


async def test_checks_that_come_during_a_call_travel_in_the_next_one(any_redis: Server) -> None:
    async with RedisStore(any_redis.url, timeout=2) as store:
        limiter = Limiter("100/h", store=store)
        with sizes_of_calls(any_redis) as sizes:
            await checked(limiter, keys(50))
        assert sorted(size // 2 for size in sizes) == [1, 49]


async def test_different_verbs_limits_and_costs_travel_together(any_redis: Server) -> None:
    async with RedisStore(any_redis.url, timeout=2) as store:
        one, other = Limiter("5/h", store=store), Limiter(["9/h", SlidingWindow("7/h")], store=store, name="b")
        charged = await one.try_acquire("a", cost=3)
        before = calls(any_redis)
        answers = await asyncio.gather(
            one.peek("b"),
            one.try_acquire("b", cost=2),
            other.try_acquire("b", cost=3),
            one.refund(charged),
            one.peek("b"),
            other.block("c", 60),
            other.peek("c"),
            one.peek("a"),
            one.reset("b"),
            one.peek("b"),
        )
        assert calls(any_redis) - before == 2
        results = [(each.reason, each.remaining) for each in answers if each is not None]
        assert results == [("ok", 5), ("ok", 3), ("ok", 4), ("ok", 3), ("blocked", 0), ("ok", 5), ("ok", 5)]


def test_a_lone_check_leaves_at_once_and_waits_for_no_timer(any_redis: Server) -> None:
    """No timer fires in an event loop in which time stands still."""

    async def main() -> tuple[Decision, int]:
        async with RedisStore(any_redis.url) as store:
            limiter = Limiter("5/h", store=store)
            loop: Any = asyncio.get_running_loop()
            now = loop.time()
            loop.time = lambda: now
            before = calls(any_redis)
            asking = asyncio.ensure_future(limiter.try_acquire("a"))
            watch = threading.Timer(10, loop.call_soon_threadsafe, [asking.cancel])
            watch.start()
            try:
                return await asking, calls(any_redis) - before
            finally:
                watch.cancel()
                del loop.time

    answer, made = asyncio.run(main())
    assert (answer.reason, answer.remaining, made) == ("ok", 4, 1)


async def test_five_thousand_checks_at_once_take_few_connections_and_admit_exactly_the_limit(
    redis_server: Server,
) -> None:
    async with RedisStore(redis_server.url, timeout=2) as store:
        limiter = Limiter("1000/day", store=store)
        before = connections_ever(redis_server)
        answers = await checked(limiter, ["a"] * 5000)
        assert connections_ever(redis_server) - before - 1 <= MOST_CONNECTIONS - 1  # the first is open already
        assert len(clients(redis_server)) <= MOST_CONNECTIONS
        assert {answer.reason for answer in answers} == {"ok", "limited"}
        assert sum(answer.allowed for answer in answers) == 1000


async def test_a_slow_server_gets_no_more_connections_either(proxy: Proxy) -> None:
    async with RedisStore(proxy.url, timeout=10, deny_cache=0) as store:
        limiter = Limiter("1000/day", store=store)

        async def caller() -> int:
            return sum([(await limiter.try_acquire("a")).allowed for _ in range(10)])

        proxy.delay(0.05)
        assert sum(await asyncio.gather(*(caller() for _ in range(2000)))) == 1000
        assert proxy.connections <= MOST_CONNECTIONS


@pytest.mark.parametrize("count", [60, 1000])
async def test_first_come_first_served_within_a_key(redis_server: Server, count: int) -> None:
    async with RedisStore(redis_server.url, timeout=2, deny_cache=0) as store:
        limiter = Limiter(f"{count // 2}/h", store=store)
        for n in range(5):
            mixed = await asyncio.gather(*(limiter.try_acquire(f"{n}{'ab'[i % 2]}") for i in range(2 * count)))
            for answers in (mixed[::2], mixed[1::2]):
                left = [*range(count // 2)][::-1]
                assert [answer.remaining for answer in answers] == left + [0] * (count - len(left))
                assert [answer.allowed for answer in answers] == [True] * len(left) + [False] * (count - len(left))


# Each its own answer

NAN = struct.pack("<d", float("nan"))
GARBAGE = {
    "nothing": b"",
    "words": b"not a number",
    "negative": b"-1",
    "not a number": b"nan",
    "infinite": b"inf",
    "minus infinity": b"-inf",
    "too big": b"1e999",
    "digits": b"9" * 400,
    "three parts": b"12:34:56",
    "large parts": b"9" * 20 + b":" + b"9" * 18,
    "hexadecimal": b"0x7fffffffffff",
    "bytes": b"\xff" * 7,
    "zeros": b"\0" * 8,
    "a double that is none": NAN,
    "many of them": NAN * 5,
    "one in the past": NAN + struct.pack("<d", time.time() * 1e6),
    "parts of a moment": struct.pack("<d", time.time() * 1e6 + 0.5),
}
LIMITS = [TokenBucket("5/h"), LeakyBucket("5/h", queue=4), FixedWindow("5/h"), SlidingWindow("5/h")]


async def spoil(limiter: Limiter, server: Server, *record: str | bytes, block: bool) -> None:
    """Write something else where the block or the bucket of "bad" is stored."""
    server.command("FLUSHALL")
    await (limiter.block("bad", 60) if block else limiter.try_acquire("bad"))
    (name,) = (name for name in server.command("KEYS", "*") if not name.endswith(":probe"))
    server.command("DEL", name)
    server.command(record[0], name, *record[1:])  # type: ignore[arg-type]


async def check_beside_bad(limiter: Limiter) -> list[bool]:
    """Whether "bad" is let in, eight times; the answers of the others in the same calls are right."""
    let_in = []
    async with asyncio.timeout(10):
        for n in range(8):
            first, *answers = await checked(limiter, ["first", "good", "bad", "fine"])
            let_in.append(answers[1].allowed)
            for answer in (first, answers[0], answers[2]):
                assert (answer.allowed, answer.remaining) == (n < 5, max(0, 4 - n))
                assert answer.reason in ("ok", "limited")
    return let_in


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: type(limit).__name__)
@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_spoils_its_own_check_only_and_does_not_open_the_limit(
    any_redis: Server, limit: Limit, garbage: str
) -> None:
    async with RedisStore(any_redis.url, timeout=2, deny_cache=0) as store:
        limiter = Limiter(limit, store=store)
        for block in (False, True):
            await spoil(limiter, any_redis, "SET", GARBAGE[garbage], block=block)
            assert sum(await check_beside_bad(limiter)) <= 5


OTHERS = [("RPUSH", "a"), ("SADD", "a"), ("HSET", "a", "b"), ("ZADD", "1", "a"), ("XADD", "*", "a", "b")]


@pytest.mark.parametrize("record", OTHERS, ids=lambda record: record[0])
async def test_a_record_of_the_wrong_type_spoils_its_own_check_only(any_redis: Server, record: tuple[str, ...]) -> None:
    async with RedisStore(any_redis.url, timeout=2, deny_cache=0) as store:
        for limit in LIMITS:
            limiter = Limiter(limit, store=store)
            for block in (False, True):
                await spoil(limiter, any_redis, *record, block=block)
                assert sum(await check_beside_bad(limiter)) <= 5


@pytest.mark.parametrize("record", [("SET", "nan"), *OTHERS], ids=lambda record: record[0])
async def test_a_refund_to_a_spoilt_record_spoils_nothing_else(any_redis: Server, record: tuple[str, ...]) -> None:
    async with RedisStore(any_redis.url, timeout=2) as store:
        for limit in LIMITS:
            limiter = Limiter(limit, store=store)
            any_redis.command("FLUSHALL")
            bad = await limiter.try_acquire("bad")
            (name,) = (name for name in any_redis.command("KEYS", "*") if not name.endswith(":probe"))
            good = await limiter.try_acquire("good", cost=2)
            any_redis.command("DEL", name)
            any_redis.command(record[0], name, *record[1:])
            first, *_, answer = await asyncio.gather(
                limiter.peek("first"), limiter.refund(bad), limiter.refund(good), limiter.try_acquire("good")
            )
            assert (first.remaining, answer.remaining, answer.reason) == (5, 4, "ok")
