"""The arithmetic of the four limits: exact, never generous, never stingy."""

from __future__ import annotations

import copy
import itertools
import pickle
from bisect import bisect_right
from dataclasses import FrozenInstanceError
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asgi_ratelimit import FixedWindow, LeakyBucket, SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit, as_limits
from asgi_ratelimit.rate import Rate

NOW = 1_700_000_000_000_000  # µs

AWKWARD = [
    "7/s",
    "49/s",
    "3/s",
    "90/minute",
    "300000/s",
    "1/day",
    "11/13ms",
    "1000/h",
    "5/5s",
    "7/s burst 3",
    "3/7s burst 20",
]
rates = st.sampled_from(AWKWARD) | st.builds(
    lambda count, period: str(Rate(count, period)), st.integers(1, 50), st.integers(1, 10_000_000)
)


def plain(text: str) -> str:
    return text.partition(" burst")[0]


limits = st.one_of(
    rates.map(TokenBucket),
    st.builds(lambda rate, queue: LeakyBucket(plain(rate), queue=queue), rates, st.integers(0, 20)),
    rates.map(plain).filter(lambda r: r != "300000/s").map(SlidingWindow),
    rates.map(plain).map(FixedWindow),
)
steps = st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(1, 4)), min_size=1, max_size=60)


