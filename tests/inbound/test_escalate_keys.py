"""A key that some of the limits have for themselves is blocked for its own refusals."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import HTTPConnection

from asgi_ratelimit import Escalate, Limiter, MemoryStore, RateLimitMiddleware, TokenBucket, by
from tests.support.asgi import hello, statuses

pytestmark = pytest.mark.anyio


def account_of(conn: HTTPConnection) -> str | None:
    return conn.headers.get("x-account")


async def test_the_key_of_the_limit_that_refuses_is_blocked(store: MemoryStore) -> None:
    limit: list[str | by] = ["100/hour", by(account_of, "1/hour", name="account", optional=True)]
    app = RateLimitMiddleware(hello, limit=limit, store=store, escalate=Escalate(after=20, within=60, block=(60,)))
    ada: dict[str, Any] = {"headers": [("x-account", "ada")]}
    assert await statuses(app, 30, **ada) == [200] + [429] * 29
    limiter = Limiter(TokenBucket("1/hour", name="account"), store=store, name="app")
    assert (await limiter.peek("account:ada")).reason == "blocked"
    assert (await limiter.peek("203.0.113.7")).reason != "blocked"
    assert await statuses(app, 3, headers=[("x-account", "bob")], client=("192.0.2.1", 1)) == [200, 429, 429]
    assert await statuses(app, 3) == [200] * 3
    await limiter.reset("account:ada")
    assert await statuses(app, 20, client=("192.0.2.2", 1), **ada) == [200] + [429] * 19
    assert (await limiter.peek("account:ada")).reason == "limited"
