"""How it is said: headers parse back to the decision, and a client that obeys them is never refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import http_sf
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asgi_ratelimit import Decision, FixedWindow, LeakyBucket, Limiter, MemoryStore, Quota, SlidingWindow, TokenBucket
from asgi_ratelimit.inbound.headers import (
    RawHeaders,
    discord_headers,
    ietf_headers,
    in_milliseconds,
    retry_after_header,
)
from asgi_ratelimit.inbound.responses import limited_body
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.testing import ManualClock

pytestmark = pytest.mark.anyio

rates = st.builds("{}/{}ms".format, st.integers(1, 50), st.integers(1, 200_000))
names = st.none() | st.text(min_size=1, max_size=8)
limits: st.SearchStrategy[Limit] = st.one_of(
    st.builds(TokenBucket, rates, st.none() | st.integers(1, 60), name=names),
    st.builds(LeakyBucket, rates, st.integers(0, 60), name=names),
    st.builds(FixedWindow, rates, name=names),
    st.builds(SlidingWindow, rates, name=names),
)
pauses_us = st.lists(st.integers(0, 10_000_000), min_size=1, max_size=12)
starts_us = st.integers(0, 4_000_000_000_000_000)


class Asked(NamedTuple):
    """A limiter's last decision after some calls, and the clock that it went by."""

    decision: Decision
    limiter: Limiter
    clock: ManualClock


async def ask(limit: Any, pauses: Sequence[int] = (0,), start_us: int = 1_700_000_000_000_000) -> Asked:
    clock = ManualClock(start_us / 1e6)
    limiter = Limiter(limit, store=MemoryStore(clock=clock), name="app")
    for pause in pauses:
        clock.advance(pause / 1e6)
        decision = await limiter.try_acquire("k")
    return Asked(decision, limiter, clock)


async def ask_until_refused(limit: Any, start_us: int = 1_700_000_000_000_000) -> Asked:
    asked = await ask(limit, start_us=start_us)
    while (decision := await asked.limiter.try_acquire("k")).allowed:
        pass
    return asked._replace(decision=decision)


def read(headers: RawHeaders) -> dict[str, str]:
    texts = {name.decode("ascii"): value.decode("ascii") for name, value in headers}
    assert len(texts) == len(headers), f"a name stands twice in {headers}"
    return texts


def thousandths(text: str) -> int:
    """Milliseconds, from seconds with exactly three decimals."""
    assert re.fullmatch(r"[0-9]+\.[0-9]{3}", text), text
    return int(text.replace(".", ""))


# Discord's


@given(limits, pauses_us, starts_us)
async def test_discords_headers_parse_back_to_the_decision(limit: Limit, pauses: list[int], start_us: int) -> None:
    decision, _, clock = await ask(limit, pauses, start_us)
    said = read(discord_headers(decision, clock.wall(), refused=False))
    assert list(said) == [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-ratelimit-reset-after",
        "x-ratelimit-bucket",
    ]
    assert re.fullmatch("[0-9]+", said["x-ratelimit-limit"])
    assert int(said["x-ratelimit-limit"]) == decision.limit == limit.capacity
    assert re.fullmatch("[0-9]+", said["x-ratelimit-remaining"])
    assert int(said["x-ratelimit-remaining"]) == decision.remaining
    assert thousandths(said["x-ratelimit-reset-after"]) == math.ceil(decision.reset_us / 1000)
    assert re.fullmatch("[0-9a-f]{32}", said["x-ratelimit-bucket"])
    assert said["x-ratelimit-bucket"] == decision.bucket


@given(limits, pauses_us, starts_us)
async def test_the_reset_is_never_before_the_bucket_is_full(limit: Limit, pauses: list[int], start_us: int) -> None:
    decision, _, clock = await ask(limit, pauses, start_us)
    said = read(discord_headers(decision, clock.wall(), refused=False))
    full_us = clock.now_us() + decision.reset_us
    assert full_us <= thousandths(said["x-ratelimit-reset"]) * 1000 < full_us + 1000


