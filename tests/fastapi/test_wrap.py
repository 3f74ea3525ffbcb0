"""`RateLimit.wrap`: the limit as middleware of one route or mounted app, which decides before a body is read."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Message
from starlette.websockets import WebSocket

from asgi_ratelimit import Decision, MemoryStore, RateLimitMiddleware
from asgi_ratelimit.fastapi import RateLimit
from tests.support.asgi import DENIAL, ask, handshake, http, statuses

pytestmark = pytest.mark.anyio


async def page(request: Request) -> Response:
    return PlainTextResponse(f"{len(await request.body())} bytes")


async def test_a_single_starlette_route(store: MemoryStore) -> None:
    limit = RateLimit("2/hour", store=store)
    app = Starlette(routes=[Route("/a", page, middleware=[Middleware(limit.wrap)]), Route("/b", page)])
    assert await statuses(app, 3, "/a") == [200, 200, 429]
    assert await statuses(app, 3, "/b") == [200] * 3
    refused = await ask(app, "/a")
    assert (refused["x-ratelimit-limit"], refused["retry-after"], refused["via"]) == (
        "2",
        "1800",
        "1.1 asgi_ratelimit",
    )
    assert (await ask(app, "/b")).about_limits == set()


async def test_the_routes_of_one_limit_have_buckets_of_their_own(store: MemoryStore) -> None:
    wrapped = [Middleware(RateLimit("1/hour", store=store).wrap)]
    app = Starlette(routes=[Route("/a/{id}", page, middleware=wrapped), Route("/b", page, middleware=wrapped)])
    assert [(await ask(app, path)).status for path in ("/a/1", "/a/2", "/b", "/b")] == [200, 429, 200, 429]


async def test_a_named_limit_shares_its_bucket_with_the_dependency(store: MemoryStore) -> None:
    limit = RateLimit("2/hour", name="uploads", store=store)
    inner = Starlette(routes=[Route("/", page)])
    app = FastAPI()
    app.mount("/raw", limit.wrap(inner))
    app.get("/form", dependencies=[Depends(limit)])(lambda: "ok")
    assert [(await ask(app, path)).status for path in ("/form", "/raw/", "/form", "/raw/")] == [200, 200, 429, 429]


async def test_a_refused_upload_is_not_read(store: MemoryStore) -> None:
    app = Starlette(routes=[Mount("/", RateLimit("1/hour", store=store).wrap(Starlette(routes=[Route("/", page)])))])
    assert (await ask(app)).status == 200
    received: list[Message] = []

    async def receive() -> Message:
        received.append({"type": "http.request", "body": b"x" * 1000, "more_body": True})
        return received[-1]

    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(http(method="POST"), receive, send)
    assert (sent[0]["status"], received) == (429, [])


async def test_a_body_that_is_no_json_is_counted(store: MemoryStore) -> None:
    inner = FastAPI()

    @inner.post("/")
    async def root(body: dict[str, int]) -> None: ...

    app = FastAPI()
    app.mount("/api", RateLimit("3/hour", store=store).wrap(inner))
    answers = [(await ask(app, "/api/", method="POST", body=b"{not json")).status for _ in range(5)]
    assert answers == [422, 422, 422, 429, 429]


async def test_resources_cost_exempt_and_refund_mean_the_same(store: MemoryStore) -> None:
    limit = RateLimit("2/hour", per=["item"], store=store, refund=lambda status: status == 404, methods=["GET"])

    async def item(request: Request) -> Response:
        return Response(status_code=404 if request.path_params["item"] == 0 else 200)

    route = Route("/{item:int}", item, methods=["GET", "POST"], middleware=[Middleware(limit.wrap)])
    app = Starlette(routes=[route])
    assert [(await ask(app, path)).status for path in ("/7", "/007", "/7", "/8")] == [200, 200, 429, 200]
    assert await statuses(app, 4, "/0") == [404] * 4
    assert await statuses(app, 4, "/7", method="POST") == [200] * 4


async def test_it_uses_the_store_of_the_middleware_and_answers_in_its_style(store: MemoryStore) -> None:
    route = Route("/", page, middleware=[Middleware(RateLimit("1/hour").wrap)])
    app = Starlette(routes=[route])
    app.add_middleware(RateLimitMiddleware, limit="9/hour", store=store, headers="ietf")
    assert await statuses(app, 2) == [200, 429]
    assert len(store) == 2
    refused = await ask(app)
    assert refused.about_limits == {"ratelimit", "ratelimit-policy", "retry-after"}
    assert refused["ratelimit-policy"] == '"/";q=1;w=3600'


async def test_a_refused_request_is_not_charged_to_the_app(store: MemoryStore) -> None:
    routes = [Route("/", page, middleware=[Middleware(RateLimit("1/hour").wrap)]), Route("/free", page)]
    app = Starlette(routes=routes)
    app.add_middleware(RateLimitMiddleware, limit="3/hour", store=store)
    assert await statuses(app, 9) == [200] + [429] * 8
    assert await statuses(app, 3, "/free") == [200, 200, 429]


async def test_on_limited_answers(store: MemoryStore) -> None:
    def answer(conn: HTTPConnection, decision: Decision) -> Response:
        return PlainTextResponse("later", status_code=429)

    limit = RateLimit("1/hour", store=store, on_limited=answer)
    app = limit.wrap(Starlette(routes=[Route("/", page)]))
    await ask(app)
    refused = await ask(app)
    assert (refused.body, refused["x-ratelimit-remaining"]) == (b"later", "0")


async def test_a_websocket_route(store: MemoryStore) -> None:
    async def socket(opened: WebSocket) -> None:
        await opened.accept()
        await opened.close()

    app = Starlette(
        routes=[WebSocketRoute("/ws", socket, middleware=[Middleware(RateLimit("1/hour", store=store).wrap)])]
    )
    assert (await handshake(app, "/ws")).sent[0]["type"] == "websocket.accept"
    assert (await handshake(app, "/ws", **DENIAL)).status == 429


async def test_without_any_app_in_the_scope_it_keeps_a_store(store: MemoryStore) -> None:
    app = RateLimit("1/hour").wrap(page_app)
    assert await statuses(app, 3) == [200, 429, 429]


async def page_app(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("ok")(scope, receive, send)


def test_a_key_that_is_a_dependency_is_refused() -> None:
    with pytest.raises(ValueError, match=r"key=Depends\(...\) needs a route"):
        RateLimit(key=Depends(lambda: "ada")).wrap(page_app)
