"""The questions to the script: numbers that a double holds exactly, and checks of one shape in one run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from struct import pack
from typing import Any

import pytest
from hiredis import Reader
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import (
    Concurrency,
    FixedWindow,
    LeakyBucket,
    Limiter,
    MemoryStore,
    Quota,
    SlidingWindow,
    TokenBucket,
)
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.rate import Rate
from asgi_ratelimit.redis.wire import command, shape, write
from asgi_ratelimit.testing import ManualClock
from tests.support.traces import ALL, with_rate

EXACT = 2**53
NOW_US = 1_700_000_000_000_000
LETTERS: dict[type, str] = {
    TokenBucket: "T", LeakyBucket: "L", FixedWindow: "F", SlidingWindow: "S", Quota: "Q", Concurrency: "C",
}  # fmt: skip
ANY = st.sampled_from(ALL)


@dataclass
class Question:
    keys: Sequence[str]
    shape: str


@given(ANY, st.booleans(), st.data())
def test_a_double_holds_every_number_of_a_limit(limit: Limit, enforce: bool, data: st.DataObject) -> None:
    cost = data.draw(st.integers(1, limit.capacity or 1))
    kind, *numbers = with_rate(limit, limit.rate, enforce=enforce).encode(cost, NOW_US)
    letter = LETTERS[type(limit)]
    assert kind == (letter if enforce else letter.lower())
    assert all(0 <= float(number) < EXACT for number in numbers)
    assert all(type(number) is int for number in numbers if number != getattr(limit, "rollover", None))
    assert json.loads(shape("decide", 2, [kind, *numbers]), parse_int=float) == ["decide", 2, [kind, *numbers]]


@given(ANY.filter(lambda limit: isinstance(limit, TokenBucket)), st.data())
def test_a_cost_and_a_depth_are_whole_microseconds_and_ticks(limit: Any, data: st.DataObject) -> None:
    cost = data.draw(st.integers(1, limit.capacity or 1))
    ticks, cost_us, cost_part, depth_us, depth_part = map(int, limit.encode(cost, NOW_US)[1:])
    assert cost_us * ticks + cost_part == cost * limit.interval
    assert depth_us * ticks + depth_part == limit.depth
    assert max(cost_part, depth_part) < ticks


def test_a_quota_is_written_with_the_boundaries_around_the_moment() -> None:
    quota = Quota("50/month", tz="Europe/Berlin", rollover=0.5)
    may = [int(datetime(2024, month, 1, tzinfo=quota.calendar.zone).timestamp()) * 1_000_000 for month in range(3, 8)]
    for now_us in (may[2], may[3] - 1):
        assert quota.encode(7, now_us) == ["Q", 50, 7, quota.window_us, 0.5, *may]
        assert quota.encoded_for(now_us) == (may[2], may[3])
    assert quota.encode(7, may[3])[5:] != may
    assert [limit.encoded_for(NOW_US) for limit in (TokenBucket("7/s"), FixedWindow("7/s"))] == [None, None]


def test_another_kind_of_limit_is_refused_in_words() -> None:
    class Lottery(Limit):
        __slots__ = ()

    with pytest.raises(ValueError, match=r"Lottery.* cannot be kept in Redis; use one of the kinds"):
        Lottery(Rate(1, 1_000_000)).encode(1, NOW_US)


@pytest.mark.anyio
async def test_a_refund_names_its_charge() -> None:
    clock = ManualClock(1_700_000_000.0)
    now_us, store = clock.now_us(), MemoryStore(clock=clock)
    charges: dict[Limit, list[int]] = {
        TokenBucket("3/s"): [now_us + 666_666, 2],
        FixedWindow("3/s"): [now_us + 1_000_000],
        SlidingWindow("3/s"): [now_us],
    }
    for limit, charge in charges.items():
        decision = await Limiter(limit, store=store).try_acquire("a", cost=2)
        assert [*limit.encode_charge(decision.state, decision.now_us)] == charge


def test_checks_of_one_shape_that_stand_together_are_one_run() -> None:
    one, other = shape("peek", 1), shape("reset", 2)
    questions = [Question(["a"], one), Question(["b"], one), Question(["c", "d"], other), Question(["e"], one)]
    name, _, count, *rest = command(questions, "17", number=4)
    assert (name, count) == ("EVALSHA", 5)
    assert rest == ["a", "b", "c", "d", "e", "17", 4, one, 2, other, 1, one, 1]
    assert command(questions, "", by_name=False)[0] == "EVAL"


def test_commands_are_written_in_redis_own_protocol() -> None:
    reader = Reader()
    reader.feed(write(("PING",), ("SET", "a", 1, b"\xff")))
    assert [reader.gets(), reader.gets()] == [[b"PING"], [b"SET", b"a", b"1", b"\xff"]]


@pytest.mark.parametrize(
    ("limit", "written", "state"),
    [
        (TokenBucket("7/s"), [1_700_000_000_123_456, 6], 1_700_000_000_123_456 * 7 + 6),
        (FixedWindow("7/s"), [1_700_000_000_123_456, 6, 2, 0], (1_700_000_000_123_456, 6, 2, 0)),
        (Quota("7/day"), [1_700_000_000_123_456, 6, 2, 3], (1_700_000_000_123_456, 6, 2, 3)),
        (Quota("7/day"), [0, 0, 0, 0], None),
        (SlidingWindow("7/s"), [pack("<2q", 1_700_000_000_123_456, 4 * 10**15)], (1_700_000_000_123_456, 4 * 10**15)),
        (SlidingWindow("7/s"), [b""], None),
    ],
)
def test_a_state_is_read_from_its_place(limit: Limit, written: list[Any], state: Any) -> None:
    assert limit.decode([0, 0, *written, "next"], 2) == (state, 2 + len(written))


@pytest.mark.parametrize("kind", [TokenBucket, LeakyBucket])
def test_a_limit_of_zero_writes_no_number_that_a_double_does_not_hold(kind: type[TokenBucket]) -> None:
    assert kind("0/day").encode(10**12, NOW_US)[1:] == [1, 86_400_000_000, 0, 0, 0]
