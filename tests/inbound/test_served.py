"""Over a real socket: uvicorn serves the app, and real clients see the refusal and the stream."""

from __future__ import annotations

import asyncio
import http.client
import json
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from asgi_ratelimit import LeakyBucket, MemoryStore, RateLimitMiddleware, Served
from asgi_ratelimit.testing import ManualClock

PATIENCE = 10  # seconds until a hanging test fails


@contextmanager
def served(app: ASGIApp) -> Iterator[int]:
    """The port on which uvicorn serves the app; the socket listens before the server has started."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, log_level="critical", ws="websockets-sansio", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


@contextmanager
def request(port: int, path: str = "/", body: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET" if body is None else "POST", path, body=body)
        with connection.getresponse() as response:
            yield response


async def page(request: Request) -> Response:
    return PlainTextResponse(await request.body() or b"page")


async def echo(opened: WebSocket) -> None:
    await opened.accept()
    try:
        while True:
            await opened.send_text(await opened.receive_text())
    except WebSocketDisconnect:
        return


def site(limit: Any, *routes: Route, **options: Any) -> Starlette:
    app = Starlette(routes=[Route("/", page, methods=["GET", "POST"]), WebSocketRoute("/ws", echo), *routes])
    app.add_middleware(RateLimitMiddleware, **{"limit": limit, "store": MemoryStore(clock=ManualClock()), **options})
    return app


def test_a_refusal_reaches_a_real_client() -> None:
    with served(site("1/60s")) as port:
        with request(port) as first:
            assert (first.status, first.headers["x-ratelimit-remaining"]) == (200, "0")
        with request(port) as second:
            assert second.status == 429
            assert second.headers.get_all("content-type") == ["application/json"]
            assert second.headers.get_all("retry-after") == ["60"]
            assert second.headers.get_all("via") == ["1.1 asgi_ratelimit"]
            assert json.loads(second.read())["retry_after"] == 60.0


def test_a_refused_handshake_is_a_429_to_a_real_client() -> None:
    with served(site("1/60s")) as port:
        with connect(f"ws://127.0.0.1:{port}/ws", open_timeout=PATIENCE) as opened:
            assert opened.response is not None
            assert opened.response.headers["x-ratelimit-remaining"] == "0"
            opened.send("hello")
            assert opened.recv(PATIENCE) == "hello"
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://127.0.0.1:{port}/ws", open_timeout=PATIENCE)
    response = refused.value.response
    assert response.status_code == 429
    assert response.headers["retry-after"] == "60"
    assert json.loads(response.body or b"") == {
        "message": "You are being rate limited.",
        "retry_after": 60.0,
        "global": False,
    }


def test_too_many_frames_close_a_real_socket_with_4008() -> None:
    with served(site(None, messages="2/60s")) as port, connect(f"ws://127.0.0.1:{port}/ws") as opened:
        for text in ("a", "b"):
            opened.send(text)
            assert opened.recv(PATIENCE) == text
        opened.send("c")
        with pytest.raises(ConnectionClosed) as closed:
            opened.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4008, "rate limited")


def test_the_chunks_of_a_stream_arrive_as_they_are_made() -> None:
    received = [threading.Event() for _ in range(5)]

    async def chunks() -> Any:
        for number, event in enumerate(received):
            yield f"chunk {number}\n"
            assert await asyncio.to_thread(event.wait, PATIENCE), "the chunk was held back"

    def stream(request: Request) -> Response:
        return StreamingResponse(chunks())

    with served(site("1/60s", Route("/stream", stream))) as port, request(port, "/stream") as response:
        assert response.headers["x-ratelimit-remaining"] == "0"
        for number, event in enumerate(received):
            assert response.readline() == f"chunk {number}\n".encode()
            event.set()
        assert response.read() == b""


@pytest.mark.parametrize("leaves", [True, False], ids=["a client that leaves", "a client that stays"])
def test_a_stream_is_settled_at_its_end_also_if_the_client_leaves(leaves: bool) -> None:
    settled: queue.Queue[Served] = queue.Queue()

    def used(served: Served) -> int:
        settled.put(served)
        return served.body_bytes

    async def chunks() -> Any:
        for _ in range(1000 if leaves else 3):
            yield b"x" * 1000
            await asyncio.sleep(0.01)

    def stream(request: Request) -> Response:
        return StreamingResponse(chunks())

    store = MemoryStore(clock=ManualClock())
    app = site("10000000/hour", Route("/stream", stream), cost=5_000_000, settle=used, store=store)
    with served(app) as port:
        with request(port, "/stream") as response:
            assert response.read(1000) == b"x" * 1000
            assert leaves or len(response.read()) == 2000
        one = settled.get(timeout=PATIENCE)
        with request(port) as after:  # it is charged 5 000 000 itself
            left = int(after.headers["x-ratelimit-remaining"])
    assert one.status == 200
    assert (1000 <= one.body_bytes < 900_000) if leaves else one.body_bytes == 3000
    assert left == 5_000_000 - one.body_bytes


def test_a_body_that_was_read_while_waiting_reaches_the_app_behind_a_real_server() -> None:
    limit = LeakyBucket("100/s")
    with served(site(limit, store=MemoryStore())) as port:
        for body in (b"a", b"b" * 200_000, b"c"):
            with request(port, body=body) as response:
                assert response.read() == body
