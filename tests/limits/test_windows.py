"""Windows: the count in any period, or in one that opens with its first request."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from hypothesis import given

from asgi_ratelimit import FixedWindow, SlidingWindow
from tests.support.limits import admitted, logs, steps, windows


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
