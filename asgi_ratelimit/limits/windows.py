"""Limits that count within a window: FixedWindow and SlidingWindow."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from struct import unpack
from typing import Any, ClassVar

from asgi_ratelimit.limits.base import SHIPPED, Limit, Measure, Outage, Scope
from asgi_ratelimit.limits.counted import Counted, Use
from asgi_ratelimit.rate import Rate, parse_rate

__all__ = ["FixedWindow", "SlidingWindow"]

Log = tuple[int, ...]  # the moments of the calls that count, in order; those of a debt are in the future


class _Window(Limit):
    """The options that both kinds of window have."""

    counts_to_zero: ClassVar[bool] = True

    def __init__(
        self,
        rate: str | Rate,
        *,
        name: str | None = None,
        scope: Scope = "user",
        outage: Outage | None = None,
        enforce: bool = True,
        unit: str | None = None,
    ) -> None:
        rate = parse_rate(rate)
        if rate.burst is not None:
            kind = type(self).__name__
            raise ValueError(f'a {kind} has no burst: write {kind}("{rate.plain}") or TokenBucket("{rate}")')
        Limit.__init__(self, rate, name=name, scope=scope, outage=outage, enforce=enforce, unit=unit)


class FixedWindow(_Window, Counted):
    """`count` in a window that opens with its first request: how Discord's own buckets began.

    The state is that of every Counted limit. Twice the count may pass around the end of a window. A debt at its
    end is the use of a window that opens at that moment.
    """

    def present(self, state: Use | None, now_us: int) -> Use | None:
        if state is None:
            return None
        end, used, debt, extra = state
        period_us = self.rate.period_us
        if end > now_us:
            return (min(end, now_us + period_us), used, debt, extra)
        owed = self.owed(state)
        return (end + period_us, owed, owed, 0) if owed and end + period_us > now_us else None

    def fresh(self, now_us: int) -> Use:
        return (now_us + self.rate.period_us, 0, 0, 0)

    def take(self, state: Use | None, now_us: int, cost: int) -> Use | None:
        if state is None or not now_us < state[0] <= now_us + self.rate.period_us:
            return Counted.take(self, state, now_us, cost)
        end, used, debt, extra = state  # by far the most common case
        return (end, used + cost, debt, extra) if used + cost <= self.capacity + extra else None

    def cut(self, state: Use | None, now_us: int) -> Use | None:
        if state is None or state[0] <= now_us + self.rate.period_us:
            return state
        return Counted.cut(self, state, now_us)

    def following_end(self, end: int, now_us: int) -> int:
        return end + self.rate.period_us

    def is_full(self, state: Use, now_us: int) -> bool:
        return state[0] + (self.rate.period_us if state[2] else 0) <= now_us

    def encode(self, cost: int, now_us: int) -> list[str | int | float]:
        return ["F" if self.enforce else "f", self.capacity, cost, self.rate.period_us]


class SlidingWindow(_Window):
    """Exact: never more than `count` in any period. The state holds one number per call that still counts.

    That is O(count) memory and work per bucket: fine for "100/hour", not for "100000/hour" (use a TokenBucket). What is
    owed counts as calls of the moments at which they would have been allowed.
    """

    def _counted(self, state: Log | None, now_us: int) -> Log:
        """The calls that count."""
        return self._believed(self._in_period(state, now_us), now_us)

    def _in_period(self, state: Log | None, now_us: int) -> Log:
        frees = now_us - self.rate.period_us
        return state[bisect_right(state, frees) :] if state and state[-1] > frees else ()

    def _believed(self, calls: Log, now_us: int) -> Log:
        """The calls, none of them later than now unless it is owed: the clock may have gone back."""
        if not calls or calls[-1] <= now_us:
            return calls
        room = min(len(calls), self.capacity)
        past, latest = bisect_right(calls, now_us), now_us + self.rate.period_us
        if past < room:
            calls = calls[:past] + (now_us,) * (room - past) + calls[room:]
        sure = bisect_right(calls, latest)
        return calls[:sure] + (latest,) * (len(calls) - sure)

    def take(self, state: Log | None, now_us: int, cost: int) -> Log | None:
        counted = self._counted(state, now_us)
        return counted + (now_us,) * cost if len(counted) + cost <= self.capacity else None

    def give_back(self, state: Log | None, now_us: int, cost: int, charged: Log, charged_at: int) -> Log | None:
        counted = self._counted(state, now_us)
        first, last = bisect_left(counted, charged_at), bisect_right(counted, charged_at)
        left = counted[:first] + counted[min(last, first + cost) :]
        return self._counted(left, now_us) or None

    def owe(self, state: Log | None, now_us: int, cost: int) -> tuple[Log | None, bool]:
        counted = self._counted(state, now_us)
        free = max(0, min(cost, self.capacity - len(counted)))
        after = counted + (now_us,) * free
        owed = max(0, min(cost - free, 2 * self.capacity - len(after)))
        # The call that it waits for is `capacity` places before it.
        first = len(after) - self.capacity
        after += tuple(moment + self.rate.period_us for moment in after[first : first + owed]) if owed else ()
        return after or None, free + owed < cost

    def cut(self, state: Log | None, now_us: int) -> Log | None:
        calls = self._in_period(state, now_us)
        believed = self._believed(calls, now_us)
        return state if believed == calls or not self.capacity else believed

    def measure(self, state: Log | None, now_us: int, cost: int) -> Measure:
        counted = self._counted(state, now_us)
        if not self.capacity:
            return self._never
        if not counted:
            return self.capacity, 0, 0
        frees = now_us - self.rate.period_us
        excess = min(len(counted), len(counted) + cost - self.capacity)  # a soft limit is asked about any cost
        remaining = max(0, self.capacity - len(counted))
        return remaining, counted[-1] - frees, counted[excess - 1] - frees if excess > 0 else 0

    def is_full(self, state: Log, now_us: int) -> bool:
        return state[-1] <= now_us - self.rate.period_us

    def encode(self, cost: int, now_us: int) -> list[str | int | float]:
        return ["S" if self.enforce else "s", self.capacity, cost, self.rate.period_us]

    def encode_charge(self, charged: Log, charged_at: int) -> Sequence[int]:
        return (charged_at,)

    def decode(self, reply: Sequence[Any], place: int) -> tuple[Log | None, int]:
        calls = reply[place]
        return unpack(f"<{len(calls) // 8}q", calls) or None, place + 1


SHIPPED.update((FixedWindow, SlidingWindow))
