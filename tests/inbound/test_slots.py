"""Slots at the doors: so many requests at a time. A slot ends with the response, whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from fastapi import Depends, FastAPI, HTTPException
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgi_ratelimit import Concurrency, Decision, Limiter, MemoryStore, RateLimitMiddleware, RateLimitWarning
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.inbound.request_state import RequestState
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.testing import ManualClock

pytestmark = pytest.mark.anyio


def client_of(app: Any) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app=app, raise_app_exceptions=False), base_url="http://app")


class Gate:
    """An endpoint that answers when it may."""

    def __init__(self) -> None:
        self.opened, self.inside, self.most = asyncio.Event(), 0, 0

    async def serve(self, request: Request) -> Response:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.opened.wait()
            if "fail" in request.query_params:
                raise RuntimeError("the app has failed")
            return PlainTextResponse("done")
        finally:
            self.inside -= 1


def limited(gate: Gate, limit: Limit | list[Limit | str], **options: Any) -> Any:
    app = Starlette(routes=[Route("/", gate.serve)])
    return RateLimitMiddleware(app, limit=limit, store=MemoryStore(clock=ManualClock()), **options)


async def started(gate: Gate, count: int) -> None:
    with anyio.fail_after(10):
        while gate.inside < count:
            await asyncio.sleep(0)


@pytest.mark.parametrize(("status", "path"), [(429, "/"), (503, "/"), (429, "/?fail=1")])
async def test_no_more_are_inside_than_the_limit_and_each_end_frees_a_slot(status: int, path: str) -> None:
    gate = Gate()
    async with client_of(limited(gate, [Concurrency(2, status=status), "1000/minute"])) as client:
        first = [asyncio.create_task(client.get(path)) for _ in range(2)]
        await started(gate, 2)
        refused = await client.get("/")
        assert (refused.status_code, refused.headers["retry-after"]) == (status, "1")
        gate.opened.set()
        await asyncio.gather(*first)
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/")).headers["x-ratelimit-limit"] == "1000"  # no client can plan by slots
    assert gate.most == 2


async def test_a_request_that_is_cancelled_frees_its_slot() -> None:
    gate = Gate()
    async with client_of(limited(gate, Concurrency(1))) as client:
        for _ in range(5):
            task = asyncio.create_task(client.get("/"))
            await started(gate, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        gate.opened.set()
        response = await client.get("/")
        assert (response.status_code, [name for name in response.headers if "ratelimit" in name]) == (200, [])


async def test_requests_stand_in_line_for_a_slot() -> None:
    gate = Gate()
    async with client_of(limited(gate, Concurrency(1), max_wait=60.0)) as client:
        tasks = [asyncio.create_task(client.get("/")) for _ in range(5)]
        await started(gate, 1)
        gate.opened.set()
        with anyio.fail_after(10):
            assert [(await task).status_code for task in tasks] == [200] * 5
    assert gate.most == 1


async def test_a_stream_holds_its_slot_to_its_end() -> None:
    going_on = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        await going_on.wait()
        yield b"two"

    async def stream(request: Request) -> Response:
        return StreamingResponse(chunks())

    store = MemoryStore(clock=ManualClock())
    app = RateLimitMiddleware(Starlette(routes=[Route("/", stream)]), limit=Concurrency(1), store=store)
    async with client_of(app) as client:
        first = asyncio.create_task(client.get("/"))
        await asyncio.sleep(0.01)
        assert (await client.get("/")).status_code == 429
        going_on.set()
        assert (await first).text == "onetwo"
        assert (await client.get("/")).status_code == 200


def test_a_websocket_holds_its_slot_to_its_end() -> None:
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    app = RateLimitMiddleware(Starlette(routes=[WebSocketRoute("/", echo)]), limit=Concurrency(1))
    client = TestClient(app)
    for _ in range(3):
        with client.websocket_connect("/") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "hello"


# A dependency


def with_route(gate: Gate, *, watched: bool) -> FastAPI:
    app = FastAPI()
    if watched:
        app.add_middleware(RateLimitMiddleware, limit=None)
    slots = RateLimit(Concurrency(1))

    @app.get("/", dependencies=[Depends(slots)])
    async def endpoint(request: Request) -> str:
        await gate.serve(request)
        return "done"

    return app


async def test_a_routes_slot_ends_with_its_response() -> None:
    gate = Gate()
    async with client_of(with_route(gate, watched=True)) as client:
        first = asyncio.create_task(client.get("/"))
        await started(gate, 1)
        assert (await client.get("/")).status_code == 429
        gate.opened.set()
        assert (await first).status_code == 200
        assert [(await client.get("/")).status_code for _ in range(3)] == [200] * 3


async def test_a_routes_slot_ends_without_a_middleware_as_well() -> None:
    gate = Gate()
    async with client_of(with_route(gate, watched=False)) as client:
        for path in ("/", "/?fail=1"):
            gate.opened.clear()
            first = asyncio.create_task(client.get(path))
            await started(gate, 1)
            assert (await client.get("/")).status_code == 429
            gate.opened.set()
            assert (await first).status_code == (500 if "fail" in path else 200)
        first = asyncio.create_task(client.get("/"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        assert (await client.get("/")).status_code == 200


async def test_a_later_dependency_that_fails_frees_the_slot() -> None:
    def fails() -> None:
        raise HTTPException(403)

    app = FastAPI()
    app.add_api_route("/", fails, dependencies=[Depends(RateLimit(Concurrency(1))), Depends(fails)])
    async with client_of(app) as client:
        assert [(await client.get("/")).status_code for _ in range(3)] == [403] * 3


async def test_a_warning_says_that_a_slot_lasts_where_nothing_sees_the_end() -> None:
    slots = RateLimit(Concurrency(1), key=lambda conn: "one", store=MemoryStore(clock=ManualClock()))
    conn = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
    with pytest.warns(RateLimitWarning, match=r"ARL117.*the end of the response"):
        assert await slots(conn, Response())


# The last message


class Recorded:
    """An app that sends these messages, and the slots that are left at each."""

    def __init__(self, *messages: dict[str, Any], **options: Any) -> None:
        self._messages, self._clock = messages, ManualClock()
        self._limiter = Limiter(Concurrency(2), store=MemoryStore(clock=self._clock), name="app")
        self.app = RateLimitMiddleware(self._send_all, limit=Concurrency(2), store=self._limiter.store, **options)
        self.left: list[int] = []
        self.in_the_end = 0

    async def _send_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        for message in self._messages:
            await send(message)
        self.in_the_end = await self._remaining()

    async def _remaining(self) -> int:
        return (await self._limiter.peek("192.0.2.1")).remaining

    async def run(self, kind: str = "http", **scope: Any) -> list[int]:
        async def send(message: Message) -> None:
            self.left.append(await self._remaining())

        whole = {"type": kind, "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 1), **scope}
        await self.app(whole, _no_message, send)
        return [*self.left, self.in_the_end]


async def _no_message() -> Message:
    raise NotImplementedError


def start(status: int = 200, **fields: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [], **fields}


def part(*, more: bool, kind: str = "http.response.body") -> dict[str, Any]:
    return {"type": kind, "body": b"x", "more_body": more}


TRAILERS: list[dict[str, Any]] = [
    {"type": "http.response.trailers", "headers": [], "more_trailers": more} for more in (True, False)
]
ENDS: list[tuple[str, list[dict[str, Any]], list[int]]] = [
    ("http", [start(), part(more=True), part(more=True), part(more=False)], [1, 1, 1, 2, 2]),
    ("http", [start(), {"type": "http.response.pathsend", "path": "/file"}], [1, 2, 2]),
    ("http", [start(trailers=True), part(more=False), *TRAILERS], [1, 1, 1, 2, 2]),
    ("http", [start()], [1, 1]),
    (
        "websocket",
        [{"type": "websocket.accept"}, {"type": "websocket.send"}, {"type": "websocket.close"}],
        [1, 1, 2, 2],
    ),
    ("websocket", [{"type": "websocket.close"}], [2, 2]),
    (
        "websocket",
        [
            {"type": "websocket.http.response.start", "status": 403},
            part(more=True, kind="websocket.http.response.body"),
            part(more=False, kind="websocket.http.response.body"),
        ],
        [1, 1, 2, 2],
    ),
]


@pytest.mark.parametrize(("kind", "messages", "left"), ENDS)
async def test_a_slot_is_free_before_the_client_has_the_end(
    kind: str, messages: list[dict[str, Any]], left: list[int]
) -> None:
    recorded = Recorded(*messages)
    for _ in range(3):
        recorded.left.clear()
        assert await recorded.run(kind) == left


@pytest.mark.parametrize("answer", [True, False])
async def test_a_charge_that_is_given_back_keeps_its_slot_to_the_end(answer: bool) -> None:
    recorded = Recorded(start(), part(more=True), part(more=False), refund=lambda status: answer)
    assert await recorded.run() == [1, 1, 2, 2]


async def test_a_question_of_a_browser_frees_its_slot() -> None:
    headers = [(b"origin", b"https://a.test"), (b"access-control-request-method", b"GET")]
    recorded = Recorded(start(), part(more=False))
    for _ in range(5):
        await recorded.run(method="OPTIONS", headers=headers)
    assert len(recorded.app.store) == 0  # type: ignore[arg-type]


async def test_every_slot_of_a_request_is_freed_even_if_it_is_cancelled_meanwhile() -> None:
    class Slow(MemoryStore):
        """Its buckets take until the next turn of the event loop to free a slot, as those of a server."""

        def open(self, name: str, policies: Any) -> Any:
            buckets = super().open(name, policies)
            free = buckets.release

            async def release(decision: Decision) -> None:
                free(decision)
                await asyncio.sleep(60)

            return _With(buckets, release)

    state, store = RequestState(), Slow(clock=ManualClock())
    limiters = [Limiter(Concurrency(1), store=store, name=name) for name in "abc"]
    for limiter in limiters:
        state.hold(limiter, await limiter.try_acquire("key"))
    task = asyncio.create_task(state.release())
    for _ in range(3):
        await asyncio.sleep(0.001)
        task.cancel()
    await asyncio.wait([task])
    assert [(await limiter.peek("key")).remaining for limiter in limiters] == [1, 1, 1]


class _With:
    """Buckets with another `release`."""

    def __init__(self, buckets: Any, release: Any) -> None:
        self._buckets, self.release = buckets, release

    def __getattr__(self, name: str) -> Any:
        return getattr(self._buckets, name)
