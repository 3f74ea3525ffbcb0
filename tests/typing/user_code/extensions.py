"""A store and a limit of a user's own, and decisions that a user's test builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.applications import Starlette

from asgi_ratelimit import (
    ASGIApplication,
    BucketKey,
    Buckets,
    Charge,
    Clock,
    Decision,
    HeaderStyle,
    Key,
    Limit,
    Limiter,
    LimitSpec,
    Measure,
    MemoryStore,
    Outage,
    Outcome,
    Policy,
    Rate,
    RateLimitMiddleware,
    Reason,
    Scope,
    Settlement,
    State,
    Store,
    TokenBucket,
    bucket_key,
)
from asgi_ratelimit.testing import ManualClock


class Cooldown(Limit):
    """One call of any cost, then none for a period. The state is the end of the pause."""

    def take(self, state: int | None, now_us: int, cost: int) -> int | None:
        return now_us + self.rate.period_us if state is None or self.is_full(state, now_us) else None

    def give_back(self, state: int | None, now_us: int, cost: int, charged: int, charged_at: int) -> int | None:
        return None if state == charged else state

    def measure(self, state: int | None, now_us: int, cost: int) -> tuple[int, int, int]:
        if state is None or self.is_full(state, now_us):
            return self.capacity, 0, 0
        return 0, state - now_us, state - now_us

    def is_full(self, state: int, now_us: int) -> bool:
        return state <= now_us


@dataclass
class DictBuckets:
    """The buckets of one limiter with one limit, in a dict. It keeps no blocks."""

    policy: Policy
    clock: Clock
    states: dict[str, int]

    def decide(self, key: str, cost: int, per: str, waiting: bool = False) -> Decision:
        bucket, now_us = bucket_key(self.policy.limit.scope, key, per), self.clock.now_us()
        state = self.policy.limit.take(self.states.get(bucket), now_us, cost)
        if state is None:
            return Decision(self.policy, cost, self.states.get(bucket), now_us, allowed=False, bucket_key=bucket)
        self.states[bucket] = state
        receipt: Charge = (bucket, state)
        return Decision(self.policy, cost, state, now_us, True, receipt, bucket)

    async def peek(self, key: str, cost: int, per: str) -> Decision:
        now_us, state = self.clock.now_us(), self.states.get(bucket_key(self.policy.limit.scope, key, per))
        return Decision(self.policy, cost, state, now_us, self.policy.limit.take(state, now_us, cost) is not None)

    def settle(self, decision: Decision, cost: int) -> Settlement | None:
        if cost == 0 and isinstance(decision.bucket_key, str):
            self.states.pop(decision.bucket_key, None)
        return "cut" if cost > decision.cost else None

    def refund(self, decision: Decision) -> None:
        self.settle(decision, 0)

    async def reset(self, key: str, per: str) -> None:
        self.states.pop(bucket_key(self.policy.limit.scope, key, per), None)

    def block(self, key: str, seconds: float) -> None:
        raise NotImplementedError


class DictStore:
    """A store with buckets only, without Store as its base."""

    def __init__(self, clock: Clock) -> None:
        self.clock: Clock = clock
        self.shared: bool = False

    def open(self, name: str, policies: Sequence[Policy]) -> Buckets:
        return DictBuckets(policies[0], self.clock, {})

    async def clear(self) -> None:
        return None

    async def start(self) -> None:
        return None

    async def aclose(self) -> None:
        return None


class LoggedStore(MemoryStore):
    """One that adds to a store of the package."""

    async def aclose(self) -> None:
        print(len(self), "buckets")
        await super().aclose()


def store_of(settings: dict[str, str]) -> Store:
    return DictStore(ManualClock()) if "dict" in settings else LoggedStore()


def limiter_of(limit: LimitSpec, store: Store) -> Limiter:
    return Limiter(limit, store=store)


app = Starlette()
app.add_middleware(RateLimitMiddleware, limit=[Cooldown("1/10s"), "100/minute"], store=DictStore(ManualClock()))
limits: list[LimitSpec] = ["5/s", TokenBucket("5/s"), ["5/s", Cooldown("1/10s")]]
limiters = [limiter_of(limit, store_of({})) for limit in limits]


def refusal_in_a_test() -> Decision:
    policy = Policy(name="app", limit=TokenBucket("5/5s"))
    parts = (Decision(policy, 1, None, 0, True, delay_us=250_000), Decision(policy, 1, 5_000_000, 0, allowed=False))
    assert Decision.combine(parts).retry_after == 1.0
    return Decision(
        policy=policy,
        cost=1,
        state=None,
        now_us=0,
        allowed=False,
        charge=None,
        bucket_key="user:1",
        delay_us=0,
        reason="blocked",
        measure=(0, 60_000_000, 60_000_000),
        parts=parts,
        over=(TokenBucket("80/minute", enforce=False),),
    )


def failed(outcomes: list[Outcome[int, str]]) -> dict[int, Exception]:
    return {outcome.item: outcome.error for outcome in outcomes if outcome.error is not None}


def describe(decision: Decision) -> tuple[Reason, Scope, Outage | None, Rate, BucketKey]:
    limit = decision.policy.limit
    return decision.reason, decision.scope, limit.outage, limit.rate, decision.bucket_key


def measure_of(limit: Limit, state: State) -> Measure:
    return limit.measure(state, 0, 1)


def protect(app: ASGIApplication, key: Key, style: HeaderStyle) -> RateLimitMiddleware:
    return RateLimitMiddleware(app, limit="5/s", key=lambda conn: key, headers=style)


odd_rate = TokenBucket(Rate(count=7, period_us=1_500_000, burst=9))
