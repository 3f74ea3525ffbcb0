"""The ASGI door: what is counted, and that the app behind it notices nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgi_ratelimit import MemoryStore, RateLimitMiddleware, StoreUnavailable, by_user
from asgi_ratelimit.testing import ManualClock
from tests.support.asgi import DENIAL, Exchange, ask, body, handshake, hello, http, respond, settle, statuses

pytestmark = pytest.mark.anyio


class Trouble(Exception):
    """The app's own."""


def door(store: MemoryStore, limit: Any = "2/60s", *, app: Any = hello, **options: Any) -> RateLimitMiddleware:
    return RateLimitMiddleware(app, limit=limit, store=store, **options)


def page(request: Request) -> Response:
    return PlainTextResponse("page")


async def socket(opened: WebSocket) -> None:
    await opened.accept()
    await opened.close()


def site(store: MemoryStore, limit: Any = "3/60s", **options: Any) -> Starlette:
    """An app with all kinds of routes."""
    inner = Starlette(routes=[Route("/", page), Route("/page", page)])
    app = Starlette(
        routes=[
            Route("/", page),
            Route("/items/{item}", page, methods=["GET"]),
            Route("/health", page),
            WebSocketRoute("/ws", socket),
            Mount("/inner", inner),
        ]
    )
    app.add_middleware(RateLimitMiddleware, limit=limit, store=store, **options)
    return app


# What is counted


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/", {}),
        ("/inner/", {}),
        ("/inner/page", {}),
        ("/nowhere", {}),
        ("/inner/nowhere", {}),
        ("/items/1", {"method": "DELETE"}),
        ("/", {"method": "HEAD"}),
        ("/", {"method": "OPTIONS"}),
        ("/", {"method": "OPTIONS", "headers": [("origin", "https://example.org")]}),
        ("/", {"method": "OPTIONS", "headers": [("access-control-request-method", "PUT")]}),
        ("/", {"method": "GET", "headers": [("origin", "x"), ("access-control-request-method", "GET")]}),
        ("/", {"method": "NONSENSE"}),
        ("", {}),
    ],
    ids=str,
)
async def test_every_request_is_counted_wherever_it_goes(store: MemoryStore, path: str, options: Any) -> None:
    app = site(store)
    answers = await statuses(app, 5, path, **options)
    assert 429 not in answers[:3]
    assert answers[3:] == [429, 429]


async def test_a_socket_is_counted_wherever_it_goes(store: MemoryStore) -> None:
    app = site(store)
    for path in ("/ws", "/inner/ws", "/nowhere"):
        assert (await handshake(app, path, **DENIAL)).status != 429
    assert (await handshake(app, "/ws", **DENIAL)).status == 429
    assert await statuses(app, 1) == [429]


async def test_no_spelling_of_a_url_is_a_fresh_bucket(store: MemoryStore) -> None:
    app = site(store, "9/60s")
    paths = ["/items/1", "/items/2", "//items/1", "/items/1/", "/ITEMS/1", "/items/../items/1", "/items/%31", "/", "*"]
    assert 429 not in [(await ask(app, path)).status for path in paths]
    assert {(await ask(app, path)).status for path in paths} == {429}


async def test_no_host_or_query_is_a_fresh_bucket(store: MemoryStore) -> None:
    app = site(store, "5/60s")
    variants: list[dict[str, Any]] = [
        {"headers": [("host", "example.org")]},
        {"headers": [("host", "example.org/health?")]},
        {"headers": [("host", "")]},
        {"query_string": b"a=1"},
        {"scheme": "https", "http_version": "2"},
    ]
    assert {(await ask(app, "/", **variant)).status for variant in variants} == {200}
    assert {(await ask(app, "/", **variant)).status for variant in variants} == {429}


async def test_a_bucket_refills_with_time(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, "2/60s")
    assert await statuses(app, 3) == [200, 200, 429]
    clock.advance(29.999999)
    assert await statuses(app, 1) == [429]
    clock.advance(0.000001)
    assert await statuses(app, 2) == [200, 429]


async def test_two_doors_of_one_name_and_store_share_their_buckets(store: MemoryStore) -> None:
    assert await statuses(door(store), 2) == [200, 200]
    assert await statuses(door(store), 1) == [429]
    assert await statuses(door(store, name="other"), 1) == [200]


async def test_a_thousand_requests_at_once_are_counted_exactly(store: MemoryStore) -> None:
    app = door(store, "100/hour")
    answers = await asyncio.gather(*(ask(app) for _ in range(1_000)))
    assert [answer.status for answer in answers].count(200) == 100