async def test_a_reset_a_microsecond_past_a_millisecond_is_rounded_up() -> None:
    decision = (await ask(FixedWindow("1/s"))).decision
    for now_us in range(2_200_000_000_000_001, 2_200_000_001_000_001, 1000):  # where int(us / 1e6 * 1e6) falls short
        said = read(discord_headers(decision, now_us / 1e6, refused=False))
        assert thousandths(said["x-ratelimit-reset"]) * 1000 >= now_us + 1_000_000


async def test_remaining_is_less_than_the_limit_on_a_counted_response() -> None:
    decision = (await ask("5/5s")).decision
    assert read(discord_headers(decision, 0.0, refused=False))["x-ratelimit-remaining"] == "4"


async def test_discords_headers_word_for_word() -> None:
    decision, _, clock = await ask("100/minute", [0, 250_000], 1_700_000_000_000_000)
    assert discord_headers(decision, clock.wall(), refused=False) == [
        (b"x-ratelimit-limit", b"100"),
        (b"x-ratelimit-remaining", b"98"),
        (b"x-ratelimit-reset", b"1700000001.200"),
        (b"x-ratelimit-reset-after", b"0.950"),
        (b"x-ratelimit-bucket", decision.bucket.encode()),
    ]


@pytest.mark.parametrize("scope", ["user", "shared"])
async def test_a_refusal_adds_its_scope(scope: Any) -> None:
    decision, _, clock = await ask_until_refused(TokenBucket("1/s", scope=scope))
    said = read(discord_headers(decision, clock.wall(), refused=True))
    assert said["x-ratelimit-scope"] == scope
    assert "x-ratelimit-global" not in said
    assert said["x-ratelimit-limit"] == "1"


async def test_a_global_refusal_names_no_bucket() -> None:
    decision, _, clock = await ask_until_refused(TokenBucket("1/s", scope="global"))
    assert discord_headers(decision, clock.wall(), refused=True) == [
        (b"x-ratelimit-global", b"true"),
        (b"x-ratelimit-scope", b"global"),
    ]


# Waiting


@given(limits, starts_us)
async def test_who_obeys_retry_after_is_not_refused_again(limit: Limit, start_us: int) -> None:
    decision, limiter, clock = await ask_until_refused(limit, start_us)
    name, value = retry_after_header(decision)
    assert name == b"retry-after"
    assert re.fullmatch(rb"[1-9][0-9]*", value)
    clock.advance(int(value))
    assert (await limiter.try_acquire("k")).allowed


@given(limits, starts_us)
async def test_who_obeys_the_body_is_not_refused_again(limit: Limit, start_us: int) -> None:
    decision, limiter, clock = await ask_until_refused(limit, start_us)
    retry_after = json.loads(limited_body(decision))["retry_after"]
    assert isinstance(retry_after, float)
    assert retry_after > 0
    clock.advance(retry_after)
    assert (await limiter.try_acquire("k")).allowed


@given(limits, starts_us)
async def test_nobody_is_sent_away_for_longer_than_rounding_needs(limit: Limit, start_us: int) -> None:
    decision, limiter, clock = await ask_until_refused(limit, start_us)
    assert int(retry_after_header(decision)[1]) < decision.retry_after + 1
    assert float(str(json.loads(limited_body(decision))["retry_after"])) < decision.retry_after + 0.001
    clock.advance(decision.retry_after - 1e-6)
    assert not (await limiter.try_acquire("k")).allowed


@given(st.integers(0, 10**15))
def test_milliseconds_are_rounded_up(microseconds: int) -> None:
    assert microseconds <= round(in_milliseconds(microseconds) * 1000) * 1000 < microseconds + 1000


def test_65_seconds_stand_beside_a_body_of_64_57() -> None:
    assert in_milliseconds(64_570_000) == 64.57
    assert in_milliseconds(64_569_001) == 64.57


# The IETF's


