"""The arithmetic that every kind of limit has: exact to the microsecond."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit
from tests.support.limits import NOW, limits, played, steps

# A decision


@given(limits, steps, st.integers(1, 4))
def test_retry_is_exact_to_the_microsecond(limit: Limit, trace: Any, cost: int) -> None:
    cost = min(cost, limit.capacity)
    now, state = played(limit, trace)
    retry = limit.measure(state, now, cost)[2]
    assert (retry == 0) == (limit.take(state, now, cost) is not None)
    if retry:
        assert limit.take(state, now + retry - 1, cost) is None
        assert limit.take(state, now + retry, cost) is not None


@given(limits, steps)
def test_reset_is_when_it_is_full_and_no_microsecond_earlier(limit: Limit, trace: Any) -> None:
    now, state = played(limit, trace)
    reset = limit.measure(state, now, 1)[1]
    assert limit.measure(state, now + reset, 1) == (limit.capacity, 0, 0)
    assert limit.is_full(state, now + reset)
    if reset:
        assert not limit.is_full(state, now + reset - 1)


@given(limits, steps)
def test_remaining_is_what_could_still_be_taken(limit: Limit, trace: Any) -> None:
    now, state = played(limit, trace)
    remaining = limit.measure(state, now, 1)[0]
    assert 0 <= remaining <= limit.capacity
    if remaining:
        assert limit.take(state, now, remaining) is not None
    if remaining < limit.capacity:
        assert limit.take(state, now, remaining + 1) is None


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