async def test_a_limit_of_none_limits_nothing_and_says_nothing(store: MemoryStore) -> None:
    app = door(store, None)
    answers = [await ask(app) for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    assert not answers[0].about_limits


# The app notices nothing


async def test_a_stream_is_started_once_and_arrives_chunk_by_chunk(store: MemoryStore) -> None:
    events = [asyncio.Event() for _ in range(5)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def chunks() -> Any:
            for number, event in enumerate(events):
                await event.wait()
                yield f"{number}"

        await StreamingResponse(chunks())(scope, receive, send)

    exchange = Exchange(door(store, app=app), http(), *body(b""))
    for number, event in enumerate(events):
        await settle()
        assert exchange.types == ["http.response.start"] + ["http.response.body"] * number
        event.set()
    answer = await exchange.answer()
    assert answer.chunks == [b"0", b"1", b"2", b"3", b"4", b""]
    assert answer["x-ratelimit-remaining"] == "1"


async def test_a_background_task_runs_after_the_answer(store: MemoryStore) -> None:
    ran: list[str] = []
    app = Starlette(
        routes=[Route("/", lambda request: PlainTextResponse("x", background=BackgroundTask(ran.append, "ran")))]
    )
    app.add_middleware(RateLimitMiddleware, limit="1/60s", store=store)
    assert await statuses(app, 2) == [200, 429]
    assert ran == ["ran"]


@pytest.mark.parametrize("options", [{}, {"max_wait": 5}, {"refund": bool}, {"headers": None}], ids=str)
async def test_an_exception_passes_through_unchanged(store: MemoryStore, options: Any) -> None:
    trouble = Trouble("mine")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise trouble

    with pytest.raises(Trouble) as caught:
        await ask(door(store, app=app, **options))
    assert caught.value is trouble
    assert trouble.__cause__ is None
    assert trouble.__context__ is None


@pytest.mark.parametrize("kind", ["lifespan", "http.future"])
async def test_what_is_neither_request_nor_socket_is_passed_on_untouched(store: MemoryStore, kind: str) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend((scope, receive, send))

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    scope = {"type": kind}
    await door(store, app=app, messages="1/s")(scope, receive, send)
    assert seen == [scope, receive, send]
    assert scope == {"type": kind}


async def test_the_apps_messages_are_not_changed_in_place(store: MemoryStore) -> None:
    start: Message = {"type": "http.response.start", "status": 200, "headers": []}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)
        await send({"type": "http.response.body"})

    limited = door(store, app=app)
    assert [(await ask(limited))["x-ratelimit-remaining"] for _ in range(2)] == ["1", "0"]
    assert start["headers"] == []


async def test_a_start_without_headers_gets_ours(store: MemoryStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    assert (await ask(door(store, app=app)))["x-ratelimit-remaining"] == "1"


async def test_nobody_reads_the_body_but_the_app(store: MemoryStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, (await receive())["body"])

    assert (await Exchange(door(store, app=app), http(), *body(b"hello")).answer()).body == b"hello"
    refused = door(store, "1/60s", app=app, name="other")
    await Exchange(refused, http(), *body(b"")).answer()
    exchange = Exchange(refused, http(), *body(b"a", b"b"))
    assert (await exchange.answer()).status == 429
    assert exchange.unread == 2


async def test_by_user_without_a_user_is_one_bucket_not_no_limit(store: MemoryStore) -> None:
    app = door(store, key=by_user)
    assert await statuses(app, 3) == [200, 200, 429]
    assert await statuses(app, 1, client=("203.0.113.8", 1)) == [429]


# When the store cannot answer


class Outage(MemoryStore):
    """A store that is closed."""

    def open(self, name: str, policies: Any) -> Any:
        return Closed()


class Closed:
    def _no(self, *question: Any) -> Any:
        raise StoreUnavailable("closed")

    decide = peek = refund = reset = block = _no


@pytest.mark.parametrize("options", [{}, {"max_wait": 5}], ids=str)
async def test_a_store_that_cannot_answer_is_a_503_and_exempts_the_exempt(options: Any) -> None:
    app = door(Outage(clock=ManualClock()), exempt=["/health"], **options)
    answer = await ask(app)
    assert (answer.status, answer.json) == (503, {"message": "The rate limiter cannot answer."})
    assert not answer.about_limits - {"retry-after"}
    assert await statuses(app, 1, "/health") == [200]
