"""Token buckets and leaky buckets: never generous, never stingy, and exact for any rate."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import LeakyBucket, TokenBucket
from tests.support.limits import NOW, admitted, queues, rates, steps, tokens


@given(tokens, steps)
def test_a_token_bucket_never_admits_more_than_burst_plus_rate_times_span(limit: TokenBucket, trace: Any) -> None:
    passed = admitted(limit, trace)
    rate = Fraction(limit.rate.count, limit.rate.period_us)
    for i, (start, _) in enumerate(passed):
        total = 0
        for end, cost in passed[i:]:
            total += cost
            assert total <= limit.capacity + rate * (end - start)


@given(queues, steps)
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


@given(tokens, st.integers(1, 300))
def test_no_quota_is_lost_by_asking_at_the_earliest_moment(limit: TokenBucket, calls: int) -> None:
    """90 per minute sustains 90 per minute: n calls take exactly ceil((n - burst) intervals)."""
    now, state = NOW, None
    for _ in range(calls):
        now += limit.measure(state, now, 1)[2]
        state = limit.take(state, now, 1)
        assert state is not None
    late = max(0, calls - limit.capacity) * Fraction(limit.rate.period_us, limit.rate.count)
    assert now - NOW == -(-late.numerator // late.denominator)


def test_the_burst_is_the_capacity_and_the_count_without_one() -> None:
    assert TokenBucket("50/s").capacity == 50
    assert TokenBucket("50/s", burst=100).capacity == TokenBucket("50/s burst 100").capacity == 100
    assert TokenBucket("50/s", burst=100) == TokenBucket("50/s burst 100")
    assert LeakyBucket("5/s", queue=10).capacity == 11


@given(tokens | queues)
def test_an_integer_state_fits_the_doubles_that_redis_has(limit: TokenBucket) -> None:
    state = limit.take(None, 4_102_444_800_000_000, limit.capacity)
    whole, fraction = divmod(state, limit.ticks)
    assert whole < 2**53
    assert fraction + limit.capacity * limit.ticks < 2**53
