"""Limits that count within a window: FixedWindow and SlidingWindow."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from struct import unpack
from typing import Any, ClassVar

from asgi_ratelimit.limits.base import SHIPPED, Limit, Measure, Outage, Scope
from asgi_ratelimit.rate import Rate, parse_rate

__all__ = ["FixedWindow", "SlidingWindow"]


class _Window(Limit):
    """The options that both kinds of window have."""

    counts_to_zero: ClassVar[bool] = True

    def __init__(
        self, rate: str | Rate, *, name: str | None = None, scope: Scope = "user", outage: Outage | None = None
    ) -> None:
        rate = parse_rate(rate)
        if rate.burst is not None:
            kind = type(self).__name__
            raise ValueError(f'a {kind} has no burst: write {kind}("{rate.plain}") or TokenBucket("{rate}")')
        Limit.__init__(self, rate, name=name, scope=scope, outage=outage)


class FixedWindow(_Window):
    """`count` in a window that opens with its first request: how Discord's own buckets began.

    The state is (the end of the window, the cost used). Twice the count may pass around the end of a window.
    """

    def take(self, state: tuple[int, int] | None, now_us: int, cost: int) -> tuple[int, int] | None:
        if state is None or self.is_full(state, now_us):
            state = (now_us + self.rate.period_us, 0)
        end, used = state
        return (end, used + cost) if used + cost <= self.capacity else None

    def give_back(
        self, state: tuple[int, int] | None, now_us: int, cost: int, charged: tuple[int, int], charged_at: int
    ) -> tuple[int, int] | None:
        if state is None or self.is_full(state, now_us):
            return None
        if state[0] != charged[0]:
            return state
        return (state[0], state[1] - cost) if state[1] > cost else None

    def measure(self, state: tuple[int, int] | None, now_us: int, cost: int) -> Measure:
        if state is None or self.is_full(state, now_us):
            return (self.capacity, 0, 0) if self.capacity else self._never
        end, used = state
        return (self.capacity - used, end - now_us, end - now_us if used + cost > self.capacity else 0)

    def is_full(self, state: tuple[int, int], now_us: int) -> bool:
        return not now_us < state[0] <= now_us + self.rate.period_us

    def encode(self, cost: int) -> list[str | int]:
        return ["F", self.rate.period_us, self.capacity, cost]

    def encode_charge(self, charged: tuple[int, int], charged_at: int) -> Sequence[int]:
        return charged[:1]

    def decode(self, reply: Sequence[Any], place: int) -> tuple[tuple[int, int], int]:
        finish, used = reply[place], reply[place + 1]
        if type(finish) is not int or type(used) is not int:
            raise TypeError("a reply has a state that is no number")
        return (finish, used), place + 2


class SlidingWindow(_Window):
    """Exact: never more than `count` in any period. The state holds one number per call that still counts.

    That is O(count) memory and work per bucket: fine for "100/hour", not for "100000/hour" (use a TokenBucket).
    """

    def _counted(self, state: tuple[int, ...] | None, now_us: int) -> tuple[int, ...]:
        if state is None or self.is_full(state, now_us):
            return ()
        return state[bisect_right(state, now_us - self.rate.period_us) :]

    def take(self, state: tuple[int, ...] | None, now_us: int, cost: int) -> tuple[int, ...] | None:
        counted = self._counted(state, now_us)
        return counted + (now_us,) * cost if len(counted) + cost <= self.capacity else None

    def give_back(
        self, state: tuple[int, ...] | None, now_us: int, cost: int, charged: tuple[int, ...], charged_at: int
    ) -> tuple[int, ...] | None:
        counted = self._counted(state, now_us)
        first, last = bisect_left(counted, charged_at), bisect_right(counted, charged_at)
        return counted[:first] + counted[min(last, first + cost) :] or None

    def measure(self, state: tuple[int, ...] | None, now_us: int, cost: int) -> Measure:
        counted = self._counted(state, now_us)
        if not counted:
            return (self.capacity, 0, 0) if self.capacity else self._never
        frees = now_us - self.rate.period_us
        excess = len(counted) + cost - self.capacity
        return (self.capacity - len(counted), counted[-1] - frees, counted[excess - 1] - frees if excess > 0 else 0)

    def is_full(self, state: tuple[int, ...], now_us: int) -> bool:
        return not now_us - self.rate.period_us < state[-1] <= now_us

    def encode(self, cost: int) -> list[str | int]:
        return ["S", self.rate.period_us, self.capacity, cost]

    def encode_charge(self, charged: tuple[int, ...], charged_at: int) -> Sequence[int]:
        return (charged_at,)

    def decode(self, reply: Sequence[Any], place: int) -> tuple[tuple[int, ...] | None, int]:
        calls = reply[place]
        return unpack(f"<{len(calls) // 8}q", calls) or None, place + 1


SHIPPED.update((FixedWindow, SlidingWindow))