def items(text: str) -> list[tuple[str, dict[str, int]]]:
    """A structured field's list of strings with whole-number parameters, as another library reads it (RFC 9651)."""
    found: Any = http_sf.parse(text.encode("ascii"), tltype="list")
    for name, parameters in found:
        assert type(name) is str
        assert {type(value) for value in parameters.values()} <= {int}
        assert all(value >= 0 for value in parameters.values())
    return list(found)


@given(st.lists(limits, min_size=1, max_size=4, unique_by=lambda limit: limit.identity), pauses_us, starts_us)
async def test_the_ietfs_headers_parse_back_to_every_part(every: list[Limit], pauses: list[int], start_us: int) -> None:
    decision, _, _ = await ask(every, pauses, start_us)
    said = read(ietf_headers([decision]))
    assert list(said) == ["ratelimit-policy", "ratelimit"]
    policies, states = items(said["ratelimit-policy"]), items(said["ratelimit"])
    assert [name for name, _ in policies] == [name for name, _ in states]
    for part, (_, policy), (_, state) in zip(decision.parts, policies, states, strict=True):
        assert policy == {"q": part.limit, "w": max(1, math.ceil(part.policy.limit.window_us / 1_000_000))}
        assert state["r"] == part.remaining
        assert ("t" in state) is (part.remaining < part.limit), "a full bucket has no reset"
        assert 0 <= state.get("t", 0) <= math.ceil(part.reset_us / 1e6)


@given(limits, pauses_us, starts_us)
async def test_after_the_reset_of_a_limit_more_of_it_is_there_and_not_long_before(
    limit: Limit, pauses: list[int], start_us: int
) -> None:
    decision, limiter, clock = await ask(limit, pauses, start_us)
    [(_, state)] = items(read(ietf_headers([decision]))["ratelimit"])
    clock.advance(state["t"] - 1)
    later = decision if state["t"] == 1 else await limiter.peek("k")
    assert later.remaining == decision.remaining
    clock.advance(1)
    assert (await limiter.peek("k")).remaining > decision.remaining


@given(st.lists(limits, min_size=1, max_size=4, unique_by=lambda limit: limit.identity), starts_us)
async def test_in_a_refusal_no_reset_is_later_than_retry_after(every: list[Limit], start_us: int) -> None:
    decision, _, _ = await ask_until_refused(every, start_us)
    seconds = int(retry_after_header(decision)[1])
    states = items(read(ietf_headers([decision], decision))["ratelimit"])
    assert all(state.get("t", 0) <= seconds for _, state in states)
    for part, (_, state) in zip(decision.parts, states, strict=True):
        assert part.allowed or state["t"] > 0


async def test_a_full_bucket_has_no_reset() -> None:
    _, limiter, _ = await ask("5/5s")
    assert read(ietf_headers([await limiter.peek("another")]))["ratelimit"] == '"app";r=5'


async def test_the_reset_of_a_blocked_key_is_the_end_of_its_block() -> None:
    _, limiter, _ = await ask("5/5s")
    await limiter.block("k", 60)
    blocked = await limiter.try_acquire("k")
    assert read(ietf_headers([blocked], blocked))["ratelimit"] == '"app";r=0;t=60'


