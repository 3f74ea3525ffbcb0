"""What `escalate=` adds to a refused request: of one key that hammers, and of a flood of keys.

Run `python -m benchmarks.refusals`, or with the address of a Redis: `python -m benchmarks.refusals redis://...`.
A flood has two requests of each key, of which the second is refused.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from time import perf_counter
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from asgi_ratelimit import Escalate, MemoryStore, RateLimitMiddleware

REQUESTS, AT_ONCE = 40_000, 100
ESCALATES = {"without": None, "with": Escalate(after=20, within=60, block=(600,))}


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None: ...


def key_of(conn: HTTPConnection) -> str:
    return str(conn.scope["client"][0])


async def serve(app: RateLimitMiddleware, keys: Iterable[str]) -> None:
    for key in keys:
        await app({"type": "http", "method": "GET", "path": "/", "headers": [], "client": (key, 1)}, receive, send)


async def measure(store: Any, escalate: Escalate | None, keys: list[str]) -> float:
    """Microseconds for each request."""
    name = secrets.token_hex(4)
    app = RateLimitMiddleware(hello, limit="1/hour", key=key_of, store=store, name=name, escalate=escalate)
    started = perf_counter()
    await asyncio.gather(*(serve(app, keys[place::AT_ONCE]) for place in range(AT_ONCE)))
    return (perf_counter() - started) / len(keys) * 1e6


async def main(url: str | None) -> None:
    store: Any = nullcontext(MemoryStore())
    if url is not None:
        from asgi_ratelimit.redis import RedisStore

        store = RedisStore(url, prefix="benchmark-refusals", timeout=5)
    half = [f"key {number}" for number in range(REQUESTS // 2)]
    floods = {"one key": ["key"] * REQUESTS, "a flood of keys": half + half}
    async with store as opened:
        for kind, keys in floods.items():
            times = {name: await measure(opened, escalate, keys) for name, escalate in ESCALATES.items()}
            print(f"{kind}: " + ", ".join(f"{time:.1f} µs {name}" for name, time in times.items()))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if sys.argv[1:] else None))
