"""What a call costs beyond its charge is owed: exactly, down to one more capacity below empty, in every kind."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asgi_ratelimit import FixedWindow, LeakyBucket, Quota, SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit, State
from tests.support.limits import HUNDREDS, NOW, limits, logs, played, queues, quotas, steps, tokens

ANY = limits | quotas.filter(lambda quota: not quota.rollover)


@given(ANY)
def test_an_empty_bucket_owes_one_more_capacity_and_no_more(limit: Limit) -> None:
    empty = limit.take(None, NOW, limit.capacity)
    owing, is_cut = limit.owe(empty, NOW, limit.capacity)
    assert not is_cut
    assert limit.owe(owing, NOW, 1) == (owing, True)
    assert limit.owe(empty, NOW, limit.capacity + 1) == (owing, True)
    assert limit.owe(empty, NOW, 10**9) == (owing, True)


@given(ANY, steps, st.integers(1, 400))
def test_a_debt_leaves_nothing_and_its_wait_is_exact_to_the_microsecond(limit: Limit, trace: Any, cost: int) -> None:
    now, state = played(limit, trace)
    before = limit.measure(state, now, 1)[0]
    state, is_cut = limit.owe(state, now, cost)
    remaining, reset, retry = limit.measure(state, now, 1)
    assert remaining == max(0, before - cost)
    assert is_cut or cost <= before + limit.capacity
    assert retry <= reset
    if cost >= before:
        assert retry > 0
    for wanted in {1, limit.capacity}:
        retry = limit.measure(state, now, wanted)[2]
        assert (retry == 0) == (limit.take(state, now, wanted) is not None)
        if retry:
            assert limit.take(state, now + retry - 1, wanted) is None
            assert limit.take(state, now + retry, wanted) is not None


@given(limits, steps, st.integers(1, 400))
def test_a_debt_is_full_again_after_its_reset_and_no_microsecond_earlier(limit: Limit, trace: Any, cost: int) -> None:
    now, state = played(limit, trace)
    state, _ = limit.owe(state, now, cost)
    reset = limit.measure(state, now, 1)[1]
    assert limit.measure(state, now + reset, 1) == (limit.capacity, 0, 0)
    assert limit.measure(state, now + reset - 1, 1)[1:] != (0, 0)
    assert limit.is_full(state, now + reset)
    assert not limit.is_full(state, now + reset - 1)


@given(limits, steps, st.integers(1, 20), st.integers(1, 20))
def test_what_is_owed_in_parts_is_owed_as_at_once(limit: Limit, trace: Any, one: int, other: int) -> None:
    now, state = played(limit, trace)
    once, _ = limit.owe(state, now, one + other)
    state, _ = limit.owe(state, now, one)
    assert limit.owe(state, now, other)[0] == once


@given(limits, steps, st.integers(1, 400))
def test_owing_what_would_have_been_allowed_is_a_charge(limit: Limit, trace: Any, cost: int) -> None:
    now, state = played(limit, trace)
    remaining = limit.measure(state, now, 1)[0]
    assume(remaining)
    cost = min(cost, remaining)
    assert limit.owe(state, now, cost) == (limit.take(state, now, cost), False)


@pytest.mark.parametrize("limit", HUNDREDS, ids=repr)
def test_more_than_the_capacity_costs_more_than_a_refill(limit: Limit) -> None:
    """Reserved 10, used 150 of 100: the debt is 50."""
    state, is_cut = limit.owe(limit.take(None, NOW, 10), NOW, 140)
    assert not is_cut
    end = limit.measure(limit.take(None, NOW, 1), NOW, 1)[1]
    expected = {
        TokenBucket: (30_600_000, 90_000_000),  # 51 tokens of 0.6 s each, and 150 until it is full
        LeakyBucket: (30_600_000, 90_000_000),
        FixedWindow: (60_000_000, 120_000_000),  # half of the next window is used
        SlidingWindow: (60_000_000, 120_000_000),
        Quota: (end, end + 86_400_000_000),
    }
    assert (limit.measure(state, NOW, 1)[2], limit.measure(state, NOW, 1)[1]) == expected[type(limit)]


@pytest.mark.parametrize("limit", [FixedWindow("100/minute"), SlidingWindow("100/minute"), Quota("100/day")], ids=repr)
def test_the_next_window_begins_with_the_debt_and_the_one_after_it_without(limit: Limit) -> None:
    state, _ = limit.owe(limit.take(None, NOW, 10), NOW, 140)
    end = NOW + limit.measure(limit.take(None, NOW, 1), NOW, 1)[2] + limit.measure(state, NOW, 1)[2]
    assert limit.take(state, end - 1, 1) is None
    assert limit.measure(state, end, 1)[0] == 50
    assert limit.take(state, end, 51) is None
    state = limit.take(state, end, 50)
    assert limit.measure(state, end, 1)[0] == 0
    assert limit.measure(state, end + limit.measure(state, end, 1)[1], 1)[0] == 100


@given(limits, st.lists(st.tuples(st.integers(0, 2_000_000), st.integers(1, 5), st.integers(0, 12)), max_size=30))
def test_no_debt_is_forgotten_by_a_refund_of_another_call(limit: Limit, trace: Any) -> None:
    """A call that gives back leaves at least what all the others have used."""
    now, state = NOW, None
    for pause, cost, owed in trace:
        now += pause
        cost = min(cost, limit.capacity)
        charged = limit.take(state, now, cost)
        with_debt, _ = limit.owe(charged if charged is not None else state, now, owed)
        if charged is None:
            state = with_debt
            continue
        without = limit.owe(state, now, owed)[0] if owed else state
        state = limit.give_back(with_debt, now, cost, charged, now)
        assert limit.measure(state, now, 1)[0] <= limit.measure(without, now, 1)[0]


# The bound: over any span, what is booked is at most the burst and the rate times the span

calls = st.lists(st.tuples(st.integers(0, 2_000_000), st.integers(1, 6), st.integers(0, 9), st.booleans()), max_size=40)


def settled_history(limit: Limit, trace: Any) -> list[tuple[int, list[tuple[int, int]]]]:
    """For each admission its moment, and when the calls up to it were charged how much, settlements so far included."""
    now, state, admissions = NOW, None, []
    booked: list[list[int]] = []
    unsettled: list[tuple[list[int], int, State]] = []
    for pause, cost, used, settles in trace:
        now += pause
        if settles and unsettled:
            call, charged_at, charged = unsettled.pop(0)
            if used < call[1]:
                state = limit.give_back(state, now, call[1] - used, charged, charged_at)
                call[1] = used
            elif used > call[1]:
                state, is_cut = limit.owe(state, now, used - call[1])
                call[1] = used if not is_cut else call[1]
            continue
        cost = min(cost, limit.capacity)
        after = limit.take(state, now, cost)
        if after is not None:
            state = after
            booked.append([now, cost])
            unsettled.append((booked[-1], now, after))
            admissions.append((now, [(moment, amount) for moment, amount in booked]))
    return admissions


@given(tokens | queues, calls)
def test_what_is_settled_stays_within_burst_plus_rate_times_span(limit: TokenBucket, trace: Any) -> None:
    rate = Fraction(limit.rate.count, limit.rate.period_us)
    for end, booked in settled_history(limit, trace):
        total = 0
        for start, cost in reversed(booked):
            total += cost
            assert total <= limit.capacity + rate * (end - start)


@given(logs, calls)
def test_what_is_settled_in_any_period_stays_within_the_count(limit: SlidingWindow, trace: Any) -> None:
    for end, booked in settled_history(limit, trace):
        first = bisect_right([moment for moment, _ in booked], end - limit.rate.period_us)
        assert sum(cost for _, cost in booked[first:]) <= limit.capacity
