"""Token buckets and leaky buckets: never generous, never stingy, and exact for any rate."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import LeakyBucket, TokenBucket
from asgi_ratelimit.limits import Limit, State
from tests.support.limits import NOW, admitted, played, queues, steps, tokens


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
    state: State = limit.take(None, 4_102_444_800_000_000, limit.capacity)
    whole, fraction = divmod(state, limit.ticks)
    assert whole < 2**53
    assert fraction + limit.capacity * limit.ticks < 2**53


# A limit that changes


def in_us(limit: TokenBucket, state: Any) -> Fraction:
    """The moment at which the bucket is full again, exactly."""
    return Fraction(state, limit.ticks)


@given(st.tuples(tokens, tokens) | st.just((TokenBucket("7/s"), TokenBucket("11/s"))), steps, st.integers(0, 20))
def test_a_change_of_the_rate_to_and_fro_never_gains_and_loses_less_than_a_microsecond(
    pair: tuple[TokenBucket, TokenBucket], trace: Any, times: int
) -> None:
    now, state = played(pair[0], trace)
    moment = in_us(pair[0], state)
    for number in range(times):
        old, new = pair[number % 2], pair[(number + 1) % 2]
        state = new.adopt(state, old.ticks)
        assert moment <= in_us(new, state) < moment + 1
    used: State = pair[0].take(None, now, 1)
    assert in_us(pair[0], used) <= pair[0].in_microseconds(used) < in_us(pair[0], used) + 1  # type: ignore[operator]


def test_what_is_used_is_kept_in_proportion() -> None:
    small, large = TokenBucket("100/hour"), TokenBucket("1000/hour")
    used = small.take(None, NOW, 75)
    assert large.measure(large.adopt(used, small.ticks), NOW, 1)[0] == 250
    used = large.take(None, NOW, 750)
    assert small.measure(small.adopt(used, large.ticks), NOW, 1)[0] == 25


def test_a_smaller_burst_lets_a_caller_wait_for_one_refill_and_not_for_the_larger_one() -> None:
    large, small = TokenBucket("60/minute burst 600"), TokenBucket("60/minute")
    used = large.take(None, NOW, 600)
    assert small.measure(used, NOW, 1) == (0, 60_000_000, 1_000_000)
    assert small.cut(used, NOW) == NOW + 60_000_000


def test_a_limit_of_zero_keeps_what_was_used_of_the_one_before_it() -> None:
    limit, zero = TokenBucket("7/s burst 70"), TokenBucket("0/s")
    used = limit.take(None, NOW, 70)
    kept = zero.adopt(used, limit.ticks)
    assert zero.take(kept, NOW, 1) is None
    assert zero.cut(kept, NOW) is kept
    assert limit.measure(limit.adopt(kept, zero.ticks), NOW, 1)[0] == 0


@given(tokens | queues, st.integers(1, 4), st.integers(0, 4), st.integers(0, 5_000_000))
def test_less_is_given_back_than_has_flowed_back_or_was_charged(
    limit: TokenBucket, cost: int, used: int, pause: int
) -> None:
    cost = min(cost, limit.capacity)
    used = min(used, cost)
    charged: State = limit.take(None, NOW, cost)
    now = NOW + pause
    before = in_us(limit, charged) - now
    state = limit.give_back(charged, now, cost - used, charged, NOW)
    after = 0 if state is None else in_us(limit, state) - now
    unused = (cost - used) * Fraction(limit.interval, limit.ticks)
    assert after == max(Fraction(0), before - min(unused, max(Fraction(0), before)))


def test_a_place_in_the_middle_of_a_queue_is_not_given_back() -> None:
    limit: Limit = LeakyBucket("1/s", queue=9)
    first = limit.take(None, NOW, 2)
    second = limit.take(first, NOW, 2)
    assert limit.give_back(second, NOW, 1, first, NOW) == second
    assert limit.measure(limit.give_back(second, NOW, 1, second, NOW), NOW, 1)[0] == 7
