"""One of the workers that guard one log-in together. login/test_workers.py starts it.

It reads the address of the store and a prefix, and answers "ready". Then each line is a list of visits, which come at
once; its answer says how they have ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

from asgi_ratelimit import RateLimited
from asgi_ratelimit.login import LoginGuard
from asgi_ratelimit.redis import RedisStore

__all__ = ["guard_at"]

PATIENCE = 10.0
AT_ONCE = 100  # visits in a worker


def guard_at(url: str, prefix: str, **options: Any) -> tuple[RedisStore, LoginGuard]:
    store = RedisStore(url, prefix=prefix, secret="of the app", timeout=PATIENCE, outage="closed")
    return store, LoginGuard(store=store, **options)


async def visit(guard: LoginGuard, account: str, address: str, right: bool) -> str:
    try:
        async with guard.attempt(account, address) as attempt:
            if right:
                await asyncio.sleep(0.02)  # a password is being hashed
                attempt.succeeded()
    except RateLimited as refused:
        return "busy" if refused.retry_after == 1 else "refused"
    return "in" if right else "wrong"


async def answer(guard: LoginGuard, visits: list[tuple[str, str, bool]]) -> str:
    room = asyncio.Semaphore(AT_ONCE)

    async def enter(one: tuple[str, str, bool]) -> str:
        async with room:
            return await visit(guard, *one)

    return json.dumps(Counter(await asyncio.gather(*(enter(one) for one in visits))))


async def main() -> None:
    url, prefix = json.loads(sys.stdin.readline())
    guards = {}
    store, guards["usual"] = guard_at(url, prefix)
    async with store:
        guards["office"] = LoginGuard(store=store, address="5/15 minutes", name="office")
        await guards["usual"].peek("nobody")
        print("ready", flush=True)  # noqa: T201
        while line := await asyncio.to_thread(sys.stdin.readline):
            name, visits = json.loads(line)
            print(await answer(guards[name], visits), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
