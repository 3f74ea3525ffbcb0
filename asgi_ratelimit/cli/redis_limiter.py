"""A limiter of an app's on the Redis that the app uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from asgi_ratelimit.cli.options import redis_url, secret_of
from asgi_ratelimit.cli.running import cause_of
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.store_events import StoreEvent

if TYPE_CHECKING:
    from asgi_ratelimit.redis import RedisStore

__all__ = ["limiter_on_redis", "open_store"]


@asynccontextmanager
async def limiter_on_redis(
    url: str | None, name: str, limits: Sequence[Limit], *, prefix: str, secret_file: Path | None, timeout: float
) -> AsyncIterator[Limiter]:
    """The limiter. Raises ValueError if an option cannot be used, StoreUnavailable if its server does not answer."""
    async with open_store(redis_url(url), prefix=prefix, secret=secret_of(secret_file), timeout=timeout) as store:
        yield Limiter(limits, store=store, name=name, global_name=_global_name(name))


def _global_name(name: str) -> str:
    """The name for limits of scope "global": those of all routes without a name of their own share one."""
    return "routes" if name.startswith("/") else name


@asynccontextmanager
async def open_store(url: str, *, prefix: str, secret: bytes | None, timeout: float) -> AsyncIterator[RedisStore]:
    """A store that answers with the server or not at all."""
    from asgi_ratelimit.redis import RedisStore

    events: list[StoreEvent] = []
    store = RedisStore(
        url, prefix=prefix, secret=secret, timeout=timeout, outage="closed", deny_cache=0, on_event=events.append
    )
    try:
        async with store:
            yield store
    except StoreUnavailable:
        trouble = next((event for event in events if event.kind in ("down", "missed")), None)
        if trouble is None:
            raise
        raise StoreUnavailable(f"{trouble.node} does not answer: {cause_of(trouble.cause)}") from None
