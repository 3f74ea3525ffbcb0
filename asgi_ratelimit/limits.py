"""What is allowed: four kinds of limit, as pure arithmetic on integers. No clock, no store, no rounding.

A limit is a frozen value. What one caller has used of it is a *state*, which the store keeps and only the
limit understands; None is a full bucket, so a state that has run out may be forgotten at any time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from math import gcd
from typing import Any, ClassVar, Literal

from asgi_ratelimit.rate import Rate, parse_rate

__all__ = [
    "OUTAGES",
    "FixedWindow",
    "LeakyBucket",
    "Limit",
    "Measure",
    "Outage",
    "Scope",
    "SlidingWindow",
    "TokenBucket",
    "as_limits",
]

Scope = Literal["user", "global", "shared"]
Outage = Literal["local", "open", "closed"]
OUTAGES = ("local", "open", "closed")
State = Any  # int | tuple[int, ...], each kind of limit its own

_EXACT = 2**53  # where a double, all that Lua has, stops telling neighbours apart
_LATEST_US = 4_102_444_800_000_000  # the year 2100, in µs since the epoch


# What a state means to a caller: what remains (rounded down), and in how many µs (rounded up) the bucket is full and
# the cost allowed. A plain tuple: one is made for every response, and a NamedTuple takes four times as long to make.
Measure = tuple[int, int, int]


class Limit:
    """What every kind of limit has: a rate, a capacity, and four pure functions of a state.

    `scope` decides whose bucket it is: "user" one per key, "global" one for the whole app, "shared" one per
    resource. `name` is how it is called in headers. `outage` says who decides while the store cannot, unless the
    store does: "local" memory, "open" lets everybody pass, "closed" nobody. ValueError for a rate or an option that
    makes no sense.
    """

    __slots__ = ("capacity", "name", "outage", "rate", "scope")
    rate: Rate
    capacity: int
    name: str | None
    scope: Scope
    outage: Outage | None
    shapes: ClassVar[bool] = False  # whether it admits calls for later, `Decision.delay` seconds from now

    def __init__(
        self, rate: str | Rate, capacity: int | None, name: str | None, scope: Scope, outage: Outage | None
    ) -> None:
        rate = rate if isinstance(rate, Rate) else parse_rate(rate)
        if scope not in ("user", "global", "shared"):
            raise ValueError(f'scope must be "user", "global" or "shared", not {scope!r}')
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f'the name of a limit is a string such as "burst", not {name!r}')
        if outage is not None and outage not in OUTAGES:
            raise ValueError(f'outage must be "local", "open", "closed" or None (as the store), not {outage!r}')
        capacity = rate.count if capacity is None else capacity
        self._set(rate=rate, capacity=capacity, name=name, scope=scope, outage=outage)
        if rate.period_us + _LATEST_US >= _EXACT:
            raise ValueError(f"the period of {rate} is too long to count exactly; use less than 150 years")

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a limit is frozen: make a new {type(self).__name__} instead of setting {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a limit is frozen: {name} cannot be deleted")

    @property
    def identity(self) -> tuple[str | int | None, ...]:
        """What makes it this limit and no other; a changed limit is a new bucket."""
        return (type(self).__name__, self.rate.count, self.rate.period_us, self.capacity, self.name, self.scope)

    @property
    def count(self) -> int:
        """How many are allowed per `period`."""
        return self.rate.count

    @property
    def period(self) -> float:
        """Seconds in which `count` are allowed."""
        return self.rate.period_us / 1e6

    @property
    def window_us(self) -> int:
        """Microseconds in which an empty bucket becomes full, rounded up."""
        return self.rate.period_us

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Limit):
            return NotImplemented
        return self.identity == other.identity and self.outage == other.outage

    def __hash__(self) -> int:
        return hash(self.identity)

    def __str__(self) -> str:
        return str(self.rate)

    def __repr__(self) -> str:
        extra = "".join(
            f", {option}={value!r}"
            for option, value in (("name", self.name), ("scope", self.scope), ("outage", self.outage))
            if value not in (None, "user")
        )
        return f'{type(self).__name__}("{self}"{extra})'

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.rate, self.capacity, self.name, self.scope, self.outage))

    def take(self, state: State, now_us: int, cost: int) -> State:
        """The state after `cost` was charged, or None if that is refused."""
        raise NotImplementedError

    def give_back(self, state: State, now_us: int, cost: int, charged: State, charged_at: int) -> State:
        """The state after a charge is undone that left `charged` at `charged_at`; None: full."""
        raise NotImplementedError

    def measure(self, state: State, now_us: int, cost: int) -> Measure:
        """What is left of it, how long until it is full, and until `cost` would be allowed."""
        raise NotImplementedError

    def is_full(self, state: State, now_us: int) -> bool:
        """Whether the state may be forgotten."""
        raise NotImplementedError


class TokenBucket(Limit):
    """`count` tokens flow in per period, up to `burst` (default: the count); each call takes some out.

    The state is one integer, the moment at which the bucket is full again, in ticks of 1/`ticks` µs: so many
    that the time between two tokens is a whole number of them (the generic cell rate algorithm, ITU-T I.371).
    """

    __slots__ = ("depth", "interval", "ticks")
    ticks: int
    interval: int
    depth: int

    def __init__(
        self,
        rate: str | Rate,
        burst: int | None = None,
        *,
        name: str | None = None,
        scope: Scope = "user",
        outage: Outage | None = None,
    ) -> None:
        rate = rate if isinstance(rate, Rate) else parse_rate(rate)
        if burst is not None and rate.burst is not None:
            raise ValueError(f'the burst is given twice: in "{rate}" and as burst={burst!r}')
        capacity = _at_least("burst", burst, 1, "100") if burst is not None else rate.burst
        super().__init__(Rate(rate.count, rate.period_us, capacity), capacity, name, scope, outage)
        self._set_ticks()

    def _set_ticks(self) -> None:
        shared = gcd(self.rate.count, self.rate.period_us)
        ticks, interval = self.rate.count // shared, self.rate.period_us // shared
        self._set(ticks=ticks, interval=interval, depth=self.capacity * interval)
        if (self.capacity + 1) * ticks >= _EXACT or self.window_us + _LATEST_US >= _EXACT:
            raise ValueError(f"{self} is too fine or too deep to count exactly; use a rounder rate or a smaller burst")

    @property
    def window_us(self) -> int:
        return -(-self.depth // self.ticks)

    def take(self, state: int | None, now_us: int, cost: int) -> int | None:
        now = now_us * self.ticks
        latest = now + self.depth
        if state is None or state < now or state > latest:
            state = now
        state += cost * self.interval
        return state if state <= latest else None

    def give_back(self, state: int | None, now_us: int, cost: int, charged: int, charged_at: int) -> int | None:
        # What has flowed back by itself since the charge is not given back a second time.
        if state is None or self.is_full(state, now_us):
            return None
        now = now_us * self.ticks
        state -= max(0, min(cost * self.interval, charged - now))
        return state if state > now else None

    def measure(self, state: int | None, now_us: int, cost: int) -> Measure:
        now = now_us * self.ticks
        latest = now + self.depth
        if state is None or state < now or state > latest:
            state = now
        room = latest - state
        remaining = room // self.interval
        retry_us = 0 if remaining >= cost else -((room - cost * self.interval) // self.ticks)
        return remaining, -((now - state) // self.ticks), retry_us

    def is_full(self, state: int, now_us: int) -> bool:
        now = now_us * self.ticks
        return state <= now or state > now + self.depth


class LeakyBucket(TokenBucket):
    """Calls leave evenly spaced, `count` per period; up to `queue` of them are told to wait for their slot.

    The same arithmetic as a TokenBucket of `queue` + 1, except that an admitted call has to wait (see `delay_us`).
    A refund frees the last slot of the queue only: nobody is moved once told when to go.
    """

    __slots__ = ()
    shapes: ClassVar[bool] = True

    def __init__(
        self,
        rate: str | Rate,
        queue: int = 10,
        *,
        name: str | None = None,
        scope: Scope = "user",
        outage: Outage | None = None,
    ) -> None:
        rate = rate if isinstance(rate, Rate) else parse_rate(rate)
        if rate.burst is not None:
            raise ValueError(
                f'a LeakyBucket has no burst: write LeakyBucket("{_plain(rate)}", queue={rate.burst}) for a queue'
            )
        capacity = _at_least("queue", queue, 0, "10") + 1
        Limit.__init__(self, rate, capacity, name, scope, outage)
        self._set_ticks()

    def delay_us(self, state: int | None, now_us: int) -> int:
        """Microseconds, rounded up, that a call admitted on top of `state` has to wait."""
        return 0 if state is None or self.is_full(state, now_us) else -((now_us * self.ticks - state) // self.ticks)

    def give_back(self, state: int | None, now_us: int, cost: int, charged: int, charged_at: int) -> int | None:
        if state is None or state == charged or self.is_full(state, now_us):
            return super().give_back(state, now_us, cost, charged, charged_at)
        return state


class FixedWindow(Limit):
    """`count` in a window that opens with its first request: how Discord's own buckets began.

    The state is (when the window ends, how much of it is used). Twice the count may pass around a window's end.
    """

    __slots__ = ()

    def __init__(
        self,
        rate: str | Rate,
        *,
        name: str | None = None,
        scope: Scope = "user",
        outage: Outage | None = None,
    ) -> None:
        super().__init__(_without_burst(rate, type(self).__name__), None, name, scope, outage)

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
            return (self.capacity, 0, 0)
        end, used = state
        return (self.capacity - used, end - now_us, end - now_us if used + cost > self.capacity else 0)

    def is_full(self, state: tuple[int, int], now_us: int) -> bool:
        return not now_us < state[0] <= now_us + self.rate.period_us


class SlidingWindow(Limit):
    """Exact: never more than `count` in any period. Its state holds one number per call still counted.

    That is O(count) memory and work per bucket: fine for "100/hour", not for "100000/hour" (use a TokenBucket).
    """

    __slots__ = ()

    def __init__(
        self,
        rate: str | Rate,
        *,
        name: str | None = None,
        scope: Scope = "user",
        outage: Outage | None = None,
    ) -> None:
        super().__init__(_without_burst(rate, type(self).__name__), None, name, scope, outage)

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
            return (self.capacity, 0, 0)
        frees = now_us - self.rate.period_us
        excess = len(counted) + cost - self.capacity
        return (self.capacity - len(counted), counted[-1] - frees, counted[excess - 1] - frees if excess > 0 else 0)

    def is_full(self, state: tuple[int, ...], now_us: int) -> bool:
        return not now_us - self.rate.period_us < state[-1] <= now_us


def as_limits(value: object) -> tuple[Limit, ...]:
    """One limit or several, as a tuple; a string is a TokenBucket. ValueError if it is neither."""
    if isinstance(value, Limit):
        return (value,)
    if isinstance(value, str):
        return (TokenBucket(value),)
    if not isinstance(value, Iterable) or isinstance(value, (bytes, dict)):
        raise ValueError(f'a limit is a string such as "5/5s", a limit, or a list of them, not {value!r}')
    limits = tuple(limit for item in value for limit in as_limits(item))
    if not limits:
        raise ValueError('an empty list limits nothing; give at least one limit such as "5/5s"')
    if len({limit.identity for limit in limits}) < len(limits):
        raise ValueError(f"the same limit stands twice in {list(limits)!r}; name one of them if both are meant")
    return limits


def _without_burst(rate: str | Rate, kind: str) -> Rate:
    rate = rate if isinstance(rate, Rate) else parse_rate(rate)
    if rate.burst is not None:
        raise ValueError(f'a {kind} has no burst: write {kind}("{_plain(rate)}") or TokenBucket("{rate}")')
    return rate


def _plain(rate: Rate) -> Rate:
    return Rate(rate.count, rate.period_us)


def _at_least(what: str, value: object, least: int, example: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{what} must be a whole number of at least {least}, e.g. {what}={example}, not {value!r}")
    return value


def _rebuild(kind: type[Any], rate: Rate, capacity: int, name: str | None, scope: Scope, outage: Outage | None) -> Any:
    options: dict[str, Any] = {"queue": capacity - 1} if kind is LeakyBucket else {}
    return kind(rate, name=name, scope=scope, outage=outage, **options)
