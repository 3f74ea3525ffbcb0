"""Limits of every kind and short histories, drawn at random. Their arithmetic is tested without a store."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from asgi_ratelimit import FixedWindow, LeakyBucket, Quota, SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit, State
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
HUNDREDS: list[Limit] = [
    TokenBucket("100/minute"),
    LeakyBucket("100/minute", queue=99),
    FixedWindow("100/minute"),
    SlidingWindow("100/minute"),
    Quota("100/day"),
]
rates = st.sampled_from(AWKWARD) | st.builds(
    lambda count, period: str(Rate(count, period)), st.integers(1, 50), st.integers(1, 10_000_000)
)
plain_rates = rates.map(lambda text: text.partition(" burst")[0])

tokens = rates.map(TokenBucket)
queues = st.builds(lambda rate, queue: LeakyBucket(rate, queue=queue), plain_rates, st.integers(0, 20))
logs = plain_rates.filter(lambda rate: rate != "300000/s").map(SlidingWindow)
windows = plain_rates.map(FixedWindow)
limits: st.SearchStrategy[Limit] = st.one_of(tokens, queues, logs, windows)
quotas = st.builds(
    Quota,
    st.sampled_from(["1/day", "5/day", "7/week", "13/month", "9/year"]),
    tz=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"]),
    rollover=st.sampled_from([0.0, 0.37, 1.0]),
)
steps = st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(1, 4)), min_size=1, max_size=60)  # µs, cost


def played(limit: Limit, trace: list[tuple[int, int]], begin: int = NOW) -> tuple[int, State]:
    """The moment at the end of a trace of (pause, cost), and the state of the bucket."""
    now, state = begin, None
    for pause, cost in trace:
        now += pause
        after = limit.take(state, now, min(cost, limit.capacity))
        state = state if after is None else after
    return now, state


def admitted(limit: Limit, trace: Any) -> list[tuple[int, int]]:
    """When how much of a trace of (pause, cost) was admitted."""
    now, state, passed = NOW, None, []
    for pause, cost in trace:
        now += pause
        after = limit.take(state, now, min(cost, limit.capacity))
        if after is not None:
            state = after
            passed.append((now, min(cost, limit.capacity)))
    return passed
