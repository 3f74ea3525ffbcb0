"""Redis in every form, behind the middleware and by itself."""

from __future__ import annotations

import logging

from redis.asyncio import Redis
from starlette.applications import Starlette

from asgi_ratelimit import Limiter, RateLimitMiddleware, StoreEvent, TokenBucket
from asgi_ratelimit.redis import EventHook, RedisStore, Where
from asgi_ratelimit.testing import ManualClock

logger = logging.getLogger(__name__)


def note(event: StoreEvent) -> None:
    logger.warning("%s is %s for %.1f s: %s", event.node, event.kind, event.seconds, event.cause)


def fail_closed(where: Where, on_event: EventHook) -> RedisStore:
    return RedisStore(where, outage="closed", on_event=on_event)


every_option = RedisStore(
    "redis://localhost:6379/0",
    prefix="ratelimit",
    secret="pepper",
    timeout=0.05,
    outage="local",
    deny_cache=0,
    observers=[print],
    clock=ManualClock(),
    on_event=note,
)
sentinel = RedisStore("redis+sentinel://localhost:26379/mymaster", outage="open", secret=b"pepper", on_event=print)
cluster = fail_closed("redis+cluster://localhost:7000,localhost:7001", note)

app = Starlette()
app.add_middleware(RateLimitMiddleware, limit=["100/minute", TokenBucket("9/s", outage="closed")], store=every_option)


async def by_itself() -> bool:
    client = Redis(host="localhost")
    async with RedisStore(client) as store:
        limiter = Limiter("5/5s", store=store)
        decision = await limiter.try_acquire("user:1")
    await cluster.start()
    await cluster.aclose()
    return decision.allowed
