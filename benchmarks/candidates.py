"""The candidates in memory. Each is a loop that checks many keys through its own API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic_ns
from typing import Any

__all__ = ["CANDIDATES", "FLOOR", "KINDS", "OURS", "Allowance", "BareGCRA", "Drive", "Take", "drive_of", "keys_of"]

Drive = Callable[[Sequence[str]], Awaitable[bool]]  # asks about every key and returns whether the last was allowed
Take = Callable[[str], Awaitable[object]]  # asks about one key


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many in so many seconds, with a burst of as many."""

    count: int
    seconds: int


def keys_of(number: int) -> list[str]:
    return [f"user:{n}" for n in range(number)]


class BareGCRA:
    """The floor: one dict, one clock, one comparison. No lock, no bound, no answer but yes or no."""

    def __init__(self, allowance: Allowance) -> None:
        self.depth = allowance.seconds * 1_000_000_000
        self.interval = self.depth // allowance.count
        self.full_at: dict[str, int] = {}

    async def take(self, key: str) -> bool:
        now = monotonic_ns()
        full_at = self.full_at.get(key, now)
        if full_at < now:
            full_at = now
        full_at += self.interval
        if full_at - now > self.depth:
            return False
        self.full_at[key] = full_at
        return True


async def floor(allowance: Allowance) -> Drive:
    bucket = BareGCRA(allowance)

    async def drive(keys: Sequence[str]) -> bool:
        for key in keys:
            allowed = await bucket.take(key)
        return allowed

    return drive


async def ours(allowance: Allowance) -> Drive:
    from asgi_ratelimit import Limiter

    limiter = Limiter(f"{allowance.count}/{allowance.seconds}s")

    async def drive(keys: Sequence[str]) -> bool:
        for key in keys:
            decision = await limiter.try_acquire(key)
        return decision.allowed

    return drive


async def token_bucket(allowance: Allowance) -> Drive:
    from token_bucket import Limiter, MemoryStorage

    limiter = Limiter(allowance.count / allowance.seconds, allowance.count, MemoryStorage())

    async def drive(keys: Sequence[str]) -> bool:
        for key in keys:
            allowed = limiter.consume(key)  # a plain function: it has no async API
        return bool(allowed)

    return drive


def traffik(strategy: str) -> Callable[[Allowance], Awaitable[Drive]]:
    async def build(allowance: Allowance) -> Drive:
        from traffik import Rate, strategies
        from traffik.backends.inmemory import InMemoryBackend

        backend: Any = InMemoryBackend()
        await backend.initialize()
        rate = Rate(limit=allowance.count, seconds=allowance.seconds)
        take = getattr(strategies, strategy)()

        async def drive(keys: Sequence[str]) -> bool:
            for key in keys:
                wait_ms = await take(key, rate, backend)
            return not wait_ms

        return drive

    return build


def limits(strategy: str) -> Callable[[Allowance], Awaitable[Drive]]:
    async def build(allowance: Allowance) -> Drive:
        from limits import RateLimitItemPerSecond
        from limits.aio import strategies
        from limits.aio.storage import MemoryStorage

        limiter = getattr(strategies, strategy)(MemoryStorage())
        item = RateLimitItemPerSecond(allowance.count, allowance.seconds)

        async def drive(keys: Sequence[str]) -> bool:
            for key in keys:
                allowed = await limiter.hit(item, key)
            return bool(allowed)

        return drive

    return build


def throttled(algorithm: str) -> Callable[[Allowance], Awaitable[Drive]]:
    async def build(allowance: Allowance) -> Drive:
        from throttled.asyncio import MemoryStore, Throttled, per_duration

        quota = per_duration(timedelta(seconds=allowance.seconds), allowance.count)
        # By default its store forgets all but the last 1024 keys.
        throttle = Throttled(using=algorithm, quota=quota, store=MemoryStore(options={"MAX_SIZE": 2_000_000}))

        async def drive(keys: Sequence[str]) -> bool:
            for key in keys:
                result = await throttle.limit(key)
            return not result.limited

        return drive

    return build


async def pyrate(allowance: Allowance) -> Drive:
    from pyrate_limiter import BucketFactory, Limiter, MonotonicClock, Rate, RateItem, StateBucket, TokenBucket

    clock, rates, algorithm = MonotonicClock(), [Rate(allowance.count, allowance.seconds * 1_000)], TokenBucket()

    class BucketPerName(BucketFactory):  # type: ignore[misc]
        """As its manual shows it, less the background task, which has nothing to do for this algorithm."""

        def __init__(self) -> None:
            self.buckets: dict[str, StateBucket] = {}

        def wrap_item(self, name: str, weight: int = 1) -> RateItem:
            return RateItem(name, clock.now(), weight=weight)

        def get(self, item: RateItem) -> StateBucket:
            if item.name not in self.buckets:
                self.buckets[item.name] = StateBucket(rates, algorithm=algorithm, clock=clock)
            return self.buckets[item.name]

    limiter = Limiter(BucketPerName())

    async def drive(keys: Sequence[str]) -> bool:
        for key in keys:
            allowed = await limiter.try_acquire_async(key, blocking=False)
        return bool(allowed)

    return drive


FLOOR, OURS = "bare GCRA on a dict (the floor)", "**asgi_ratelimit, token bucket**"
CANDIDATES: dict[str, Callable[[Allowance], Awaitable[Drive]]] = {
    FLOOR: floor,
    OURS: ours,
    "token-bucket (sync, a bool)": token_bucket,
    "traffik, fixed window": traffik("FixedWindowStrategy"),
    "traffik, token bucket": traffik("TokenBucketStrategy"),
    "limits.aio, fixed window": limits("FixedWindowRateLimiter"),
    "limits.aio, moving window": limits("MovingWindowRateLimiter"),
    "throttled-py, GCRA": throttled("gcra"),
    "throttled-py, token bucket": throttled("token_bucket"),
    "pyrate-limiter, token bucket": pyrate,
}


# All kinds of limit that we have


def bare(allowance: Allowance) -> Take:
    return BareGCRA(allowance).take


def kind(name: str) -> Callable[[Allowance], Take]:
    def build(allowance: Allowance) -> Take:
        import asgi_ratelimit

        rate = f"{allowance.count}/{allowance.seconds}s"
        if name == "LeakyBucket":
            return asgi_ratelimit.Limiter(asgi_ratelimit.LeakyBucket(rate, queue=allowance.count)).try_acquire
        return asgi_ratelimit.Limiter(getattr(asgi_ratelimit, name)(rate)).try_acquire

    return build


def drive_of(take: Take) -> Drive:
    async def drive(keys: Sequence[str]) -> bool:
        for key in keys:
            decision = await take(key)
        return bool(getattr(decision, "allowed", decision))

    return drive


KINDS: dict[str, Callable[[Allowance], Take]] = {
    FLOOR: bare,
    **{name: kind(name) for name in ("TokenBucket", "LeakyBucket", "FixedWindow", "SlidingWindow")},
}
