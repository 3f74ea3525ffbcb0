"""Histories of a limiter, drawn at random and played to a store in memory and to one in Redis, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from itertools import count, product
from typing import Any, NamedTuple

from hypothesis import strategies as st

from asgi_ratelimit import Decision, FixedWindow, LeakyBucket, Limiter, MemoryStore, SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit, Scope
from asgi_ratelimit.redis import RedisStore
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


ALGORITHMS = {"TokenBucket": tokens(), "LeakyBucket": queues(), "FixedWindow": windows(), "SlidingWindow": logs()}
SCOPES: tuple[Scope, ...] = ("user", "shared", "global")
ALL = [limit for scope in SCOPES for kind in (tokens, queues, windows, logs) for limit in kind(scope)]


def lists_of(limits: Sequence[Limit]) -> st.SearchStrategy[list[Limit]]:
    return st.lists(st.sampled_from(limits), min_size=2, max_size=4, unique_by=lambda limit: limit.identity)


# The steps of a trace.


class Check(NamedTuple):
    caller: tuple[str, str]  # the key, and the resource
    cost: int  # 1, 2, 3; or 0 for the capacity, -1 for one less, -2 for half of it
    peek: bool = False


class Refund(NamedTuple):
    back: int  # which decision: 0 the last one


class Reset(NamedTuple):
    caller: tuple[str, str]


class Block(NamedTuple):
    key: str
    seconds: float


class Move(NamedTuple):
    us: int  # the clock goes on, or back
    mark: str = ""  # first to the moment in the last decision, "retry" or "reset"


Step = Check | Refund | Reset | Block | Move

CALLERS = [("a", "")] * 6 + [("a", "x"), ("b", ""), ("b", "x")]
_COSTS = (1, 1, 1, 2, 3, 0, -1, -2)
_ON = (1, 7, 999, 20_408, 142_857, 333_333, 999_999, 1_000_003, 13_000_007, 3_600_000_000)
_BACK = (-1, -999, -142_857, -5_000_011, -86_400_000_000)

FORWARD: list[Step] = [
    *(Check(caller, cost) for caller, cost in product(CALLERS, _COSTS)),
    *(Check(caller, cost, peek=True) for caller, cost in product(CALLERS[-4:], (1, 3, 0))),
    *(Refund(back) for back in (0, 0, 0, 1, 1, 2, 3, 5) for _ in range(2)),
    *(Reset(caller) for caller in CALLERS[-4:]),
    *(Block(key, seconds) for key, seconds in product("ab", (0, 0.0000015, 0.75, 90))),
    *(Move(us) for us in _ON),
    *(Move(us, mark) for us, mark in product((-1, 0, 1), ("retry", "retry", "reset"))),
]
STEPS = [*FORWARD, *(Move(us) for us in _BACK)]
STARTS = st.sampled_from([1_700_000_000_000_000, 1_700_000_000_123_457, 3_999_999_999_999_999])


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


class Duel:
    """One limiter in memory and one in Redis, at the same time by the same clock.

    The steps between two moves of the clock are sent to Redis together.
    """

    def __init__(self, limits: Iterable[Limit], clock: TraceClock, store: RedisStore) -> None:
        name, chosen = f"trace{next(_names)}", list(limits)
        self.memory = Limiter(chosen, store=MemoryStore(clock=clock), name=name)
        self.redis = Limiter(chosen, store=store, name=name)
        self.clock = clock
        self.pairs: list[Pair] = []
        self._memory: list[Decision] = []
        self._sent: list[Coroutine[Any, Any, Any]] = []

    async def play(self, trace: Sequence[Step]) -> list[Pair]:
        for step in trace:
            await self._take(step)
        await self._settle()
        return self.pairs

    async def _take(self, step: Step) -> None:
        match step:
            case Check():
                await self._check(step)
            case Refund(back):
                await self._refund(back)
            case Reset((key, per)):
                await self.memory.reset(key, per=per)
                self._sent.append(self.redis.reset(key, per=per))
            case Block(key, seconds):
                await self.memory.block(key, seconds)
                self._sent.append(self.redis.block(key, seconds))
            case Move(us, mark):
                await self._settle()
                self.clock.move(max(0, us + self._last_us(mark)) if mark else us)

    async def _check(self, check: Check) -> None:
        (key, per), cost = check.caller, self._cost(check.cost)
        if check.peek:
            self._memory.append(await self.memory.peek(key, cost, per=per))
            self._sent.append(self.redis.peek(key, cost, per=per))
        else:
            self._memory.append(await self.memory.try_acquire(key, cost, per=per))
            self._sent.append(self.redis.try_acquire(key, cost, per=per))

    async def _refund(self, back: int) -> None:
        if self._memory:
            await self._settle()
        if back < len(self.pairs):
            memory, redis = self.pairs[-1 - back]
            await self.memory.refund(memory)
            self._sent.append(self.redis.refund(redis))

    def _cost(self, cost: int) -> int:
        capacity = self.memory.capacity
        wanted = cost if cost > 0 else {0: capacity, -1: capacity - 1, -2: capacity // 2}[cost]
        return min(max(1, wanted), capacity or 3)

    def _last_us(self, mark: str) -> int:
        if not self.pairs:
            return 0
        last = self.pairs[-1].memory
        return last.retry_us if mark == "retry" else last.reset_us

    async def _settle(self) -> None:
        sent, self._sent = self._sent, []
        memory, self._memory = self._memory, []
        answers = [answer for answer in await asyncio.gather(*sent) if answer is not None]
        self.pairs += [Pair(*pair) for pair in zip(memory, answers, strict=True)]


def public(decision: Decision) -> tuple[object, ...]:
    """All that a decision says, of each of its limits too."""
    # Of a blocked key with buckets in another slot, the wait after the block cannot be computed.
    later = () if decision.reason == "blocked" else (decision.wait_us(1), decision.as_refusal(1))
    parts = [(part, part.cost, part.measure) for part in decision.parts]
    return (decision, decision.cost, decision.measure, later, parts)
