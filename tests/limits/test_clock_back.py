"""A clock that has gone back: a bucket is not full for that, and no caller waits longer than one refill more.

That is one more than in an empty bucket, since a record that is ahead may be a debt.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import FixedWindow, LeakyBucket, Quota, SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit
from tests.support.limits import NOW, limits, played, quotas, steps

ANY = limits | quotas
BACK = st.integers(1, 10**7) | st.integers(1, 10**12) | st.integers(1, 10**14)
DEBTS = st.integers(0, 60)


@given(ANY, steps, DEBTS, BACK)
def test_it_hands_nothing_out_and_locks_no_caller_out(limit: Limit, trace: Any, debt: int, back: int) -> None:
    now, state = played(limit, trace)
    state = limit.owe(state, now, debt)[0] if debt else state
    then = now - back
    empty = limit.take(None, then, limit.capacity)
    for cost in {1, limit.capacity}:
        before, after = limit.measure(state, now, cost), limit.measure(state, then, cost)
        assert after[0] <= before[0]
        assert after[2] <= max(before[2], limit.measure(empty, then, cost)[2]) + limit.window_us
        assert (after[2] == 0) == (limit.take(state, then, cost) is not None)


@given(ANY, steps, DEBTS, BACK)
def test_a_record_that_is_cut_says_what_it_said_before_and_then_runs_out(
    limit: Limit, trace: Any, debt: int, back: int
) -> None:
    now, state = played(limit, trace)
    state = limit.owe(state, now, debt)[0] if debt else state
    then = now - back
    cut = limit.cut(state, then)
    assert limit.cut(cut, then) is cut
    for cost in {1, limit.capacity}:
        remaining, _, wait = limit.measure(state, then, cost)
        assert limit.measure(cut, then, cost) == limit.measure(state, then, cost)
        assert (limit.take(cut, then, cost) is None) == (wait > 0)
        if wait:
            assert limit.take(cut, then + wait - 1, cost) is None
        assert limit.take(cut, then + wait, cost) is not None
        assert remaining <= limit.capacity or isinstance(limit, Quota)  # a rollover may be in addition


@given(ANY, steps)
def test_a_record_of_the_present_is_believed(limit: Limit, trace: Any) -> None:
    now, state = played(limit, trace)
    assert limit.cut(state, now) is state


@pytest.mark.parametrize(
    ("limit", "wait_s"),
    [
        (TokenBucket("60/minute"), 1.0),
        (TokenBucket("60/minute burst 300"), 1.0),
        (LeakyBucket("60/minute", queue=59), 1.0),
        (FixedWindow("60/minute"), 60.0),
        (SlidingWindow("60/minute"), 60.0),
    ],
    ids=repr,
)
def test_a_used_bucket_from_far_ahead_is_empty(limit: Limit, wait_s: float) -> None:
    state = limit.take(None, NOW, limit.capacity)
    then = NOW - 3_600_000_000
    assert limit.measure(state, then, 1)[0] == 0
    assert limit.measure(state, then, 1)[2] == wait_s * 1e6


@given(ANY, st.integers(1, 4), BACK)
def test_a_refund_after_it_gives_back_no_more_than_was_charged(limit: Limit, cost: int, back: int) -> None:
    cost = min(cost, limit.capacity)
    used = limit.take(None, NOW, limit.capacity)
    room = limit.capacity - cost
    charged = used if not room else limit.take(limit.take(None, NOW, room), NOW, cost)
    then = NOW - back
    state = limit.give_back(charged, then, cost, charged, NOW)
    assert limit.measure(state, then, 1)[0] <= cost


def test_a_debt_from_far_ahead_is_cut_to_an_empty_bucket() -> None:
    limit = TokenBucket("60/minute")
    state, _ = limit.owe(limit.take(None, NOW, 60), NOW, 60)
    assert limit.measure(state, NOW, 1)[2] == 61_000_000
    assert limit.measure(state, NOW - 1, 1)[2] == 1_000_000
    assert limit.cut(state, NOW - 1) == NOW - 1 + 60_000_000
