"""The kinds of limit, as pure arithmetic on integers: no clock, no store, no rounding.

A limit is a frozen value. A *state* is the use that one key has made of it. The store keeps the state, and only the
limit understands it. None is a full bucket, so an expired state may be dropped at any time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd
from struct import unpack
from typing import Any, ClassVar, Literal

from asgi_ratelimit.rate import Rate, parse_rate

__all__ = [
    "OUTAGES", "FixedWindow", "LeakyBucket", "Limit", "LimitSpec", "Measure", "Outage", "Scope", "SlidingWindow",
    "State", "TokenBucket", "as_limits",
]  # fmt: skip

Scope = Literal["user", "global", "shared"]
Outage = Literal["local", "open", "closed"]
OUTAGES = ("local", "open", "closed")
State = Any  # int | tuple[int, ...]: each kind of limit has its own

_EXACT = 2**53  # above it a double, the only number in Lua, cannot tell neighbours apart
_COMMON = frozenset(("rate", "capacity", "name", "scope", "outage", "ticks", "interval", "depth"))
_LATEST_US = 4_102_444_800_000_000  # the year 2100, in µs since the epoch

# (remaining, µs until full, µs until allowed), rounded down, up, up. A NamedTuple takes four times as long to make.
Measure = tuple[int, int, int]


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Limit:
    """The base of every kind of limit: a rate, a capacity, and pure functions of a state.

    rate: how many per period, a string such as "5/5s" or a Rate
    capacity: how many a full bucket holds; the count of the rate unless given
    name: its name in headers
    scope: "user" one bucket per key, "global" one for the whole app, "shared" one per resource
    outage: the decision while the store is down, unless the store decides: "local" counts in memory,
        "open" (fail open) allows every call, "closed" (fail closed) allows none

    Raises ValueError if the rate cannot be parsed or an option is out of range.
    """

    rate: Rate
    capacity: int
    name: str | None
    scope: Scope
    outage: Outage | None
    shapes: ClassVar[bool] = False  # whether a call may be admitted for later: `Decision.delay` seconds from now

    def __init__(
        self,
        rate: str | Rate,
        capacity: int | None = None,
        *,
        name: str | None = None,
        scope: Scope = "user",
        outage: Outage | None = None,
    ) -> None:
        rate = parse_rate(rate)
        if scope not in ("user", "global", "shared"):
            raise ValueError(f'scope must be "user", "global" or "shared", not {scope!r}')
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f'the name of a limit is a string such as "burst", not {name!r}')
        if outage is not None and outage not in OUTAGES:
            raise ValueError(f'outage must be "local", "open", "closed" or None (as the store), not {outage!r}')
        if rate.period_us + _LATEST_US >= _EXACT:
            raise ValueError(f"the period of {rate} is too long to count exactly; use less than 150 years")
        capacity = rate.count if capacity is None else _at_least("capacity", capacity, 1, "10")
        self._set(rate=rate, capacity=capacity, name=name, scope=scope, outage=outage)

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def identity(self) -> tuple[str | int | None, ...]:
        """The values that make it this limit, a subclass's own fields included. Another identity is another bucket."""
        kind, rate = type(self), self.rate
        common = (kind.__name__, rate.count, rate.period_us, self.capacity, self.name, self.scope)
        if kind in _KINDS:  # it has no fields of its own, and it is read for each request with a limit function
            return common
        return *common, *(f"{name}={vars(self)[name]!r}" for name in sorted(vars(self).keys() - _COMMON))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Limit):
            return NotImplemented
        return self.identity == other.identity and self.outage == other.outage

    def __hash__(self) -> int:
        return hash(self.identity)

    @property
    def count(self) -> int:
        """The number of calls that are allowed per `period`."""
        return self.rate.count

    @property
    def period(self) -> float:
        """The seconds in which `count` calls are allowed."""
        return self.rate.period_us / 1e6

    @property
    def window_us(self) -> int:
        """The microseconds in which an empty bucket becomes full, rounded up."""
        return self.rate.period_us

    def __str__(self) -> str:
        return str(self.rate)

    def __repr__(self) -> str:
        options = (("name", self.name), ("scope", self.scope), ("outage", self.outage))
        extra = "".join(f", {option}={value!r}" for option, value in options if value not in (None, "user"))
        return f'{type(self).__name__}("{self}"{extra})'

    # A new kind of limit defines the first four of these, and may define the others

    def take(self, state: State, now_us: int, cost: int) -> State:
        """The state after `cost` was charged, or None if the cost is refused."""
        raise NotImplementedError

    def give_back(self, state: State, now_us: int, cost: int, charged: State, charged_at: int) -> State:
        """The state after a charge is undone that left `charged` at `charged_at`; None: full."""
        raise NotImplementedError

    def measure(self, state: State, now_us: int, cost: int) -> Measure:
        """What remains, the time until the bucket is full, and the time until `cost` is allowed."""
        raise NotImplementedError

    def is_full(self, state: State, now_us: int) -> bool:
        """Whether the state may be dropped."""
        raise NotImplementedError

    def delay_us(self, after: State, now_us: int, cost: int) -> int:
        """Microseconds, rounded up, that an admitted call has to wait; `after` is the state with its charge."""
        return 0

    def encode(self, cost: int) -> list[str | int]:
        """The limit and a cost for checks.lua, in numbers that a double holds exactly."""
        raise ValueError(f"{self!r} cannot be kept in Redis; use one of the kinds of limit of this package")

    def encode_charge(self, charged: State, charged_at: int) -> Sequence[int]:
        """The charge for checks.lua that a refund gives back."""
        raise NotImplementedError

    def decode(self, reply: Sequence[Any], place: int) -> tuple[State, int]:
        """The state at `place` of a reply of checks.lua, and the place behind it."""
        raise NotImplementedError


