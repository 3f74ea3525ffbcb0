"""What every kind of limit has: a rate, a capacity and an identity."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.rate import Rate, parse_rate

__all__ = [
    "EXACT",
    "LATEST_US",
    "MOST_COST",
    "OUTAGES",
    "SHIPPED",
    "Limit",
    "Measure",
    "Outage",
    "Scope",
    "State",
    "at_least",
]

Scope = Literal["user", "global", "shared"]
Outage = Literal["local", "open", "closed"]
OUTAGES = ("local", "open", "closed")
SHIPPED: Final[set[type]] = set()  # the kinds of this package; each file adds its own
State = Any  # int | tuple[int, ...]: each kind of limit has its own

EXACT = 2**53  # above it a double, the only number in Lua, cannot tell neighbours apart
MOST_COST: Final = 2**53  # that a limit of zero refuses: more would be waits that no float holds
_COMMON = frozenset(
    (
        "rate",
        "capacity",
        "name",
        "scope",
        "outage",
        "enforce",
        "unit",
        "ticks",
        "interval",
        "depth",
        "near_depth",
        "status",
    )
)
LATEST_US = 4_102_444_800_000_000  # the year 2100, in µs since the epoch

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
    enforce: False is a soft limit: it is counted and reported, but refuses no call (see `Decision.over`)
    unit: the name of what is counted, for the headers: "requests" unless given

    The count and the capacity are no part of a bucket's identity: a limit that changes keeps its use.
    Raises ValueError if the rate cannot be parsed or an option is out of range.
    """

    rate: Rate
    capacity: int
    name: str | None
    scope: Scope
    outage: Outage | None
    enforce: bool
    unit: str | None
    ticks: int  # parts of a microsecond in which its states count
    counts_to_zero: ClassVar[bool] = False  # whether the count may be 0: then every call is refused
    shapes: ClassVar[bool] = False  # whether a call may be admitted for later: `Decision.delay` seconds from now
    holds: ClassVar[bool] = False  # whether a call takes a slot until it ends, whatever it costs

    def __init__(
        self,
        rate: str | Rate,
        capacity: int | None = None,
        *,
        name: str | None = None,
        scope: Scope = "user",
        outage: Outage | None = None,
        enforce: bool = True,
        unit: str | None = None,
    ) -> None:
        rate = parse_rate(rate)
        if scope not in ("user", "global", "shared"):
            raise ValueError(f'scope must be "user", "global" or "shared", not {scope!r}')
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f'the name of a limit is a string such as "burst", not {name!r}')
        if outage is not None and outage not in OUTAGES:
            raise ValueError(f'outage must be "local", "open", "closed" or None (as the store), not {outage!r}')
        if not isinstance(enforce, bool):
            raise ValueError(f"enforce is True, or False for a soft limit, not {enforce!r}")
        if unit is not None and (not isinstance(unit, str) or not unit):
            raise ValueError(f'the unit of a limit is a string such as "tokens", not {unit!r}')
        if 2 * rate.period_us + LATEST_US >= EXACT:
            raise ValueError(f"the period of {rate} is too long to count exactly; use less than 75 years")
        if not rate.count and not (self.counts_to_zero and capacity is None):
            raise ValueError(f'a {type(self).__name__} cannot be "{rate}"; TokenBucket("{rate}") refuses every call')
        capacity = rate.count if capacity is None else at_least("capacity", capacity, 1, "10")
        self._set(rate=rate, capacity=capacity, name=name, scope=scope, outage=outage, enforce=enforce, unit=unit)
        self._set(ticks=1)

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def identity(self) -> tuple[str | int | None, ...]:
        """The values that make its buckets, a subclass's own fields included. Another identity is another bucket."""
        kind = type(self)
        common = (kind.__name__, self.rate.period_us, self.name, self.scope)
        if kind in SHIPPED:  # it is read for each request with a limit function
            return common
        return *common, *(f"{name}={vars(self)[name]!r}" for name in sorted(vars(self).keys() - _COMMON))

    def _options(self) -> tuple[object, ...]:
        """The values that are no part of its identity. Two limits are equal if these are equal as well."""
        return self.rate, self.capacity, self.outage, self.enforce, self.unit

    def named(self, name: str) -> Limit:
        """The same limit with this name, unless it has one. Under another name it has other buckets."""
        if self.name is not None:
            return self
        limit = copy(self)
        object.__setattr__(limit, "name", name)
        return limit

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Limit):
            return NotImplemented
        return self.identity == other.identity and self._options() == other._options()

    def __hash__(self) -> int:
        return hash((self.identity, self.rate))

    @property
    def count(self) -> int:
        """The number of calls that are allowed per `period`."""
        return self.rate.count

    @property
    def period(self) -> float:
        """The seconds in which `count` calls are allowed."""
        return self.rate.period_us / 1e6

    @property
    def status(self) -> int:
        """The status of the response to a request that it refuses."""
        return 429

    @property
    def _never(self) -> Measure:
        """The measure of a limit of zero. Its wait is the period, though the call is refused then as well."""
        return 0, self.rate.period_us, self.rate.period_us

    @property
    def window_us(self) -> int:
        """The microseconds in which an empty bucket becomes full, rounded up."""
        return self.rate.period_us

    def window_at(self, now_us: int) -> int:
        """The microseconds of the window that this moment is in, where windows differ in length."""
        return self.window_us

    def __str__(self) -> str:
        return str(self.rate)

    def __repr__(self) -> str:
        options = {"name": self.name, "scope": self.scope, "outage": self.outage, "unit": self.unit}
        changed: dict[str, object] = {option: value for option, value in options.items() if value not in (None, "user")}
        if not self.enforce:
            changed["enforce"] = False
        return f'{type(self).__name__}("{self}"{"".join(f", {option}={value!r}" for option, value in changed.items())})'

    # A new kind of limit defines the first four of these, and may define the others

    def take(self, state: State, now_us: int, cost: int) -> State:
        """The state after `cost` was charged, or None if the cost is refused."""
        raise NotImplementedError

    def give_back(self, state: State, now_us: int, cost: int, charged: State, charged_at: int) -> State:
        """The state after `cost` of a charge is undone that left `charged` at `charged_at`; None: full.

        What has flowed back since by itself is not given a second time.
        """
        raise NotImplementedError

    def measure(self, state: State, now_us: int, cost: int) -> Measure:
        """What remains, the time until the bucket is full, and the time until `cost` is allowed."""
        raise NotImplementedError

    def is_full(self, state: State, now_us: int) -> bool:
        """Whether the state may be dropped."""
        raise NotImplementedError

    def owe(self, state: State, now_us: int, cost: int) -> tuple[State, bool]:
        """The state after `cost` more, down to one more capacity below empty, and whether that cuts some of it off."""
        after = self.take(state, now_us, cost)
        return (state, True) if after is None else (after, False)

    def cut(self, state: State, now_us: int) -> State:
        """The same state, or what it allows of one that is too far ahead: empty. The clock has gone back since."""
        return state

    def adopt(self, state: State, ticks: int) -> State:
        """The state that another limit of the same bucket has left in other ticks."""
        return state

    def on(self, clock: Clock) -> Limit:
        """The same limit for states that go by this clock. It differs where a limit goes by the calendar."""
        return self

    def in_microseconds(self, state: State) -> State:
        """The state as a limit with one tick for each microsecond has it, rounded up."""
        return state

    def encoded_for(self, now_us: int) -> tuple[int, int] | None:
        """From when until when the encoding of this moment holds; None: always."""
        return None

    def is_near(self, state: State, now_us: int) -> bool:
        """Whether at least 80 % are used."""
        return self.measure(state, now_us, 1)[0] * 5 <= self.capacity

    def delay_us(self, after: State, now_us: int, cost: int) -> int:
        """Microseconds, rounded up, that an admitted call has to wait; `after` is the state with its charge."""
        return 0

    def wait_us(self, state: State, now_us: int, cost: int) -> int:
        """Microseconds until `cost` is allowed if no other call comes. It may be above the capacity."""
        fillings, rest = divmod(cost - 1, self.capacity or 1)
        return self.measure(state, now_us, rest + 1)[2] + fillings * self.window_us

    def encode(self, cost: int, now_us: int) -> list[str | int | float]:
        """The limit and a cost for checks.lua, in numbers that a double holds exactly."""
        raise ValueError(f"{self!r} cannot be kept in Redis; use one of the kinds of limit of this package")

    def encode_charge(self, charged: State, charged_at: int) -> Sequence[int]:
        """The charge for checks.lua that a refund gives back."""
        raise NotImplementedError

    def decode(self, reply: Sequence[Any], place: int) -> tuple[State, int]:
        """The state at `place` of a reply of checks.lua, and the place behind it."""
        raise NotImplementedError


def at_least(option: str, value: object, least: int, example: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{option} must be a whole number of at least {least}, e.g. {option}={example}, not {value!r}")
    return value
