"""One of the processes that spend one budget together. redis/test_spending.py starts it, and may kill it at any time.

It reads the addresses of the stores, reports "ready", and spends from a line on. Each call is reported with a line
when it is charged, and again with its final cost before the next one begins.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from asgi_ratelimit import FixedWindow, Limiter, TokenBucket
from asgi_ratelimit.limits import Limit, Quota
from asgi_ratelimit.redis import RedisStore

KEY = "a team"
MOST = 20  # the highest cost of a call; it may be twice that in the end
PATIENCE = 5.0
FLOW = TokenBucket("200/s", burst=4_000)
LIMITS: Sequence[Limit] = (FLOW, FixedWindow("10000000/week"), Quota("10000000/year"))


def budget(url: str, prefix: str) -> tuple[RedisStore, Limiter]:
    store = RedisStore(url, prefix=prefix, timeout=PATIENCE, outage="closed", deny_cache=0)
    return store, Limiter(LIMITS, store=store, name="budget")


async def spend(place: int, limiter: Limiter) -> None:
    """Calls of random costs, a third of which are settled for less, a third for more, until the process is killed."""
    while True:
        decision = await limiter.try_acquire(KEY, cost := random.randint(1, MOST))
        if not decision.allowed:
            await asyncio.sleep(0.002)
            continue
        report(place, "charged", cost, decision.now_us)
        used = random.choice([cost, random.randint(0, cost), random.randint(cost, 2 * MOST)])
        await limiter.settle(decision, used)
        report(place, "settled", used, decision.now_us)


def report(place: int, word: str, cost: int, now_us: int) -> None:
    print(place, word, cost, now_us, flush=True)  # noqa: T201


async def main() -> None:
    addresses = json.loads(sys.stdin.readline())
    async with AsyncExitStack() as stack:
        limiters = []
        for url, prefix in addresses:
            store, limiter = budget(url, prefix)
            limiters.append(limiter)
            await stack.enter_async_context(store)
            await limiter.peek(KEY)
        print("ready", flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.readline)
        async with asyncio.TaskGroup() as group:
            for place, limiter in enumerate(limiters):
                group.create_task(spend(place, limiter))


if __name__ == "__main__":
    asyncio.run(main())
