"""Records of permits that other software has written, of any type and with any contents: no permit hangs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_ratelimit.discord.permits.bucket import CallReport
from asgi_ratelimit.discord.permits.memory import AWAIT_RESPONSE, Granted, Permit
from asgi_ratelimit.discord.permits.shared import SharedPermits, shared_permits
from asgi_ratelimit.testing import ManualClock
from tests.discord.permits.replies import new_call
from tests.support.servers import Server
from tests.support.stores import names_of, new_store

START_US = 1_700_000_000_000_000
S = 1_000_000
WEEK_US = 7 * 86_400 * S

Command = tuple[Any, ...]  # without the name of the record, which is its second word
TYPES: list[Command] = [("RPUSH", "x"), ("SADD", "x"), ("HSET", "x", "y"), ("ZADD", 1, "x"), ("SET", "x")]
ENDS = ("held", "stop", "hash", "lock", "bucket")

_numbers = st.one_of(
    st.integers(START_US - 100 * S, START_US + 100 * S),
    st.integers(-(2**63), 2**63),
    st.sampled_from([-1, 0, 1, 5, 2**53, START_US, START_US + 3600 * S, START_US + 10**13, 10**16 - 1]),
)
_words = st.lists(_numbers.map(str), max_size=3).map(" ".join)
_fields = st.tuples(*[st.integers(0, 9) | _numbers for _ in range(11)]).map(lambda fields: " ".join(map(str, fields)))
_records = st.tuples(_fields, st.lists(st.tuples(st.sampled_from("abc"), _numbers), max_size=4)).map(
    lambda parts: " ".join([parts[0], *(f"{permit} {until}" for permit, until in parts[1])])
)
_texts = st.one_of(_words, _records, st.binary(max_size=40))
_scores = st.lists(_numbers | st.floats(allow_nan=False), min_size=1, max_size=60).map(
    lambda scores: ("ZADD", *(word for n, score in enumerate(scores) for word in (score, f"p{n}")))
)
POISON = st.one_of(_texts.map(lambda text: ("SET", text)), _scores, st.sampled_from(TYPES))


def names_by_end(server: Server, permits: SharedPermits) -> dict[str, str]:
    base = permits.names.base
    names = {name[len(base) + 1 :].split(":")[0]: name for name in names_of(server)}
    return {end: names.get(end, f"{base}:{end}") for end in ENDS}


async def permit(permits: SharedPermits, clock: ManualClock, resource: str) -> Permit:
    """A permit, after waits that are named, and of a week at most."""
    for _ in range(12):
        reply = await permits.take(*new_call(resource))
        if isinstance(reply, Granted):
            return reply.permit
        assert reply.wait_us == AWAIT_RESPONSE or 0 < reply.wait_us <= WEEK_US + 100 * S
        clock.advance(61 if reply.wait_us == AWAIT_RESPONSE else reply.wait_us / 1e6)
    raise AssertionError("no permit in twelve rounds")


def test_whatever_is_in_a_record_permits_are_given_and_taken_back(any_redis: Server) -> None:
    clock = ManualClock(START_US / 1e6)
    store = new_store(any_redis.url, clock=clock)

    async def poison(end: str, command: Command) -> None:
        permits = shared_permits(store, "owner")
        await permits.settle(await permit(permits, clock, "1"), CallReport("answered", "b", 5, 4, 60 * S))
        await permits.settle(await permit(permits, clock, "1"), CallReport("sublimited", retry_us=S))
        name = names_by_end(any_redis, permits)[end]
        any_redis.command("DEL", name)
        verb, *rest = command
        any_redis.command(verb, name, *rest)
        for _ in range(3):
            given = await permit(permits, clock, "1")
            await permits.settle(given, CallReport("answered", "b", 5, 4, 60 * S))
        held = await permit(permits, clock, "1")
        await permits.settle(held, CallReport("limited", "b", 5, 0, S, S))
        await permit(permits, clock, "1")

    @settings(max_examples=300)
    @given(st.sampled_from(ENDS), POISON)
    @example("stop", ("SET", f"{START_US + 10**14} {START_US + 10**14}"))
    @example("bucket", ("SET", "0 0 0 0 0 0 0 0 0 0 0"))
    @example("bucket", ("SET", f"5 0 0 0 {START_US} 0 1 0 0 0 0 a {START_US + 10**14}"))
    @example("bucket", ("SET", f"5 0 0 0 {START_US} 0 1 0 0 0 0 a {START_US + S} a {START_US + S}"))
    @example("held", ("ZADD", *(word for n in range(60) for word in (START_US + 10**14, f"p{n}"))))
    def no_permit_hangs(end: str, command: Command) -> None:
        any_redis.command("FLUSHALL")
        clock.advance(START_US / 1e6 - clock.wall())
        runner.run(poison(end, command))

    with asyncio.Runner() as runner:
        no_permit_hangs()
        runner.run(store.aclose())


@pytest.mark.anyio
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("command", TYPES[:3], ids=lambda command: command[0])
async def test_a_record_of_a_wrong_type_is_dropped_and_reported_once(
    any_redis: Server, caplog: pytest.LogCaptureFixture, end: str, command: Command
) -> None:
    async with new_store(any_redis.url) as store:
        permits = shared_permits(store, "token.of-a.bot")
        given = await permits.take(*new_call())
        assert isinstance(given, Granted)
        await permits.settle(given.permit, CallReport("answered", "b", 50, 49, 60 * S))
        given = await permits.take(*new_call())
        assert isinstance(given, Granted)
        is_locked = end == "lock"
        await permits.settle(given.permit, CallReport("sublimited" if is_locked else "unsent", retry_us=60 * S))
        name = names_by_end(any_redis, permits)[end]
        for _ in range(2):
            any_redis.command("DEL", name)
            any_redis.command(command[0], name, *command[1:])
            reply = await permits.take(*new_call(per_second=1000))
            assert isinstance(reply, Granted) or reply.cause in ("route", "answer")
        assert any_redis.command("TYPE", name) in ("none", "string", "zset")
    (line,) = [record.message for record in caplog.records]
    assert "a record of permits" in line
    assert "token" not in line
