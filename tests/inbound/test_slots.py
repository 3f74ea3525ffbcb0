"""Slots at the doors: so many requests at a time. A slot ends with the response, whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from asgi_ratelimit import Concurrency, MemoryStore, RateLimitMiddleware, RateLimitWarning
from asgi_ratelimit.fastapi import RateLimit
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


async def test_without_a_middleware_a_warning_says_that_a_slot_lasts() -> None:
    gate = Gate()
    gate.opened.set()
    async with client_of(with_route(gate, watched=False)) as client:
        with pytest.warns(RateLimitWarning, match="ARL117.*the end of the response"):
            assert (await client.get("/")).status_code == 200
