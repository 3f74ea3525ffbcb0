"""The functions that the options take: of a Request, as other limiters have them, or of any connection."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import Depends, Header
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse

from asgi_ratelimit import Decision, MemoryStore, RateLimitMiddleware
from asgi_ratelimit.fastapi import RateLimit
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


DOORS = pytest.mark.parametrize("make", [partial(RateLimitMiddleware, hello), RateLimit])


@DOORS
@pytest.mark.parametrize(
    ("option", "function", "right"),
    [
        ("key", lambda: "1.2.3.4", "def key(conn)"),
        ("key", lambda conn, settings: "1.2.3.4", "def key(conn)"),
        ("limit", lambda: "5/minute", "def limit(conn)"),
        ("limit", lambda key: "9/minute" if key == "ada" else "5/minute", "def limit(conn)"),
        ("cost", lambda: 1, "def cost(conn)"),
        ("exempt", lambda: True, "def exempt(conn)"),
        ("only", lambda: True, "def only(conn)"),
        ("refund", lambda: True, "def refund(status)"),
        ("on_limited", lambda conn: None, "def on_limited(conn, decision)"),
    ],
)
def test_a_function_of_other_arguments_is_an_error_at_construction(
    make: Any, option: str, function: Any, right: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(right)):
        make(**{"limit": "5/minute", option: function})


@DOORS
@pytest.mark.parametrize("function", [partial(max, "a"), str, lambda *args: "a", lambda conn, by="x": by])
def test_a_function_that_takes_the_connection_in_its_own_way_is_taken(make: Any, function: Any) -> None:
    make(limit="5/minute", key=function)


async def header_user(x_user: Annotated[str, Header()]) -> str:
    return x_user


async def session_user(conn: HTTPConnection, user: str = Depends(header_user)) -> str:
    return user


@pytest.mark.parametrize("key", [Depends, header_user, session_user])
def test_a_dependency_that_is_the_key_without_depends_is_an_error(key: Any) -> None:
    with pytest.raises(ValueError, match=re.escape("key=Depends(current_user)")):
        RateLimit("5/minute", key=key)


def test_parameters_that_are_no_list_are_an_error() -> None:
    with pytest.raises(ValueError, match=re.escape('("channel_id",)')):
        RateLimit("5/minute", per=len)  # type: ignore[arg-type]