@given(st.lists(limits, min_size=1, max_size=3, unique_by=lambda limit: limit.identity))
async def test_every_policy_has_a_name_of_its_own(every: list[Limit]) -> None:
    assume(all(limit.name is None or (limit.name.isascii() and limit.name.isprintable()) for limit in every))
    assume(len({str(limit) for limit in every}) == len(every))
    decision = (await ask(every)).decision
    said = [name for name, _ in items(read(ietf_headers([decision]))["ratelimit"])]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize(
    ("limit", "policy", "state"),
    [
        ("100/minute", '"app";q=100;w=60', '"app";r=99;t=1'),
        (TokenBucket("50/s", burst=100, name="burst"), '"burst";q=100;w=2', '"burst";r=99;t=1'),
        (TokenBucket("50/s", burst=1000), '"app";q=1000;w=20', '"app";r=999;t=1'),
        ("1/200ms", '"app";q=1;w=1', '"app";r=0;t=1'),
        (
            ["10/s", "1000/day"],
            '"app 10/second";q=10;w=1, "app 1000/day";q=1000;w=86400',
            '"app 10/second";r=9;t=1, "app 1000/day";r=999;t=87',
        ),
        (
            ["10/s", TokenBucket("1000/day", name="day")],
            '"app";q=10;w=1, "day";q=1000;w=86400',
            '"app";r=9;t=1, "day";r=999;t=87',
        ),
        (FixedWindow("5/5s"), '"app";q=5;w=5', '"app";r=4;t=5'),
        (TokenBucket("100/minute", unit="tokens"), '"app";q=100;qu="tokens";w=60', '"app";r=99;t=1'),
        (
            Quota("50000/month", name="month", unit="content-bytes"),
            '"month";q=50000;qu="content-bytes";w=2592000',
            '"month";r=49999;t=1388800',
        ),
    ],
)
async def test_the_ietfs_headers_word_for_word(limit: Any, policy: str, state: str) -> None:
    said = ietf_headers([(await ask(limit)).decision])
    assert said == [(b"ratelimit-policy", policy.encode()), (b"ratelimit", state.encode())]


@pytest.mark.parametrize(
    ("day", "hours"),
    [(1_679_788_800, 23), (1_698_537_600, 25), (1_698_710_400, 24)],
    ids=["the clocks go forward", "they go back", "any other day"],
)
async def test_the_window_of_a_quota_is_the_period_that_it_is_in(day: int, hours: int) -> None:
    noon_us = (day + 12 * 3600) * 1_000_000
    decision = (await ask(Quota("5/day", tz="Europe/Berlin"), start_us=noon_us)).decision
    assert items(read(ietf_headers([decision]))["ratelimit-policy"]) == [("app", {"q": 5, "w": hours * 3600})]


async def test_a_soft_limit_that_is_over_says_so() -> None:
    limits = [TokenBucket("2/minute", name="soft", enforce=False), TokenBucket("9/hour", name="hard")]
    said = [read(ietf_headers([(await ask(limits, [0] * calls)).decision]))["ratelimit"] for calls in (2, 3)]
    assert said == ['"soft";r=0;t=30, "hard";r=7;t=400', '"soft";r=0;over;t=30, "hard";r=6;t=400']
    parsed: Any = http_sf.parse(said[1].encode(), tltype="list")
    assert [parameters.get("over") for _, parameters in parsed] == [True, None]


async def test_discords_headers_show_the_limit_that_has_the_least_left_also_if_it_is_over() -> None:
    decision, _, clock = await ask([TokenBucket("2/minute", enforce=False), "9/hour"], [0] * 3)
    assert read(discord_headers(decision, clock.wall(), refused=False))["x-ratelimit-limit"] == "2"


@given(st.text(min_size=1))
async def test_any_unit_is_a_well_formed_string(unit: str) -> None:
    said: Any = http_sf.parse(ietf_headers([(await ask(TokenBucket("5/5s", unit=unit))).decision])[0][1], tltype="list")
    assert said[0][1]["qu"] == "".join(char if " " <= char <= "~" else "?" for char in unit)


@given(st.text(min_size=1))
async def test_any_name_is_a_well_formed_string(name: str) -> None:
    decision = (await ask(TokenBucket("5/5s", name=name))).decision
    [(said, _)] = items(read(ietf_headers([decision]))["ratelimit"])
    assert said == "".join(char if " " <= char <= "~" else "?" for char in name)


async def test_a_name_with_quotes_is_escaped() -> None:
    decision = (await ask(TokenBucket("5/5s", name='a"b\\c\r\nx: é'))).decision
    assert read(ietf_headers([decision]))["ratelimit"] == r'"a\"b\\c??x: ?";r=4;t=1'


async def test_the_last_word_on_a_bucket_counts() -> None:
    first, limiter, _ = await ask("5/5s")
    second = await limiter.try_acquire("k")
    assert read(ietf_headers([first, second]))["ratelimit"] == '"app";r=3;t=1'


async def test_no_decision_says_nothing() -> None:
    assert ietf_headers([]) == []
