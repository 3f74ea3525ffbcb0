"""Over any span the calls cost no more than the limit lets pass and the overages of the calls that were in flight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asgi_ratelimit import Decision, FixedWindow, LeakyBucket, MemoryStore, SlidingWindow, TokenBucket
from asgi_ratelimit.decision import Policy
from asgi_ratelimit.limits import Limit, Quota
from asgi_ratelimit.testing import ManualClock
from tests.support.traces import changed

LIMITS: list[Limit] = [
    TokenBucket("7/s"),
    TokenBucket("100/minute", burst=13),
    LeakyBucket("7/s", queue=9),
    FixedWindow("10/5s"),
    SlidingWindow("10/5s"),
    Quota("10/day", tz="America/St_Johns"),
    Quota("10/week", rollover=0.0, starts="friday"),
]
START = 1_700_000_000.0


@dataclass
class Call:
    cost: int
    used: int
    decision: Decision
    is_settled: bool = False


class Total(NamedTuple):
    """After a call was allowed: when, and what all calls have cost until then. Those in flight cost their charge."""

    at_us: int
    cost: int


Step = tuple[str, int, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(1, 6), st.integers(0, 12)),  # its cost, and what it costs in the end
        st.tuples(st.just("settle"), st.integers(0, 5), st.just(0)),  # which of those in flight
        st.tuples(st.just("pass"), st.sampled_from([0, 1, 333_333, 1_000_003, 7_777_777, 50_000_000_000]), st.just(0)),
    ),
    min_size=4,
    max_size=60,
)


def played(versions: list[Limit], steps: list[Step]) -> list[Total]:
    """The totals, by the limits in turn. Overages that no bucket can owe in full are not looked at."""
    clock = ManualClock(START)
    store = MemoryStore(clock=clock)
    opened = [store.open("budget", [Policy("budget", limit)]) for limit in versions]
    calls: list[Call] = []
    totals: list[Total] = []
    for number, (word, one, other) in enumerate(steps):
        buckets, in_flight = opened[number % len(opened)], [call for call in calls if not call.is_settled]
        if word == "pass":
            clock.advance(one / 1e6)
        elif word == "settle" and in_flight:
            call = in_flight[one % len(in_flight)]
            assume(buckets.settle(call.decision, call.used) is None)
            call.is_settled = True
        elif word == "call" and (decision := buckets.decide("a", one, "")).allowed:
            calls.append(Call(one, other, decision))
            totals.append(Total(clock.now_us(), sum(call.used if call.is_settled else call.cost for call in calls)))
    return totals


def most(limit: Limit, since_us: int, until_us: int) -> int:
    """What the limit lets pass, from its first call on."""
    if isinstance(limit, TokenBucket):
        return limit.capacity + (until_us - since_us) * limit.ticks // limit.interval
    if isinstance(limit, Quota):
        calendar, periods = limit.calendar, 1
        while calendar.around(since_us)[3] <= until_us:
            since_us, periods = calendar.around(since_us)[3], periods + 1
        return limit.capacity * periods
    return limit.capacity * (1 + (until_us - since_us) // limit.rate.period_us)


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_no_overage_is_forgiven(limit: Limit) -> None:
    """When a call is allowed, all before it have paid. Only those in flight may cost more in the end."""
    reached = 0

    @settings(max_examples=400)
    @given(STEPS)
    def costs_are_bounded(steps: list[Step]) -> None:
        nonlocal reached
        totals = played([limit], steps)
        for total in totals:
            bound = most(limit, totals[0].at_us, total.at_us)
            assert total.cost <= bound
            reached += total.cost == bound

    costs_are_bounded()
    assert reached, "no trace came to the bound"


@pytest.mark.parametrize("limit", [one for one in LIMITS if one.capacity == one.rate.count], ids=str)
def test_a_limit_that_changes_lets_no_more_pass_than_the_largest(limit: Limit) -> None:
    versions = [limit, *changed([limit], 2), *changed([limit], 4)]

    @settings(max_examples=400)
    @given(STEPS)
    def no_more_passes(steps: list[Step]) -> None:
        totals = played(versions, steps)
        for total in totals:
            assert total.cost <= max(most(each, totals[0].at_us, total.at_us) for each in versions)

    no_more_passes()
