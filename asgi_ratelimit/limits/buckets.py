"""Limits that refill steadily: TokenBucket, and LeakyBucket, which spaces its calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, ClassVar

from asgi_ratelimit.limits.base import EXACT, LATEST_US, SHIPPED, Limit, Measure, Outage, Scope, at_least
from asgi_ratelimit.rate import Rate, parse_rate

__all__ = ["LeakyBucket", "TokenBucket"]


@dataclass(frozen=True, init=False, repr=False, eq=False)
class TokenBucket(Limit):
    """`count` tokens flow in per period, up to `burst` (default: the count). Each call takes some out.

    The state is one integer, the moment at which the bucket is full again, in ticks of 1/`ticks` µs. The time between
    two tokens is a whole number of ticks (the generic cell rate algorithm, ITU-T I.371).
    """

    ticks: int
    interval: int
    depth: int
    near_depth: int  # above it, at least 80 % are used
    counts_to_zero: ClassVar[bool] = True

    def __init__(
        self,
        rate: str | Rate,
        burst: int | None = None,
        *,
        name: str | None = None,
        scope: Scope = "user",
        outage: Outage | None = None,
        enforce: bool = True,
        unit: str | None = None,
    ) -> None:
        rate = parse_rate(rate)
        if burst is not None and rate.burst is not None:
            raise ValueError(f'the burst is given twice: in "{rate}" and as burst={burst!r}')
        capacity = (rate.burst or rate.count) if burst is None else at_least("burst", burst, 1, "100")
        burst = None if capacity == rate.count else capacity
        if not rate.count and burst:
            raise ValueError(f'a limit of zero has no burst: write "{rate.plain}", which refuses every call')
        rate = rate if rate.burst == burst else Rate(rate.count, rate.period_us, burst)
        Limit.__init__(self, rate, capacity or None, name=name, scope=scope, outage=outage, enforce=enforce, unit=unit)
        self._set_ticks()

    def _set_ticks(self) -> None:
        count = self.rate.count or 1  # at zero the depth is 0, so that nothing fits in
        shared = gcd(count, self.rate.period_us)
        ticks, interval = count // shared, self.rate.period_us // shared
        unused = self.capacity // 5 + 1
        self._set(ticks=ticks, interval=interval, depth=self.capacity * interval)
        self._set(near_depth=self.depth - unused * interval)
        if (self.capacity + 1) * ticks >= EXACT or 2 * self.window_us + LATEST_US >= EXACT:
            raise ValueError(f"{self} is too fine or too deep to count exactly; use a rounder rate or a smaller burst")

    @property
    def window_us(self) -> int:
        return -(-self.depth // self.ticks) or self.rate.period_us

    def take(self, state: int | None, now_us: int, cost: int) -> int | None:
        now = now_us * self.ticks
        latest = now + self.depth
        state = (now if state is None or state < now else state) + cost * self.interval
        return state if state <= latest else None

    def give_back(self, state: int | None, now_us: int, cost: int, charged: int, charged_at: int) -> int | None:
        # Tokens that have flowed back since the charge are not given back a second time.
        state, now = self.cut(state, now_us), now_us * self.ticks
        if state is None or state <= now:
            return None
        state -= max(0, min(cost * self.interval, charged - now))
        return state if state > now else None

    def owe(self, state: int | None, now_us: int, cost: int) -> tuple[int | None, bool]:
        now, state = now_us * self.ticks, self.cut(state, now_us)
        if not self.depth:
            return state, True
        level = now if state is None or state < now else state
        wanted = level + cost * self.interval
        after = min(wanted, now + 2 * self.depth)
        return after, after < wanted

    def cut(self, state: int | None, now_us: int) -> int | None:
        latest = now_us * self.ticks + self.depth
        return latest if state is not None and state > latest + self.depth and self.depth else state

    def adopt(self, state: int | None, ticks: int) -> int | None:
        # A fraction of a microsecond that these ticks cannot count is rounded up: no change of a limit gains any.
        return state if state is None or ticks == self.ticks else -(-state // ticks) * self.ticks

    def in_microseconds(self, state: int | None) -> int | None:
        return state if state is None else -(-state // self.ticks)

    def is_near(self, state: int | None, now_us: int) -> bool:
        return state is not None and state - now_us * self.ticks > self.near_depth

    def measure(self, state: int | None, now_us: int, cost: int) -> Measure:
        ticks, depth, interval = self.ticks, self.depth, self.interval
        used = 0 if state is None else state - now_us * ticks
        if not 0 <= used <= depth:
            used = 0 if used < 0 else used if used <= 2 * depth else depth  # full, in debt, or too far ahead
        remaining = (depth - used) // interval if used < depth else 0
        if remaining >= cost:
            return remaining, -(-used // ticks), 0
        if not self.capacity:
            return self._never
        return remaining, -(-used // ticks), -((depth - used - cost * interval) // ticks)

    def is_full(self, state: int, now_us: int) -> bool:
        return state <= now_us * self.ticks

    def encode(self, cost: int, now_us: int) -> list[str | int | float]:
        cost = cost if self.capacity else 1  # zero refuses any cost, also one that no double holds exactly
        kind = "T" if self.enforce else "t"
        return [kind, self.ticks, *divmod(cost * self.interval, self.ticks), *divmod(self.depth, self.ticks)]

    def encode_charge(self, charged: int, charged_at: int) -> Sequence[int]:
        return divmod(charged, self.ticks)

    def decode(self, reply: Sequence[Any], place: int) -> tuple[int, int]:
        state = reply[place] * self.ticks + reply[place + 1]
        if type(state) is not int:
            raise TypeError("a reply has a state that is no number")
        return state, place + 2


class LeakyBucket(TokenBucket):
    """Calls leave evenly spaced, `count` per period. Up to `queue` of them have to wait for their slot.

    The arithmetic is that of a TokenBucket of `queue` + 1, but an admitted call has to wait (see `delay_us`).
    A refund frees the last slot of the queue only: a call that has its moment keeps it.
    """

    shapes: ClassVar[bool] = True

    def __init__(
        self,
        rate: str | Rate,
        queue: int = 10,
        *,
        name: str | None = None,
        scope: Scope = "user",
        outage: Outage | None = None,
        enforce: bool = True,
        unit: str | None = None,
    ) -> None:
        rate = parse_rate(rate)
        if rate.burst is not None:
            raise ValueError(f'a LeakyBucket has no burst: write LeakyBucket("{rate.plain}", queue={rate.burst})')
        capacity = at_least("queue", queue, 0, "10") + 1
        most = capacity if rate.count else None
        Limit.__init__(self, rate, most, name=name, scope=scope, outage=outage, enforce=enforce, unit=unit)
        self._set_ticks()

    def delay_us(self, after: int, now_us: int, cost: int) -> int:
        ahead = after - cost * self.interval - now_us * self.ticks
        return -(-ahead // self.ticks) if ahead > 0 and self.enforce else 0

    def give_back(self, state: int | None, now_us: int, cost: int, charged: int, charged_at: int) -> int | None:
        state = self.cut(state, now_us)
        if state is None or state == charged or self.is_full(state, now_us):
            return TokenBucket.give_back(self, state, now_us, cost, charged, charged_at)
        return state

    def encode(self, cost: int, now_us: int) -> list[str | int | float]:
        return ["L" if self.enforce else "l", *TokenBucket.encode(self, cost, now_us)[1:]]


SHIPPED.update((TokenBucket, LeakyBucket))
