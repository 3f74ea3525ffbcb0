"""A RateLimited or StoreUnavailable that the app raises is answered like a refusal of the middleware's own."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from asgi_ratelimit import (
    Decision,
    Limiter,
    MemoryStore,
    Policy,
    RateLimited,
    RateLimitMiddleware,
    StoreUnavailable,
    TokenBucket,
)
from tests.inbound.test_middleware import door
from tests.support.asgi import DENIAL, ask, handshake, statuses

pytestmark = pytest.mark.anyio


def used_up() -> Decision:
    policy = Policy("messages", TokenBucket("1/minute"))
    return Decision(policy, cost=1, state=60_000_000, now_us=0, allowed=False)


def site(store: MemoryStore, **options: Any) -> Starlette:
    """An app that asks a limiter itself."""
    limiter = Limiter("1/60s", store=store, name="search")

    async def search(request: Request) -> Response:
        await limiter.acquire("all", timeout=0)
        return PlainTextResponse("found")

    async def outage(request: Request) -> Response:
        raise StoreUnavailable("out of order")

    async def socket(opened: WebSocket) -> None:
        await limiter.acquire("all", timeout=0)
        await opened.accept()
        await opened.close()

    routes = [Route("/", search), Route("/outage", outage), WebSocketRoute("/ws", socket)]
    middleware = Middleware(RateLimitMiddleware, **{"limit": None, "store": store, **options})
    return Starlette(routes=routes, middleware=[middleware])


async def test_a_refusal_is_a_429_with_the_headers_of_its_limit(store: MemoryStore) -> None:
    app = site(store)
    assert (await ask(app)).status == 200
    refused = await ask(app)
    assert (refused.status, refused["retry-after"], refused["x-ratelimit-limit"]) == (429, "60", "1")
    assert refused.json == {"message": "You are being rate limited.", "retry_after": 60.0, "global": False}
    assert refused["via"]


async def test_under_a_limit_of_the_middleware_too(store: MemoryStore) -> None:
    app = site(store, limit="9/60s")
    assert await statuses(app, 2) == [200, 429]


async def test_on_an_exempt_path_too(store: MemoryStore) -> None:
    assert await statuses(site(store, limit="9/60s", exempt=["/"]), 2) == [200, 429]


async def test_an_outage_is_a_503(store: MemoryStore) -> None:
    answer = await ask(site(store), "/outage")
    assert (answer.status, answer["retry-after"]) == (503, "1")
    assert answer.json == {"message": "The rate limiter cannot answer."}


async def test_on_limited_answers_it(store: MemoryStore) -> None:
    def on_limited(conn: HTTPConnection, decision: Decision) -> Response:
        return PlainTextResponse(f"wait {decision.retry_after:.0f}", status_code=429)

    app = site(store, on_limited=on_limited)
    await ask(app)
    assert (await ask(app)).body == b"wait 60"


@pytest.mark.parametrize("kind", [RateLimited, Exception])
async def test_a_handler_of_the_app_wins_but_a_catch_all_does_not(store: MemoryStore, kind: type[Exception]) -> None:
    async def teapot(request: Request, error: Exception) -> Response:
        return PlainTextResponse("teapot", status_code=418)

    app = site(store)
    app.add_exception_handler(kind, teapot)
    await ask(app)
    assert (await ask(app)).status == (418 if kind is RateLimited else 429)


async def test_a_fastapi_endpoint(store: MemoryStore) -> None:
    limiter = Limiter("1/60s", store=store)
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, limit=None, store=store)

    @app.get("/")
    async def search() -> str:
        await limiter.acquire("all", timeout=0)
        return "found"

    assert await statuses(app, 3) == [200, 429, 429]


async def test_through_a_middleware_of_the_base_class(store: MemoryStore) -> None:
    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            return response

    app = site(store)
    app.user_middleware.append(Middleware(Passing))
    assert await statuses(app, 3) == [200, 429, 429]


async def test_a_handshake_is_refused(store: MemoryStore) -> None:
    app = site(store)
    await ask(app)
    assert (await handshake(app, "/ws", **DENIAL)).status == 429
    closed = await handshake(app, "/ws")
    assert closed.sent == [{"type": "websocket.close", "code": 4008, "reason": "rate limited"}]


async def test_after_the_start_of_the_response_it_is_passed_on(store: MemoryStore) -> None:
    limiter = Limiter("1/60s", store=store)

    async def half(request: Request) -> Response:
        async def chunks() -> Any:
            yield b"first"
            await limiter.acquire("all", timeout=0)
            await limiter.acquire("all", timeout=0)

        return StreamingResponse(chunks())

    app = Starlette(routes=[Route("/", half)])
    app.add_middleware(RateLimitMiddleware, limit=None, store=store)
    with pytest.raises(RateLimited):
        await ask(app)


async def test_a_middleware_without_headers_answers_it_too(store: MemoryStore) -> None:
    app = site(store, headers=None)
    await ask(app)
    refused = await ask(app)
    assert (refused.status, refused.about_limits) == (429, {"retry-after"})


async def test_other_exceptions_are_passed_on(store: MemoryStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise HTTPException(429)

    with pytest.raises(HTTPException):
        await ask(door(store, app=app))


@pytest.mark.parametrize("others", [(), (StoreUnavailable("out of order"),)])
async def test_a_task_group_of_refusals_is_one(store: MemoryStore, others: tuple[Exception, ...]) -> None:
    limiter = Limiter("1/60s", store=store, name="search")
    await limiter.acquire("all")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        refusals = [RateLimited(await limiter.try_acquire("all")) for _ in range(2)]
        raise ExceptionGroup("tasks", [ExceptionGroup("inner", refusals), *others])

    assert await statuses(door(store, "9/60s", app=app), 1) == [429]


async def test_a_task_group_with_another_error_is_passed_on(store: MemoryStore) -> None:
    group = ExceptionGroup("tasks", [StoreUnavailable("out of order"), LookupError("no such user")])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise group

    with pytest.raises(ExceptionGroup) as raised:
        await ask(door(store, "9/60s", app=app))
    assert raised.value is group


@pytest.mark.parametrize(
    ("error", "code"), [(RateLimited(used_up()), 4008), (StoreUnavailable("out of order"), 1013)], ids=["429", "503"]
)
async def test_an_open_websocket_is_closed(store: MemoryStore, error: Exception, code: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        raise error

    sent = (await handshake(door(store, "9/60s", app=app), "/")).sent
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert sent[1]["code"] == code


async def test_a_websocket_that_the_app_has_closed_stays_as_it_is(store: MemoryStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 3000})
        raise RateLimited(used_up())

    with pytest.raises(RateLimited):
        await handshake(door(store, "9/60s", app=app), "/")
