"""Limits, the limiter's verbs, and bulk work."""

from __future__ import annotations

import asyncio

from asgi_ratelimit import (
    Concurrency,
    Decision,
    FixedWindow,
    LeakyBucket,
    Limiter,
    MemoryStore,
    Quota,
    RateLimited,
    RateLimitError,
    RateLimitWarning,
    SlidingWindow,
    StoreUnavailable,
    TokenBucket,
    pace,
)
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock

clock = ManualClock(start=1_700_000_000.0)
store = MemoryStore(max_keys=10_000, clock=clock, on_event=lambda event: print(event.kind))

burst = TokenBucket("50/s", burst=100, name="burst", scope="global", outage="open")
spaced = LeakyBucket("5/s", queue=10, name="spaced", scope="shared", outage="local", enforce=True, unit="jobs")
exact = SlidingWindow("100/hour", name="exact", scope="user", outage="closed", enforce=True, unit="searches")
window = FixedWindow("5/5s", name="window", scope="user", outage=None, enforce=False, unit="bytes")
monthly = Quota("50000/month", tz="Europe/Berlin", starts=15, rollover=0.5, name="monthly", unit="tokens")
soft = TokenBucket("80/minute", name="soft", enforce=False, unit="tokens")

at_a_time = Concurrency(
    10, lease=60, name="open", scope="shared", outage="local", enforce=False, unit="calls", status=503
)

from_a_string = Limiter("5/5s")
from_a_limit = Limiter(burst, store=store, name="search")
from_a_list = Limiter(["10/s", exact], store=store, name="search", global_name="app")
from_a_tuple = Limiter((window, spaced, "1000/day"), store=store)
weekly = Quota("10/week", starts="sunday", scope="shared", outage="open", enforce=False)
by_calendar = Limiter([monthly, weekly, soft, "100/minute"], store=store)
in_threads = SyncLimiter(["5/5s", burst], store=store, name="mail", global_name="app")


def described(decision: Decision) -> tuple[bool, int, float, str]:
    numbers = (decision.limit, decision.remaining, decision.cost)
    seconds = (decision.reset_after, decision.retry_after, decision.delay)
    texts: tuple[str, str, str] = (decision.bucket, decision.scope, decision.reason)
    parts: list[str] = [part.reason for part in decision.parts]
    parts += [str(limit) for limit in decision.over]
    return decision.allowed, sum(numbers), sum(seconds), " ".join([*texts, *parts])


async def verbs(limiter: Limiter) -> float:
    decision: Decision = await limiter.try_acquire("user:1", 2, per="channel:1")
    await limiter.try_acquire(("203.0.113.7", "account:alice"))
    waited: Decision = await limiter.acquire("user:1", cost=1, timeout=10, per="channel:1")
    seen: Decision = await limiter.peek("user:1", 1, per="channel:1")
    over: list[str] = [str(limit) for limit in decision.over]
    await limiter.settle(decision, 1200 if over else 0)
    await limiter.refund(decision)
    await limiter.settle(waited, 12)
    await limiter.reset("user:1", per="channel:1")
    await limiter.block("user:1", 60)
    return described(waited)[2] + seen.retry_after + limiter.capacity


async def calls_that_go_on(limiter: Limiter) -> bool:
    async with limiter.hold("user:1", cost=1, timeout=2, per="channel:1") as decision:
        held: Decision = decision
    await limiter.release(held)
    return held.allowed


def calls_that_go_on_in_a_thread(limiter: SyncLimiter) -> bool:
    with limiter.hold("user:1", cost=1, timeout=2, per="channel:1") as decision:
        held: Decision = decision
    limiter.release(held)
    return held.allowed


def verbs_in_a_thread(limiter: SyncLimiter) -> str:
    decision: Decision = limiter.try_acquire("all", 2, per="channel:1")
    limiter.try_acquire(("203.0.113.7", "account:alice"))
    waited: Decision = limiter.acquire("all", cost=1, timeout=10.0, per="channel:1")
    seen: Decision = limiter.peek("all", 1, per="channel:1")
    limiter.settle(decision, 3)
    limiter.refund(decision)
    limiter.reset("all", per="channel:1")
    limiter.block("all", 60.0)
    return f"{limiter.name} {waited.allowed} {seen.allowed} {limiter.capacity}"


async def failures(limiter: Limiter) -> float:
    try:
        await limiter.acquire("user:1", timeout=0.5)
    except RateLimited as refused:
        decision: Decision = refused.decision
        return refused.retry_after + decision.reset_after
    except StoreUnavailable:
        return 0.0
    except RateLimitError as error:
        raise RateLimitWarning(str(error)) from error
    return 0.0


async def send(channel: int) -> str:
    await clock.sleep(0)
    return f"sent to {channel}"


async def shout(text: str) -> str:
    return text.upper()


async def bulk_work() -> list[str]:
    results: list[str] = []
    async for outcome in pace(
        [1, 2, 3],
        send,
        limit=["50/s", burst],
        concurrency=4,
        progress=False,
        key=lambda channel: f"channel:{channel}",
        store=store,
    ):
        item: int = outcome.item
        results.append(outcome.result if outcome.ok and outcome.result else f"{item}: {outcome.error!r}")
    results.extend([outcome.item async for outcome in pace("ab", shout, limit=from_a_string, key="all")])
    results.extend([str(outcome.result) async for outcome in pace([1], send, limit=None)])
    return results


async def main() -> None:
    clock.advance(1)
    await verbs(from_a_list)
    await failures(from_a_list)
    await bulk_work()
    await store.start()
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main())
    verbs_in_a_thread(in_threads)
