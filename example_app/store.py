"""The store that keeps the buckets of the whole app: in memory, or in the Redis that RATELIMIT_REDIS_URL names."""

from __future__ import annotations

import os

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.store import Store

__all__ = ["described", "is_shared", "open_store"]


def open_store() -> Store:
    """In this process's memory, which is right for one worker; in Redis, any number of workers share it."""
    url = os.environ.get("RATELIMIT_REDIS_URL")
    if not url:
        return MemoryStore()
    from asgi_ratelimit.redis import RedisStore  # an extra: a store in memory works without it

    seconds = float(os.environ.get("RATELIMIT_REDIS_TIMEOUT") or 0.1)  # that a request waits for Redis
    return RedisStore(url, prefix="example_app", timeout=seconds)


def is_shared(store: Store) -> bool:
    """Whether other workers see its buckets too."""
    return not isinstance(store, MemoryStore)


def described(store: Store) -> str:
    """The place of the store and the workers that share it, as the page's badge shows them."""
    if not is_shared(store):
        return "in memory, 1 process"
    workers = os.environ.get("WEB_CONCURRENCY", "")  # uvicorn, too, reads the number of its workers here
    return f"Redis, shared by {workers} workers" if workers.isdigit() else "Redis, shared"
