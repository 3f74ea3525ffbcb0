"""A server that may throw buckets away when its memory is full: it is warned of, once."""

from __future__ import annotations

import warnings

import pytest

from asgi_ratelimit import Limiter, RateLimitWarning
from asgi_ratelimit.redis import RedisStore
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

PATIENCE = 10.0  # seconds; the machine may be busy


@pytest.mark.parametrize(
    ("maxmemory", "policy", "warned"),
    [("100mb", "allkeys-lru", 1), ("100mb", "volatile-ttl", 1), ("100mb", "noeviction", 0), ("0", "allkeys-lru", 0)],
)
async def test_a_server_that_may_forget_buckets_is_warned_of_once(maxmemory: str, policy: str, warned: int) -> None:
    with Server(maxmemory=maxmemory, maxmemory_policy=policy) as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store = RedisStore(server.url, timeout=PATIENCE)
        for _ in range(2):
            async with store:
                assert (await Limiter("10/minute", store=store).try_acquire("ada")).reason == "ok"
    reported = [warning for warning in caught if issubclass(warning.category, RateLimitWarning)]
    assert len(reported) == warned
    assert all(f"ARL110 a Redis that may forget buckets: 127.0.0.1:{server.port}" in str(w.message) for w in reported)
    assert all(policy in str(warning.message) for warning in reported)


async def test_the_warning_is_no_error_where_warnings_are_errors() -> None:
    with Server(maxmemory="100mb", maxmemory_policy="allkeys-lru") as server:
        async with RedisStore(server.url, timeout=PATIENCE) as store:
            assert (await Limiter("10/minute", store=store).try_acquire("ada")).reason == "ok"
