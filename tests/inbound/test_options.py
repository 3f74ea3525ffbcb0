"""The functions that the options take: of a Request, as other limiters have them, or of any connection."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse

from asgi_ratelimit import Decision, MemoryStore, RateLimitMiddleware
from tests.support.asgi import ask, handshake, hello, statuses

pytestmark = pytest.mark.anyio


def method(request: Request) -> str:
    return request.method


async def method_later(request: Request) -> str:
    return request.method


@pytest.mark.parametrize("key", [method, method_later])
async def test_a_function_of_a_request_is_a_key(store: MemoryStore, key: Any) -> None:
    app = RateLimitMiddleware(hello, limit="1/day", key=key, store=store)
    assert await statuses(app, 2, method="GET") == [200, 429]
    assert await statuses(app, 2, method="POST") == [200, 429]


async def test_every_function_of_the_middleware_may_be_one_of_a_request(store: MemoryStore) -> None:
    def limit(request: Request) -> str:
        return "4/day" if request.method == "GET" else "2/day"

    def cost(request: Request) -> int:
        return 2 if request.method == "GET" else 1

    def is_head(request: Request) -> bool:
        return request.method == "HEAD"

    def refusal(request: Request, decision: Decision) -> PlainTextResponse:
        return PlainTextResponse(request.method, 429)

    app = RateLimitMiddleware(
        hello, limit=limit, key=method, cost=cost, exempt=is_head, on_limited=refusal, store=store
    )
    assert await statuses(app, 3) == [200, 200, 429]
    assert await statuses(app, 3, method="POST") == [200, 200, 429]
    assert await statuses(app, 5, method="HEAD") == [200] * 5
    assert (await ask(app)).body == b"GET"


async def test_the_state_of_a_request_is_that_of_the_app(store: MemoryStore) -> None:
    def key(request: Request) -> str:
        return str(request.state.user_id)

    app = RateLimitMiddleware(hello, limit="1/day", key=key, store=store)
    assert await statuses(app, 2, state={"user_id": 1}) == [200, 429]
    assert await statuses(app, 2, state={"user_id": 2}) == [200, 429]


async def test_the_handshake_of_a_websocket_is_a_connection(store: MemoryStore) -> None:
    seen: list[type] = []

    def key(conn: HTTPConnection) -> str:
        seen.append(type(conn))
        return conn.headers.get("x-user", "nobody")

    app = RateLimitMiddleware(hello, limit="1/day", key=key, store=store)
    await handshake(app)
    await ask(app)
    assert seen == [HTTPConnection, Request]