@dataclass(frozen=True, init=False, repr=False, eq=False)
class TokenBucket(Limit):
    """`count` tokens flow in per period, up to `burst` (default: the count). Each call takes some out.

    The state is one integer, the moment at which the bucket is full again, in ticks of 1/`ticks` µs. The time between
    two tokens is a whole number of ticks (the generic cell rate algorithm, ITU-T I.371).
    """

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
        rate = parse_rate(rate)
        if burst is not None and rate.burst is not None:
            raise ValueError(f'the burst is given twice: in "{rate}" and as burst={burst!r}')
        capacity = (rate.burst or rate.count) if burst is None else _at_least("burst", burst, 1, "100")
        burst = None if capacity == rate.count else capacity
        rate = rate if rate.burst == burst else Rate(rate.count, rate.period_us, burst)
        Limit.__init__(self, rate, capacity, name=name, scope=scope, outage=outage)
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
        # Tokens that have flowed back since the charge are not given back a second time.
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

    def encode(self, cost: int) -> list[str | int]:
        return ["T", self.ticks, *divmod(cost * self.interval, self.ticks), *divmod(self.depth, self.ticks)]

    def encode_charge(self, charged: int, charged_at: int) -> Sequence[int]:
        return divmod(charged, self.ticks)

    def decode(self, reply: Sequence[Any], place: int) -> tuple[int, int]:
        return reply[place] * self.ticks + reply[place + 1], place + 2


@dataclass(frozen=True, init=False, repr=False, eq=False)
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
    ) -> None:
        rate = parse_rate(rate)
        if rate.burst is not None:
            raise ValueError(f'a LeakyBucket has no burst: write LeakyBucket("{rate.plain}", queue={rate.burst})')
        capacity = _at_least("queue", queue, 0, "10") + 1
        Limit.__init__(self, rate, capacity, name=name, scope=scope, outage=outage)
        self._set_ticks()

    def delay_us(self, after: int, now_us: int, cost: int) -> int:
        ahead = after - cost * self.interval - now_us * self.ticks
        return -(-ahead // self.ticks) if ahead > 0 else 0

    def give_back(self, state: int | None, now_us: int, cost: int, charged: int, charged_at: int) -> int | None:
        if state is None or state == charged or self.is_full(state, now_us):
            return TokenBucket.give_back(self, state, now_us, cost, charged, charged_at)
        return state

    def encode(self, cost: int) -> list[str | int]:
        return ["L", *TokenBucket.encode(self, cost)[1:]]


@dataclass(frozen=True, init=False, repr=False, eq=False)
class _Window(Limit):
    """The options that both kinds of window have."""

    def __init__(
        self, rate: str | Rate, *, name: str | None = None, scope: Scope = "user", outage: Outage | None = None
    ) -> None:
        rate = parse_rate(rate)
        if rate.burst is not None:
            kind = type(self).__name__
            raise ValueError(f'a {kind} has no burst: write {kind}("{rate.plain}") or TokenBucket("{rate}")')
        Limit.__init__(self, rate, name=name, scope=scope, outage=outage)


@dataclass(frozen=True, init=False, repr=False, eq=False)
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
            return (self.capacity, 0, 0)
        end, used = state
        return (self.capacity - used, end - now_us, end - now_us if used + cost > self.capacity else 0)

    def is_full(self, state: tuple[int, int], now_us: int) -> bool:
        return not now_us < state[0] <= now_us + self.rate.period_us

    def encode(self, cost: int) -> list[str | int]:
        return ["F", self.rate.period_us, self.capacity, cost]

    def encode_charge(self, charged: tuple[int, int], charged_at: int) -> Sequence[int]:
        return charged[:1]

    def decode(self, reply: Sequence[Any], place: int) -> tuple[tuple[int, int], int]:
        return (reply[place], reply[place + 1]), place + 2


@dataclass(frozen=True, init=False, repr=False, eq=False)
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
            return (self.capacity, 0, 0)
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


_KINDS = frozenset((TokenBucket, LeakyBucket, FixedWindow, SlidingWindow))
LimitSpec = str | Limit | Iterable[str | Limit]  # one limit or several; a string is a TokenBucket


def as_limits(value: object) -> tuple[Limit, ...]:
    """One limit or several, as a tuple. Raises ValueError for anything else."""
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


def _at_least(option: str, value: object, least: int, example: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{option} must be a whole number of at least {least}, e.g. {option}={example}, not {value!r}")
    return value
