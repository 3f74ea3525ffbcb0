"""Windows: the count in any period, or in one that opens with its first request."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import FixedWindow, SlidingWindow
from asgi_ratelimit.limits import Limit
from tests.support.limits import NOW, admitted, logs, played, steps, windows

calls = st.lists(st.tuples(st.integers(-3_000_000, 3_000_000), st.integers(1, 60), st.booleans()), max_size=20)


@given(logs, steps)
def test_a_sliding_window_never_admits_more_than_the_count_in_any_period(limit: SlidingWindow, trace: Any) -> None:
    passed = [moment for moment, cost in admitted(limit, trace) for _ in range(cost)]
    for i, moment in enumerate(passed):
        assert bisect_right(passed, moment + limit.rate.period_us - 1) - i <= limit.capacity


@given(windows, steps)
def test_a_fixed_window_opens_with_its_first_request_and_admits_the_count(limit: FixedWindow, trace: Any) -> None:
    opened, used = None, 0
    for moment, cost in admitted(limit, trace):
        if opened is None or moment >= opened + limit.rate.period_us:
            opened, used = moment, 0
        used += cost
        assert used <= limit.capacity


# A limit that changes, and a charge that is settled


@pytest.mark.parametrize("kind", [FixedWindow, SlidingWindow])
def test_a_window_keeps_its_count_when_the_limit_changes(kind: type[Limit]) -> None:
    small, large = kind("10/minute"), kind("100/minute")
    state = small.take(None, NOW, 10)
    assert large.measure(state, NOW, 1)[0] == 90
    state = large.take(state, NOW, 30)
    assert small.measure(state, NOW, 1)[0] == 0
    assert small.measure(state, NOW, 1)[2] == 60_000_000
    assert large.measure(state, NOW, 1)[0] == 60


@pytest.mark.parametrize("kind", [FixedWindow, SlidingWindow])
def test_a_limit_that_shrinks_makes_no_debt(kind: type[Limit]) -> None:
    small, large = kind("10/minute"), kind("100/minute")
    state = large.take(None, NOW, 100)
    assert small.cut(state, NOW) is state
    assert small.measure(state, NOW, 10)[2] == 60_000_000
    assert small.measure(state, NOW + 60_000_000, 1) == (10, 0, 0)
    assert small.is_full(state, NOW + 60_000_000)


def test_a_debt_of_a_larger_window_is_at_most_one_capacity_of_the_smaller_one() -> None:
    small, large = FixedWindow("10/minute"), FixedWindow("100/minute")
    state, _ = large.owe(large.take(None, NOW, 100), NOW, 70)
    end = NOW + 60_000_000
    assert large.measure(state, end, 1)[0] == 30
    assert small.measure(state, end, 1) == (0, 60_000_000, 60_000_000)
    assert small.measure(state, NOW, 1)[2] == 120_000_000


@pytest.mark.parametrize("kind", [FixedWindow, SlidingWindow])
def test_a_window_of_zero_keeps_what_was_used(kind: type[Limit]) -> None:
    limit, zero = kind("10/minute"), kind("0/minute")
    state = limit.take(None, NOW, 10)
    assert zero.take(state, NOW, 1) is None
    assert zero.cut(state, NOW) is state
    assert zero.measure(state, NOW, 1) == (0, 60_000_000, 60_000_000)
    assert limit.measure(state, NOW, 1)[0] == 0


@pytest.mark.parametrize("kind", [FixedWindow, SlidingWindow])
def test_a_part_of_a_charge_is_given_back_while_it_counts(kind: type[Limit]) -> None:
    limit = kind("10/minute")
    charged = limit.take(limit.take(None, NOW, 2), NOW + 1, 6)
    half = limit.give_back(charged, NOW + 1_000_000, 4, charged, NOW + 1)
    assert limit.measure(half, NOW + 1_000_000, 1)[0] == 6
    late = NOW + 60_000_001
    assert limit.measure(limit.give_back(charged, late, 4, charged, NOW + 1), late, 1)[0] == 10
    fresh = limit.take(charged, late, 10)
    assert limit.measure(limit.give_back(fresh, late, 4, charged, NOW + 1), late, 1)[0] == 0


def test_what_is_given_back_pays_the_debt_of_the_window_first() -> None:
    limit: Limit = FixedWindow("10/minute")
    charged = limit.take(None, NOW, 8)
    owing, _ = limit.owe(charged, NOW, 7)
    assert limit.measure(owing, NOW + 60_000_000, 1)[0] == 5
    paid = limit.give_back(owing, NOW, 3, charged, NOW)
    assert limit.measure(paid, NOW, 1)[0] == 0
    assert limit.measure(paid, NOW + 60_000_000, 1)[0] == 8
    paid = limit.give_back(owing, NOW, 8, charged, NOW)
    assert limit.measure(paid, NOW, 1)[0] == 3
    assert limit.measure(paid, NOW + 60_000_000, 1) == (10, 0, 0)


@given(logs, steps, calls)
def test_a_log_is_in_order_and_no_longer_than_two_capacities(limit: SlidingWindow, trace: Any, more: Any) -> None:
    now, state = played(limit, trace)
    for pause, cost, owes in more:
        now += pause
        after = limit.owe(state, now, cost)[0] if owes else limit.take(state, now, cost)
        state = state if after is None else after
        assert list(state or ()) == sorted(state or ())
        assert len(state or ()) <= 2 * limit.capacity
