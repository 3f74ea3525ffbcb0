"""One of the workers that serve an app which blocks hammering clients. inbound/test_escalate_workers.py starts it.

It reads the address of the store and a prefix, and answers "ready". Then each line is an app, a key and a number of
requests, which come at once; its answer counts the statuses, and lists the blocks that have begun here since.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

from asgi_ratelimit import Escalate, RateLimitMiddleware, by_header
from asgi_ratelimit.observe import Event
from asgi_ratelimit.redis import RedisStore
from tests.support.asgi import ask, hello

__all__ = ["ESCALATES", "store_at"]

PATIENCE = 10.0
ESCALATES = {
    "site": Escalate(after=20, within=60, block=(60, 600)),
    "quick": Escalate(after=20, within=60, block=(0.5, 600)),
}


def store_at(url: str, prefix: str) -> RedisStore:
    return RedisStore(url, prefix=prefix, secret="of the app", timeout=PATIENCE, outage="closed")


def app_of(name: str, store: RedisStore) -> RateLimitMiddleware:
    key = by_header("x-key")
    return RateLimitMiddleware(hello, limit="5/hour", key=key, name=name, store=store, escalate=ESCALATES[name])


async def main() -> None:
    url, prefix = json.loads(sys.stdin.readline())
    store, began = store_at(url, prefix), list[float]()

    def note(event: Event) -> None:
        if event.kind == "escalated":
            began.append(event.seconds)

    store.observers.add(note)
    apps = {name: app_of(name, store) for name in ESCALATES}
    async with store:
        print("ready", flush=True)  # noqa: T201
        while line := await asyncio.to_thread(sys.stdin.readline):
            name, key, times = json.loads(line)
            answers = await asyncio.gather(*(ask(apps[name], headers=[("x-key", key)]) for _ in range(times)))
            counted = Counter(str(answer.status) for answer in answers)
            print(json.dumps([counted, began]), flush=True)  # noqa: T201
            began.clear()


if __name__ == "__main__":
    asyncio.run(main())
