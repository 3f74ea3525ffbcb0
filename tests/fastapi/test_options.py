"""What a dependency has in common with the middleware: `exempt`, `methods`, `refund` and `on_limited`."""

from __future__ import annotations

from http import HTTPMethod
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Response, WebSocket
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from asgi_ratelimit import Decision, MemoryStore, RateLimited, RateLimitMiddleware
from asgi_ratelimit.fastapi import RateLimit
from tests.fastapi.traffic import DISCORD_ON_REFUSAL, limit_names, statuses
from tests.support.asgi import ask, handshake

pytestmark = pytest.mark.anyio


def site(store: MemoryStore, *, outer: bool = True, **options: Any) -> TestClient:
    app = FastAPI(dependencies=[Depends(RateLimit("2/hour", name="all", store=store, **options))])
    if outer:
        app.add_middleware(RateLimitMiddleware, limit=None)
    app.get("/")(lambda: "ok")
    app.post("/")(lambda: "posted")
    app.get("/health")(lambda: "well")
    app.get("/items/{status}")(lambda status: Response(status_code=int(status)))

    @app.get("/sync/{status}")
    def answer(status: int, response: Response) -> None:
        response.status_code = status

    return TestClient(app)


def test_exempt_paths_are_not_counted(store: MemoryStore) -> None:
    client = site(store, exempt=("/health",))
    assert statuses(client, *["/health"] * 4) == [200] * 4
    assert statuses(client, "/", "/", "/") == [200, 200, 429]


def test_exempt_may_be_a_function(store: MemoryStore) -> None:
    client = site(store, exempt=lambda conn: conn.headers.get("x-role") == "admin")
    assert statuses(client, *["/"] * 4, headers={"x-role": "admin"}) == [200] * 4
    assert statuses(client, "/", "/", "/") == [200, 200, 429]


def test_only_these_methods_are_counted(store: MemoryStore) -> None:
    client = site(store, methods=("POST",))
    assert statuses(client, *["/"] * 4) == [200] * 4
    assert [client.post("/").status_code for _ in range(3)] == [200, 200, 429]


async def test_a_middleware_counts_only_these_methods(store: MemoryStore) -> None:
    app = FastAPI()
    app.get("/")(lambda: "ok")
    app.post("/")(lambda: "posted")
    app.add_middleware(RateLimitMiddleware, limit="1/hour", store=store, methods=["post"])
    assert [(await ask(app, method=method)).status for method in ("GET", "GET", "POST", "POST")] == [200, 200, 200, 429]


async def test_a_head_is_counted_as_a_get(store: MemoryStore) -> None:
    async def page(request: Request) -> Response:
        return PlainTextResponse("page")

    app = Starlette(routes=[Route("/", page)])
    app.add_middleware(RateLimitMiddleware, limit="2/hour", store=store, methods=("GET",))
    assert [(await ask(app, method=method)).status for method in ("GET", "HEAD", "HEAD")] == [200, 200, 429]


async def test_the_case_of_a_method_is_ignored(store: MemoryStore) -> None:
    """Django and Flask take `post` for POST."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("posted")(scope, receive, send)

    limited = RateLimitMiddleware(app, limit="1/hour", store=store, methods=("POST",))
    assert [(await ask(limited, method=method)).status for method in ("POST", "post", "pOST")] == [200, 429, 429]


def test_a_method_may_have_a_hyphen(store: MemoryStore) -> None:
    RateLimit(methods=("M-SEARCH", "VERSION-CONTROL"))


@pytest.mark.parametrize("methods", ["POST", ("PO ST",), (1,), ("*",), None])
def test_methods_that_are_none_are_refused(methods: Any) -> None:
    with pytest.raises(ValueError, match=r'methods is a list of HTTP methods such as \("POST", "PUT"\)'):
        RateLimit(methods=methods)


@pytest.mark.parametrize("path", ["/items/404", "/sync/404"])
def test_a_charge_is_given_back_by_status(store: MemoryStore, path: str) -> None:
    client = site(store, refund=lambda status: status == 404)
    for _ in range(4):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (404, "2")
    assert statuses(client, "/", "/", "/") == [200, 200, 429]


def test_a_refund_without_the_middleware_is_warned_about(store: MemoryStore) -> None:
    client = site(store, outer=False, refund=lambda status: True)
    with pytest.warns(match=r"ARL117 .*add RateLimitMiddleware\(limit=None\) to the app"):
        assert statuses(client, "/") == [200]
    assert statuses(client, "/", "/") == [200, 429]


async def later(conn: HTTPConnection, decision: Decision) -> Response:
    return PlainTextResponse(f"{conn.url.path}: wait {decision.retry_after:.0f} s", status_code=429)


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("caught", [None, RateLimited, 429])
def test_on_limited_answers_before_any_handler_of_the_app(store: MemoryStore, outer: bool, caught: Any) -> None:
    client = site(store, outer=outer, on_limited=later)
    if caught is not None:
        client.app.add_exception_handler(caught, lambda request, error: Response(status_code=418))  # type: ignore[attr-defined]
    statuses(client, "/", "/")
    refused = client.get("/")
    assert (refused.status_code, refused.text) == (429, "/: wait 1800 s")
    assert limit_names(refused.headers) == DISCORD_ON_REFUSAL - {"via"}


def test_another_limit_of_the_app_keeps_its_answer(store: MemoryStore) -> None:
    app = FastAPI()
    app.get("/own", dependencies=[Depends(RateLimit("1/hour", store=store, on_limited=later))])(lambda: "own")
    app.get("/plain", dependencies=[Depends(RateLimit("1/hour", store=store))])(lambda: "plain")
    app.add_exception_handler(RateLimited, lambda request, error: Response(status_code=418))
    client = TestClient(app)
    assert statuses(client, "/own", "/own", "/plain", "/plain", "/own") == [200, 429, 200, 418, 429]


def test_a_response_that_is_none_is_replaced(store: MemoryStore) -> None:
    client = site(store, on_limited=lambda conn, decision: {"error": "too fast"})
    statuses(client, "/", "/")
    with pytest.warns(match=r"ARL204 .*it must return a Response, not {'error': 'too fast'}"):
        assert client.get("/").json()["retry_after"] == 1800.0


async def test_a_websocket_that_can_only_be_closed_is_closed(store: MemoryStore) -> None:
    app = FastAPI()

    @app.websocket("/ws", dependencies=[Depends(RateLimit("1/hour", store=store, on_limited=later))])
    async def socket(opened: WebSocket) -> None:
        await opened.accept()
        await opened.close()

    assert (await handshake(app, "/ws")).sent[0]["type"] == "websocket.accept"
    assert (await handshake(app, "/ws")).sent[0]["code"] == 4008


@pytest.mark.parametrize("option", ["refund", "on_limited"])
def test_what_is_no_function_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} must be a function or None, not 404"):
        RateLimit(**{option: 404})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "method", [*HTTPMethod, "PROPFIND", "PROPPATCH", "MKCOL", "REPORT", "SEARCH", "QUERY", "PURGE", "LOCK"]
)
def test_methods_of_other_protocols_are_taken(method: str) -> None:
    RateLimit("1/hour", methods=(method,))


@pytest.mark.parametrize(("method", "meant"), [("PSOT", "POST"), ("gets", "GET"), ("OPTION", "OPTIONS")])
def test_a_misspelt_method_is_refused_with_the_one_that_is_meant(method: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf'write methods=\("{meant}",\)'):
        RateLimit("1/hour", methods=("HEAD", method))
