"""Limits that change keep their buckets: over any span no more passes than the largest of them would let pass."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import FixedWindow, LeakyBucket, Limit, MemoryStore, Quota, SlidingWindow, TokenBucket
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock

MAKERS: dict[str, Callable[[int], Limit]] = {
    "TokenBucket": lambda count: TokenBucket(f"{count}/minute"),
    "burst": lambda count: TokenBucket(f"{count}/minute", burst=2 * count),
    "LeakyBucket": lambda count: LeakyBucket(f"{count}/minute", queue=count - 1),
    "FixedWindow": lambda count: FixedWindow(f"{count}/minute"),
    "SlidingWindow": lambda count: SlidingWindow(f"{count}/minute"),
    "Quota": lambda count: Quota(f"{count}/day"),
}
kinds = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
COUNTS = (3, 7, 10, 11, 20)


def plans(make: Callable[[int], Limit], clock: ManualClock, counts: tuple[int, ...]) -> list[SyncLimiter]:
    """Limiters of one name, as a limit function makes them."""
    store = MemoryStore(clock=clock)
    return [SyncLimiter(make(count), store=store, name="plan") for count in counts]


@kinds
def test_an_adaptive_limit_lets_no_more_pass_than_the_largest(clock: ManualClock, make: Any) -> None:
    limiters = plans(make, clock, tuple(range(100, 200)))
    passed = sum(limiter.try_acquire("ada").allowed for limiter in limiters * 30)
    assert 100 <= passed <= limiters[-1].capacity


@kinds
def test_a_user_who_toggles_his_plan_gets_no_fresh_bucket(clock: ManualClock, make: Any) -> None:
    free, paid = plans(make, clock, (10, 100))
    passed = sum(limiter.try_acquire("ada").allowed for limiter in (free, paid) * 500)
    assert 10 <= passed <= paid.capacity
    assert not free.try_acquire("ada").allowed


steps = st.lists(
    st.tuples(st.integers(0, len(COUNTS) - 1), st.integers(0, 20_000_000), st.integers(1, 3)), min_size=1, max_size=60
)


@pytest.mark.parametrize("kind", ["TokenBucket", "burst", "LeakyBucket"])
@given(trace=steps)
def test_over_any_span_no_more_passes_than_the_largest_burst_and_rate(kind: str, trace: Any) -> None:
    clock = ManualClock()
    limiters = plans(MAKERS[kind], clock, COUNTS)
    largest, passed = limiters[-1], []
    for which, pause, cost in trace:
        clock.advance(pause / 1e6)
        if limiters[which].try_acquire("ada", cost).allowed:
            passed.append((clock.now_us(), cost))
    rate = Fraction(COUNTS[-1], 60_000_000)
    for place, (start, _) in enumerate(passed):
        total = 0
        for end, cost in passed[place:]:
            total += cost
            assert total <= largest.capacity + rate * (end - start)


@given(trace=steps)
def test_in_any_period_no_more_passes_than_the_largest_sliding_window(trace: Any) -> None:
    clock = ManualClock()
    limiters = plans(MAKERS["SlidingWindow"], clock, COUNTS)
    passed: list[int] = []
    for which, pause, cost in trace:
        clock.advance(pause / 1e6)
        if limiters[which].try_acquire("ada", cost).allowed:
            passed += [clock.now_us()] * cost
            assert sum(moment > clock.now_us() - 60_000_000 for moment in passed) <= limiters[which].capacity


@kinds
def test_a_limit_that_shrinks_is_open_again_after_one_refill(clock: ManualClock, make: Any) -> None:
    small, large = plans(make, clock, (10, 100))
    while large.try_acquire("ada").allowed:
        pass
    refused = small.try_acquire("ada")
    assert (refused.allowed, refused.remaining) == (False, 0)
    clock.advance(refused.retry_after)
    assert small.try_acquire("ada").allowed
    assert refused.retry_after <= small.limits[0].window_us / 1e6


@pytest.mark.parametrize("make", [FixedWindow, SlidingWindow])
def test_the_next_window_of_a_limit_that_shrinks_is_a_full_one(clock: ManualClock, make: Any) -> None:
    small, large = plans(lambda count: make(f"{count}/minute"), clock, (10, 100))
    large.try_acquire("ada", 100)
    assert not small.try_acquire("ada").allowed
    clock.advance(60)
    assert small.try_acquire("ada", 10).allowed


def test_the_record_of_a_key_is_one_whatever_limit_has_used_it() -> None:
    clock = ManualClock()
    limiters = plans(MAKERS["TokenBucket"], clock, (7, 11, 13, 7))
    for limiter in limiters * 2:
        limiter.try_acquire("ada")
    store = limiters[0].store
    assert isinstance(store, MemoryStore)
    assert len(store) == 1
    limiters[1].reset("ada")
    assert len(store) == 0
    assert limiters[2].peek("ada").remaining == 13


def test_a_full_store_knows_the_keys_of_a_limit_that_has_changed() -> None:
    store = MemoryStore(max_keys=2, clock=ManualClock())
    one, other = (SyncLimiter(f"{count}/h", store=store, name="plan") for count in (7, 11))
    for key in ("ada", "bob"):
        one.try_acquire(key, 7)
    assert [other.try_acquire(key).allowed for key in ("ada", "bob")] == [False, False]
    assert len(store) == 2


def test_a_limit_made_anew_for_each_call_is_found_again_after_the_first_is_gone() -> None:
    store = MemoryStore(clock=ManualClock())
    passed = 0
    for number in range(3_000):
        passed += SyncLimiter(f"{100 + number % 50}/h", store=store, name="plan").try_acquire("ada").allowed
    assert passed <= 149
    assert len(store) == 1
