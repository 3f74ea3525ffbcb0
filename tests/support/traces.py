"""Histories of a limiter, drawn at random and played to a store in memory and to one in Redis, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from itertools import count, cycle, islice, product
from typing import Any, NamedTuple

from hypothesis import strategies as st

from asgi_ratelimit import (
    BucketKey,
    Decision,
    FixedWindow,
    LeakyBucket,
    Limiter,
    MemoryStore,
    SlidingWindow,
    TokenBucket,
)
from asgi_ratelimit.limits import Concurrency, Limit, Quota, Scope
from asgi_ratelimit.memory.holders import Holders
from asgi_ratelimit.rate import Rate
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.slot import Slot
from asgi_ratelimit.testing import ManualClock

_names = count()


# The limits: rates that are no whole number of anything, and some that are.

RATES = ("7/s", "49/s", "1/day", "13/700ms", "5/5s", "90/minute", "1000/hour", "7000/3ms", "300000/s")
BURSTS = (
    "7/s burst 1",
    "7/s burst 30",
    "300000/s burst 7",
    "300000/s burst 999983",
    "1/day burst 3",
    "13/700ms burst 2",
)
FEW = RATES[:-1]  # for a SlidingWindow, which keeps a number for each call
NONE = ("0/7s", "0/day")


def tokens(scope: Scope = "user") -> list[Limit]:
    return [TokenBucket(rate, scope=scope) for rate in (*RATES, *BURSTS, *NONE)]


def queues(scope: Scope = "user") -> list[Limit]:
    return [LeakyBucket(rate, queue=queue, scope=scope) for rate, queue in product((*RATES, *NONE), (0, 1, 4, 60))]


def windows(scope: Scope = "user") -> list[Limit]:
    return [FixedWindow(rate, scope=scope) for rate in (*RATES, *NONE)]


def logs(scope: Scope = "user") -> list[Limit]:
    return [SlidingWindow(rate, scope=scope) for rate in (*FEW, *NONE)]


def quotas(scope: Scope = "user") -> list[Limit]:
    calendars: list[dict[str, Any]] = [
        {"rate": "7/day", "tz": "America/St_Johns"},
        {"rate": "3/week", "tz": "Europe/Berlin", "starts": "sunday"},
        {"rate": "1000/month", "tz": "Asia/Kolkata", "starts": 31, "rollover": 0.37},
        {"rate": "5/month", "starts": 15},
        {"rate": "13/year", "tz": "Pacific/Apia", "rollover": 1.0},
        {"rate": "0/day"},
    ]
    return [Quota(**options, scope=scope) for options in calendars]


def slots(scope: Scope = "user") -> list[Limit]:
    return [
        Concurrency(count, lease, scope=scope) for count, lease in product((0, 1, 2, 3, 5, 8), (0.001, 1.5, 60, 90_000))
    ]


def softened(limits: Iterable[Limit]) -> list[Limit]:
    """The same limits, none of which refuses anything."""
    return [with_rate(limit, limit.rate, enforce=False) for limit in limits]


def with_rate(limit: Limit, rate: Rate, *, enforce: bool | None = None) -> Limit:
    """The limit with another count, and so in the same buckets."""
    options: dict[str, Any] = {"scope": limit.scope, "enforce": limit.enforce if enforce is None else enforce}
    match limit:
        case Quota():
            calendar, spelled = limit.calendar, f"{rate.count}/{limit.calendar.unit}"
            starts = {"week": calendar.starts, "month": calendar.starts}.get(calendar.unit)
            day = WEEKDAYS[calendar.starts] if calendar.unit == "week" else starts
            return Quota(spelled, tz=calendar.zone, starts=day, rollover=limit.rollover, **options)
        case Concurrency():
            return Concurrency(rate.count, limit.lease, **options)
        case LeakyBucket():
            return LeakyBucket(rate.plain, queue=limit.capacity - 1 if limit.capacity else 3, **options)
        case TokenBucket():
            return TokenBucket(rate, **options)
        case _:
            return type(limit)(rate.plain, **options)


def changed(limits: Iterable[Limit], times: int) -> list[Limit]:
    """The limits with other counts and bursts. Those of zero allow some."""
    return [with_rate(limit, _changed(limit.rate, times)) for limit in limits]


def _changed(rate: Rate, times: int) -> Rate:
    count = max(1, rate.count * times // 3 + (times == 4))
    return Rate(count, rate.period_us, rate.burst and max(1, rate.burst * times // 5) if rate.count else None)


WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
ALGORITHMS = {
    "TokenBucket": tokens(),
    "LeakyBucket": queues(),
    "FixedWindow": windows(),
    "SlidingWindow": logs(),
    "Quota": quotas(),
    "Concurrency": slots(),
}
SCOPES: tuple[Scope, ...] = ("user", "shared", "global")
ALL = [limit for scope in SCOPES for kind in (tokens, queues, windows, logs, quotas, slots) for limit in kind(scope)]
SOFT = softened(ALL)


def lists_of(limits: Sequence[Limit]) -> st.SearchStrategy[list[Limit]]:
    return st.lists(st.sampled_from(limits), min_size=2, max_size=4, unique_by=lambda limit: limit.identity)


# The steps of a trace.


Caller = tuple[str | tuple[str, ...], str]  # the key, and the resource; several keys are those of the limits in turn


class Check(NamedTuple):
    caller: Caller
    cost: int  # 1, 2, 3; or 0 for the capacity, -1 for one less, -2 for half of it
    peek: bool = False


class Refund(NamedTuple):
    back: int  # which decision: 0 the last one


class Settle(NamedTuple):
    back: int  # which decision: 0 the last one
    used: int  # the cost in the end; below 0, so many capacities


class Change(NamedTuple):
    to: int  # the limits as they are, or with other counts


class Reset(NamedTuple):
    caller: Caller


class Block(NamedTuple):
    key: str | tuple[str, ...]
    seconds: float


class Move(NamedTuple):
    us: int  # the clock goes on, or back
    mark: str = ""  # first to the moment in the last decision, "retry" or "reset"


Step = Check | Refund | Settle | Change | Reset | Block | Move

CALLERS = [("a", "")] * 6 + [("a", "x"), ("b", ""), ("b", "x")]
_COSTS = (1, 1, 1, 2, 3, 0, -1, -2)
_ON = (1, 7, 999, 20_408, 142_857, 333_333, 999_999, 1_000_003, 13_000_007, 3_600_000_000)
_FAR = (40_000_000_000, 86_400_000_000, 8 * 86_400_000_000, 31 * 86_400_000_000)  # for quotas
_BACK = (-1, -999, -142_857, -5_000_011, -86_400_000_000)

FORWARD: list[Step] = [
    *(Check(caller, cost) for caller, cost in product(CALLERS, _COSTS)),
    *(Check(caller, cost, peek=True) for caller, cost in product(CALLERS[-4:], (1, 3, 0))),
    *(Refund(back) for back in (0, 0, 0, 1, 1, 2, 3, 5) for _ in range(2)),
    *(Settle(back, used) for back, used in product((0, 0, 1, 2, 4), (0, 1, 2, 5, -1, -2, -3))),
    *(Reset(caller) for caller in CALLERS[-4:]),
    *(Block(key, seconds) for key, seconds in product("ab", (0, 0.0000015, 0.75, 90))),
    *(Move(us) for us in (*_ON, *_FAR)),
    *(Move(us, mark) for us, mark in product((-1, 0, 1), ("retry", "retry", "reset"))),
]
STEADY = [*FORWARD, *(Move(us) for us in _BACK)]
STEPS = [*STEADY, *(Change(to) for to in (0, 0, 1, 1, 2, 2))]
STARTS = st.sampled_from([1_700_000_000_000_000, 1_700_000_000_123_457, 3_999_999_999_999_999])


SEVERAL_KEYS: list[Step] = [
    *(
        Check(caller, cost)
        for caller, cost in product(product([("a", "b")] * 3 + [("b", "a"), ("a", "c", "b")], ["", "x"]), _COSTS)
    ),
    *(Check((key, "x"), cost, peek=True) for key, cost in product([("a", "b"), ("b", "c")], (1, 3, 0))),
    *(Reset((key, per)) for key, per in product([("a", "b"), ("c", "a")], ["", "x"])),
    *(Block(("b", "c"), seconds) for seconds in (0, 0.0000015, 0.75, 90)),
]


def traces_of(steps: Sequence[Step]) -> st.SearchStrategy[list[Step]]:
    return st.lists(st.sampled_from(steps), min_size=3, max_size=25)


# Playing it.


class TraceClock(ManualClock):
    """Shared by many traces, each of which begins at a moment of its own."""

    def begin(self, us: int) -> None:
        self._now = us

    def move(self, us: int) -> None:
        self._now += us


class Pair(NamedTuple):
    memory: Decision
    redis: Decision


class Forgetful(Holders):
    """No lease is renewed: in memory that takes no time, over Redis it takes a timer, and in a trace none goes off."""

    __slots__ = ()

    def add(self, key: BucketKey, slot: Slot) -> None:
        pass


class Duel:
    """One limiter in memory and one in Redis, at the same time by the same clock.

    The steps between two moves of the clock are sent to Redis together.
    """

    def __init__(self, limits: Iterable[Limit], clock: TraceClock, store: RedisStore) -> None:
        name, chosen, memory = f"trace{next(_names)}", list(limits), MemoryStore(clock=clock)
        memory.records.holders = Forgetful
        versions = [chosen, changed(chosen, 2), changed(chosen, 4)]
        self._limiters = [
            (Limiter(limits, store=memory, name=name), Limiter(limits, store=store, name=name)) for limits in versions
        ]
        self.memory, self.redis = self._limiters[0]
        self.clock = clock
        self.pairs: list[Pair] = []
        self._deciders: list[tuple[Limiter, Limiter]] = []  # of each pair
        self._memory: list[Decision] = []
        self._sent: list[Coroutine[Any, Any, Any]] = []

    async def play(self, trace: Sequence[Step]) -> list[Pair]:
        for step in trace:
            await self._take(step)
        await self._receive()
        return self.pairs

    async def _take(self, step: Step) -> None:
        match step:
            case Check():
                await self._check(step)
            case Refund(back):
                await self._settle(back, 0)
            case Settle(back, used):
                await self._settle(back, used)
            case Change(to):
                self.memory, self.redis = self._limiters[to]
            case Reset((key, per)):
                key = self._fitted(key)
                await self.memory.reset(key, per=per)
                self._sent.append(self.redis.reset(key, per=per))
            case Block(key, seconds):
                key = self._fitted(key)
                await self.memory.block(key, seconds)
                self._sent.append(self.redis.block(key, seconds))
            case Move(us, mark):
                await self._receive()
                self.clock.move(max(0, us + self._last_us(mark)) if mark else us)

    async def _check(self, check: Check) -> None:
        key, per, cost = self._fitted(check.caller[0]), check.caller[1], self._cost(check.cost)
        self._deciders.append((self.memory, self.redis))
        if check.peek:
            self._memory.append(await self.memory.peek(key, cost, per=per))
            self._sent.append(self.redis.peek(key, cost, per=per))
        else:
            self._memory.append(await self.memory.try_acquire(key, cost, per=per))
            self._sent.append(self.redis.try_acquire(key, cost, per=per))

    async def _settle(self, back: int, used: int) -> None:
        if self._memory:
            await self._receive()
        if back < len(self.pairs):
            (in_memory, in_redis), (memory, redis) = self._deciders[-1 - back], self.pairs[-1 - back]
            cost = used if used >= 0 else -used * in_memory.capacity
            await in_memory.settle(memory, cost)
            self._sent.append(in_redis.settle(redis, cost))

    def _fitted(self, key: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """One key for each limit, in turn."""
        return key if isinstance(key, str) else tuple(islice(cycle(key), len(self.memory.limits)))

    def _cost(self, cost: int) -> int:
        capacity = self.memory.capacity
        wanted = cost if cost > 0 else {0: capacity, -1: capacity - 1, -2: capacity // 2}[cost]
        return min(max(1, wanted), capacity or 3)

    def _last_us(self, mark: str) -> int:
        if not self.pairs:
            return 0
        last = self.pairs[-1].memory
        return last.retry_us if mark == "retry" else last.reset_us

    async def _receive(self) -> None:
        sent, self._sent = self._sent, []
        memory, self._memory = self._memory, []
        answers = [answer for answer in await asyncio.gather(*sent) if answer is not None]
        self.pairs += [Pair(*pair) for pair in zip(memory, answers, strict=True)]


def public(decision: Decision) -> tuple[object, ...]:
    """All that a decision says, of each of its limits too."""
    # Of a blocked key with buckets in another slot, the wait after the block cannot be computed.
    later = () if decision.reason == "blocked" else (decision.wait_us(1), decision.as_refusal(1))
    parts = [(part, part.cost, part.measure, part.over) for part in decision.parts]
    return (decision, decision.cost, decision.measure, decision.over, later, parts)
