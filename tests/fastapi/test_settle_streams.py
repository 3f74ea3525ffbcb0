"""A stream or a WebSocket settles its request at its end, also if its client leaves or the server stops it."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from asgi_ratelimit import (
    Decision,
    Limiter,
    MemoryStore,
    RateLimitMiddleware,
)
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.testing import ManualClock
from tests.fastapi.test_settle import left, token_limit
from tests.inbound.test_served import request, served
from tests.support.asgi import GONE, Exchange, body, http, settle
from tests.support.servers import Server
from tests.support.stores import new_store

pytestmark = pytest.mark.anyio

# Streams


def stream_app(limit: RateLimit, stream: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, limit=None)

    @app.get("/chat")
    async def chat(quota: Annotated[Decision, Depends(limit)]) -> StreamingResponse:
        return StreamingResponse(stream(quota))

    return app


async def test_a_stream_settles_at_its_end(store: MemoryStore) -> None:
    limit = token_limit(store)

    async def tokens(quota: Decision) -> AsyncIterator[bytes]:
        used = 0
        try:
            for _ in range(7):
                used += 1
                yield b"token "
        finally:
            await limit.settle(quota, used)

    answer = TestClient(stream_app(limit, tokens)).get("/chat")
    assert answer.text == "token " * 7
    assert answer.headers["x-ratelimit-remaining"] == "50"  # it had started before
    assert await left(store, "100/minute") == 93


@pytest.mark.parametrize("end", ["the client leaves", "the server stops it"])
async def test_a_stream_that_breaks_settles_what_was_sent(store: MemoryStore, end: str) -> None:
    limit, sent = token_limit(store), asyncio.Event()

    async def tokens(quota: Decision) -> AsyncIterator[bytes]:
        used = 0
        try:
            for _ in range(3):
                used += 1
                yield b"token "
            sent.set()
            await asyncio.get_running_loop().create_future()
        finally:
            await limit.settle(quota, used)

    exchange = Exchange(stream_app(limit, tokens), http("/chat"), *body(b""))
    await asyncio.wait_for(sent.wait(), 10)
    if end == "the client leaves":
        exchange.feed(GONE)
        await exchange.answer()
    else:
        exchange.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange.task
    await settle()
    assert await left(store, "100/minute", key="203.0.113.7") == 97


async def test_a_stream_that_breaks_settles_in_redis(any_redis: Server) -> None:
    async with new_store(any_redis.url) as store:
        limit, sent = RateLimit("100/hour", cost=50, store=store), asyncio.Event()

        async def tokens(quota: Decision) -> AsyncIterator[bytes]:
            try:
                yield b"token "
                sent.set()
                await asyncio.get_running_loop().create_future()
            finally:
                await limit.settle(quota, 3)

        exchange = Exchange(stream_app(limit, tokens), http("/chat"), *body(b""))
        await asyncio.wait_for(sent.wait(), 10)
        exchange.feed(GONE)
        await exchange.answer()
        assert await left(store, "100/hour", key="203.0.113.7") == 97


def test_a_stream_that_a_real_client_leaves_settles_what_was_sent(clock: ManualClock) -> None:
    store, settled = MemoryStore(clock=clock), threading.Event()
    limit = RateLimit("100000/hour", cost=50_000, store=store, key=lambda conn: "ada")

    async def tokens(quota: Decision) -> AsyncIterator[bytes]:
        used = 0
        try:
            for _ in range(10_000):
                used += 1
                yield b"x" * 1000
                await asyncio.sleep(0.001)
        finally:
            await limit.settle(quota, used)
            settled.set()

    with served(stream_app(limit, tokens)) as port:
        with request(port, "/chat") as response:
            assert response.read(1000) == b"x" * 1000
        assert settled.wait(10)
    remaining = asyncio.run(Limiter("100000/hour", store=store, name="/chat").peek("ada")).remaining
    assert 90_000 < remaining < 100_000


async def test_a_websocket_route_settles(store: MemoryStore) -> None:
    limit, app = token_limit(store), FastAPI()

    @app.websocket("/chat")
    async def chat(websocket: WebSocket, quota: Annotated[Decision, Depends(limit)]) -> None:
        await websocket.accept()
        used = len(await websocket.receive_text())
        await limit.settle(quota, used)
        await websocket.close()

    with TestClient(app).websocket_connect("/chat") as socket:
        socket.send_text("seven..")
        assert socket.receive()["type"] == "websocket.close"
    assert await left(store, "100/minute") == 93