def admitted(limit: Limit, trace: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """When how much of a trace of (pause, cost) was admitted."""
    now, state, passed = NOW, None, []
    for pause, cost in trace:
        now += pause
        after = limit.take(state, now, min(cost, limit.capacity))
        if after is not None:
            state = after
            passed.append((now, min(cost, limit.capacity)))
    return passed


# What it may admit


@given(rates.map(TokenBucket), steps)
def test_a_token_bucket_never_admits_more_than_burst_plus_rate_times_span(limit: TokenBucket, trace: Any) -> None:
    passed = admitted(limit, trace)
    rate = Fraction(limit.rate.count, limit.rate.period_us)
    for i, (start, _) in enumerate(passed):
        total = 0
        for end, cost in passed[i:]:
            total += cost
            assert total <= limit.capacity + rate * (end - start)


@given(rates.map(plain).filter(lambda r: r != "300000/s").map(SlidingWindow), steps)
def test_a_sliding_window_never_admits_more_than_the_count_in_any_period(limit: SlidingWindow, trace: Any) -> None:
    passed = [moment for moment, cost in admitted(limit, trace) for _ in range(cost)]
    for i, moment in enumerate(passed):
        assert bisect_right(passed, moment + limit.rate.period_us - 1) - i <= limit.capacity


@given(rates.map(plain).map(FixedWindow), steps)
def test_a_fixed_window_opens_with_its_first_request_and_admits_the_count(limit: FixedWindow, trace: Any) -> None:
    opened, used = None, 0
    for moment, cost in admitted(limit, trace):
        if opened is None or moment >= opened + limit.rate.period_us:
            opened, used = moment, 0
        used += cost
        assert used <= limit.capacity


@given(st.builds(lambda rate, queue: LeakyBucket(plain(rate), queue=queue), rates, st.integers(0, 20)), steps)
def test_a_leaky_bucket_spaces_its_calls_evenly(limit: LeakyBucket, trace: Any) -> None:
    now, state, gone = NOW, None, []
    for pause, _ in trace:
        now += pause
        after = limit.take(state, now, 1)
        if after is not None:
            state = after
            gone.append(now + limit.delay_us(after, now, 1))
    interval = Fraction(limit.rate.period_us, limit.rate.count)
    for earlier, later in itertools.pairwise(gone):
        assert later - earlier > interval - 1  # each moment is rounded up to a whole µs


@given(rates.map(TokenBucket), st.integers(1, 300))
def test_no_quota_is_lost_by_asking_at_the_earliest_moment(limit: TokenBucket, calls: int) -> None:
    """90 per minute sustains 90 per minute: n calls take exactly ceil((n - burst) intervals)."""
    now, state = NOW, None
    for _ in range(calls):
        now += limit.measure(state, now, 1)[2]
        state = limit.take(state, now, 1)
        assert state is not None
    late = max(0, calls - limit.capacity) * Fraction(limit.rate.period_us, limit.rate.count)
    assert now - NOW == -(-late.numerator // late.denominator)


# What it tells


@given(limits, steps, st.integers(1, 4))
def test_retry_is_exact_to_the_microsecond(limit: Limit, trace: Any, cost: int) -> None:
    cost = min(cost, limit.capacity)
    now, state = NOW, None
    for pause, some in trace:
        now += pause
        state = limit.take(state, now, min(some, limit.capacity)) or state
    retry = limit.measure(state, now, cost)[2]
    assert (retry == 0) == (limit.take(state, now, cost) is not None)
    if retry:
        assert limit.take(state, now + retry - 1, cost) is None
        assert limit.take(state, now + retry, cost) is not None


@given(limits, steps)
def test_reset_is_when_it_is_full_and_no_microsecond_earlier(limit: Limit, trace: Any) -> None:
    now, state = NOW, None
    for pause, cost in trace:
        now += pause
        state = limit.take(state, now, min(cost, limit.capacity)) or state
    reset = limit.measure(state, now, 1)[1]
    assert limit.measure(state, now + reset, 1) == (limit.capacity, 0, 0)
    assert limit.is_full(state, now + reset)
    if reset:
        assert not limit.is_full(state, now + reset - 1)


@given(limits, steps)
def test_remaining_is_what_could_still_be_taken(limit: Limit, trace: Any) -> None:
    now, state = NOW, None
    for pause, cost in trace:
        now += pause
        state = limit.take(state, now, min(cost, limit.capacity)) or state
    remaining = limit.measure(state, now, 1)[0]
    assert 0 <= remaining <= limit.capacity
    if remaining:
        assert limit.take(state, now, remaining) is not None
    if remaining < limit.capacity:
        assert limit.take(state, now, remaining + 1) is None


# What a refund gives back


@given(limits, steps, st.data())
def test_refunds_never_make_room_for_more_than_without_the_refunded_calls(limit: Limit, trace: Any, data: Any) -> None:
    """What is admitted and kept obeys the limit as if the refunded calls had never been."""
    now, state = NOW, None
    kept: list[tuple[int, int]] = []
    open_charges: list[tuple[int, int, Any]] = []
    for pause, cost in trace:
        now += pause
        if open_charges and data.draw(st.booleans()):
            charged_at, amount, charged = open_charges.pop(data.draw(st.integers(0, len(open_charges) - 1)))
            state = limit.give_back(state, now, amount, charged, charged_at)
            kept.remove((charged_at, amount))
            continue
        cost = min(cost, limit.capacity)
        after = limit.take(state, now, cost)
        if after is not None:
            state = after
            kept.append((now, cost))
            open_charges.append((now, cost, after))
    if isinstance(limit, TokenBucket):
        rate = Fraction(limit.rate.count, limit.rate.period_us)
        for i, (start, _) in enumerate(kept):
            total = 0
            for end, cost in kept[i:]:
                total += cost
                assert total <= limit.capacity + rate * (end - start)
    elif isinstance(limit, SlidingWindow):
        flat = [moment for moment, cost in kept for _ in range(cost)]
        for i, moment in enumerate(flat):
            assert bisect_right(flat, moment + limit.rate.period_us - 1) - i <= limit.capacity


@given(limits, st.integers(1, 4), st.integers(0, 10_000_000))
def test_a_refund_never_makes_more_than_full(limit: Limit, cost: int, pause: int) -> None:
    cost = min(cost, limit.capacity)
    charged = limit.take(None, NOW, cost)
    state = limit.give_back(charged, NOW + pause, cost, charged, NOW)
    assert limit.measure(state, NOW + pause, 1)[0] == limit.capacity
    assert limit.take(state, NOW + pause, limit.capacity) is not None


# A record that cannot be true


@given(limits, st.integers(1, 10**12))
def test_a_record_further_ahead_than_its_limit_allows_counts_as_full(limit: Limit, back: int) -> None:
    state = limit.take(None, NOW, limit.capacity)
    reset = limit.measure(state, NOW, 1)[1]
    then = NOW - back
    assert limit.measure(state, then, 1)[0] == limit.capacity
    assert limit.take(state, then, limit.capacity) is not None
    assert limit.measure(state, then, 1)[1] <= reset


# The value


def endless() -> list[Any]:
    """A list that contains itself."""
    limits: list[Any] = []
    limits.append(limits)
    return limits


def test_the_burst_is_the_capacity_and_the_count_without_one() -> None:
    assert TokenBucket("50/s").capacity == 50
    assert TokenBucket("50/s", burst=100).capacity == TokenBucket("50/s burst 100").capacity == 100
    assert TokenBucket("50/s", burst=100) == TokenBucket("50/s burst 100")
    assert LeakyBucket("5/s", queue=10).capacity == 11


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenBucket("5/"), "cannot read the limit '5/'"),
        (lambda: TokenBucket("0/s burst 5"), "a limit of zero has no burst"),
        (lambda: TokenBucket("0/s", burst=5), "a limit of zero has no burst"),
        (lambda: Limit("0/s"), "refuses every call"),
        (lambda: TokenBucket("5/s", burst=0), "burst must be a whole number of at least 1"),
        (lambda: TokenBucket("5/s", burst=float("nan")), "burst must be a whole number"),  # type: ignore[arg-type]
        (lambda: TokenBucket("5/s", burst=True), "burst must be a whole number"),
        (lambda: TokenBucket("5/s burst 6", burst=7), "the burst is given twice"),
        (lambda: TokenBucket(5), "a limit is a string such as"),  # type: ignore[arg-type]
        (lambda: TokenBucket("5/s", scope="everyone"), 'scope must be "user", "global" or "shared"'),  # type: ignore[arg-type]
        (lambda: TokenBucket("5/s", name=""), "the name of a limit is a string"),
        (lambda: LeakyBucket("5/s", queue=-1), "queue must be a whole number of at least 0"),
        (lambda: LeakyBucket("5/s burst 6"), "a LeakyBucket has no burst"),
        (lambda: SlidingWindow("5/s burst 6"), "a SlidingWindow has no burst"),
        (lambda: FixedWindow("5/s burst 6"), "a FixedWindow has no burst"),
        (lambda: TokenBucket("99999999999/ms"), "too fine or too deep"),
        (lambda: TokenBucket("1/60000d"), "too long to count exactly"),
        (lambda: TokenBucket("1/day burst 99999"), "too fine or too deep"),
        (lambda: as_limits([]), "an empty list limits nothing"),
        (lambda: as_limits(["5/s", "5/s"]), "the same limit stands twice"),
        (lambda: as_limits(None), "a limit is a string such as"),
        (lambda: as_limits(itertools.repeat("5/s")), "at most 100 limits"),
        (lambda: as_limits(f"{count}/s" for count in itertools.count(1)), "at most 100 limits"),
        (lambda: as_limits(endless()), "a limit is a string such as"),
        (lambda: as_limits(0), '"0/day" refuses every call'),
        (lambda: as_limits(60), 'write the period as well, "60/minute"'),
        (lambda: as_limits(5), "a limit is a string such as"),
        (lambda: as_limits(float("nan")), "a limit is a string such as"),
        (lambda: as_limits({"5/s": 1}), "a limit is a string such as"),
        (lambda: as_limits(["5/s", None]), "a limit is a string such as"),
    ],
)  # fmt: skip
def test_a_bad_limit_is_a_value_error_that_says_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [TokenBucket, LeakyBucket, FixedWindow, SlidingWindow])
def test_a_limit_is_a_frozen_value(kind: Any) -> None:
    limit = kind("7/s", name="burst", scope="shared")
    assert limit == kind("7/s", name="burst", scope="shared")
    assert hash(limit) == hash(kind("7/s", name="burst", scope="shared"))
    assert limit not in (
        kind("8/s", name="burst", scope="shared"),
        kind("7/s", scope="shared"),
        kind("7/s", name="burst"),
    )
    assert pickle.loads(pickle.dumps(limit)) == copy.deepcopy(limit) == limit
    with pytest.raises(FrozenInstanceError):
        limit.capacity = 9
    with pytest.raises(FrozenInstanceError):
        del limit.capacity


def test_kinds_of_the_same_rate_are_different_limits() -> None:
    assert len({TokenBucket("5/s"), LeakyBucket("5/s", queue=4), FixedWindow("5/s"), SlidingWindow("5/s")}) == 4


def test_a_limit_shows_how_it_is_written() -> None:
    assert str(TokenBucket("60/60s")) == "60/minute"
    assert repr(TokenBucket("50/s burst 100", scope="global")) == "TokenBucket(\"50/second burst 100\", scope='global')"
    assert TokenBucket("90/minute").period == 60.0
    assert TokenBucket("90/minute").count == 90


def test_a_nested_list_of_limits_is_flattened() -> None:
    assert as_limits(["5/s", [FixedWindow("9/h")]]) == (TokenBucket("5/s"), FixedWindow("9/h"))


@given(limits)
def test_an_integer_state_fits_the_doubles_that_redis_has(limit: Limit) -> None:
    assume(isinstance(limit, TokenBucket))
    state = limit.take(None, 4_102_444_800_000_000, limit.capacity)
    whole, fraction = divmod(state, limit.ticks)  # type: ignore[attr-defined]
    assert whole < 2**53
    assert fraction + limit.capacity * limit.ticks < 2**53  # type: ignore[attr-defined]
