"""One of the processes that hold slots together. redis/test_slot_processes.py starts it, and may kill it at any time.

It reads the port of the referee and the addresses of the stores, reports "ready", and holds slots from a line on.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from asgi_ratelimit import Limiter
from asgi_ratelimit.limits import Concurrency
from asgi_ratelimit.redis import RedisStore
from tests.support.referee import Visits

KEY = "a team"
LIMIT = Concurrency(5, lease=3.0)
CALLS = 150  # of a round
LONG_S = 4.0  # longer than a lease


def slots(url: str, prefix: str) -> tuple[RedisStore, Limiter]:
    store = RedisStore(url, prefix=prefix, timeout=5.0, outage="closed")
    return store, Limiter(LIMIT, store=store, name="slots")


async def call(limiter: Limiter, visits: Visits, place: int, seconds: float) -> None:
    async with limiter.hold(KEY):
        visits.enter(place)
        try:
            await asyncio.sleep(seconds)
        finally:
            visits.leave(place)


async def hold(limiters: Sequence[Limiter], visits: Visits) -> None:
    """Rounds of many calls, nearly all of which are cancelled: at their check, in line, inside, or on their way out."""
    while True:
        place = random.randrange(len(limiters))
        lengths = [random.choice((0, 0.001, 0.003)) for _ in range(CALLS)]
        calls = [asyncio.ensure_future(call(limiters[place], visits, place, length)) for length in lengths]
        await asyncio.sleep(random.choice((0, 0, 0.0005, 0.002, 0.005)))
        for each in random.sample(calls, CALLS - 1):
            each.cancel()
            if random.random() < 0.05:
                await asyncio.sleep(0)
        results = await asyncio.gather(*calls, return_exceptions=True)
        errors = [each for each in results if isinstance(each, Exception)]
        assert not errors, errors[0]
        visits.report(sum(isinstance(each, asyncio.CancelledError) for each in results))


async def hold_long(limiter: Limiter, visits: Visits, place: int) -> None:
    """Calls that take longer than a lease, so that each has to be renewed."""
    while True:
        await call(limiter, visits, place, LONG_S)


async def main() -> None:
    port, addresses, is_long = json.loads(sys.stdin.readline())
    visits = Visits(port)
    async with AsyncExitStack() as stack:
        limiters = []
        for url, prefix in addresses:
            store, limiter = slots(url, prefix)
            limiters.append(limiter)
            await stack.enter_async_context(store)
            await limiter.peek(KEY)
        print("ready", flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.readline)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(hold(limiters, visits))
            for place, limiter in enumerate(limiters if is_long else ()):
                group.create_task(hold_long(limiter, visits, place))


if __name__ == "__main__":
    asyncio.run(main())
