"""`settle=` at every end of a request: errors, cancellation, clients that leave, and WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from asgi_ratelimit import Limiter, MemoryStore, Served
from asgi_ratelimit.testing import ManualClock
from tests.inbound.test_middleware import Trouble, door
from tests.inbound.test_settle import Record, left
from tests.support.asgi import (
    CONNECT,
    DENIAL,
    GONE,
    LEFT,
    Exchange,
    ask,
    body,
    frame,
    handshake,
    http,
    settle,
    websocket,
)
from tests.support.servers import Server
from tests.support.stores import new_store

pytestmark = pytest.mark.anyio


def streaming(*chunks: bytes, then: Callable[[], Awaitable[object]]) -> Any:
    """An app that sends chunks, and then does something else."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await then()

    return app


async def trouble() -> None:
    raise Trouble


async def stuck() -> None:
    await asyncio.get_running_loop().create_future()


# Ends


async def test_an_app_that_raises_is_a_500(store: MemoryStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise Trouble

    used = Record(3)
    with pytest.raises(Trouble):
        await ask(door(store, "9/60s", app=app, settle=used))
    assert used.statuses == [500]
    assert await left(store, "9/60s") == 6


async def test_an_app_that_raises_in_midstream_has_sent_its_status(store: MemoryStore) -> None:
    used = Record(3)
    with pytest.raises(Trouble):
        await ask(door(store, "9/60s", app=streaming(b"half", then=trouble), settle=used))
    assert [(served.status, served.body_bytes) for served in used.served] == [(200, 4)]
    assert await left(store, "9/60s") == 6


async def test_an_app_that_sends_nothing_is_a_500(store: MemoryStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    used = Record()
    await ask(door(store, app=app, settle=used))
    assert used.statuses == [500]


@pytest.mark.parametrize(
    ("app", "status"), [(lambda *channels: stuck(), 504), (streaming(b"half", then=stuck), 200)], ids=["before", "amid"]
)
async def test_a_cancelled_request_is_settled(store: MemoryStore, app: Any, status: int) -> None:
    used = Record(3)
    request = asyncio.create_task(ask(door(store, "9/60s", app=app, settle=used)))
    await settle()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert used.statuses == [status]
    assert await left(store, "9/60s") == 6


async def test_a_cancel_scope_does_not_keep_an_async_function_from_its_end(store: MemoryStore) -> None:
    async def slow(served: Served) -> int:
        await asyncio.sleep(0)
        return served.status - 501

    with anyio.CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        app: Any = door(store, "9/60s", app=lambda *channels: stuck(), settle=slow)
        await app(http(), stuck, stuck)
    assert scope.cancelled_caught
    assert await left(store, "9/60s") == 6


class SlowBuckets:
    """The buckets of a store that takes its time to settle."""

    def __init__(self, buckets: Any) -> None:
        self.decide, self.peek, self._settle = buckets.decide, buckets.peek, buckets.settle

    async def settle(self, decision: Any, cost: int) -> None:
        await asyncio.sleep(0)
        self._settle(decision, cost)


async def test_a_cancel_scope_does_not_keep_a_slow_store_from_its_end(clock: ManualClock) -> None:
    class Slow(MemoryStore):
        def open(self, name: str, policies: Any) -> Any:
            return SlowBuckets(super().open(name, policies))

    store = Slow(clock=clock)
    with anyio.CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        app: Any = door(store, "9/60s", app=lambda *channels: stuck(), settle=lambda served: 3)
        await app(http(), stuck, stuck)
    assert scope.cancelled_caught
    assert await left(store, "9/60s") == 6


async def test_a_cancelled_request_is_settled_in_redis(any_redis: Server) -> None:
    async with new_store(any_redis.url) as store:
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_later(0.05, scope.cancel)
            app = streaming(b"half", then=stuck)
            await ask(door(store, "9/hour", app=app, settle=lambda served: served.body_bytes))  # type: ignore[arg-type]
        assert scope.cancelled_caught
        assert (await Limiter("9/hour", store=store, name="app").peek("203.0.113.7")).remaining == 5


async def test_a_client_that_leaves_a_stream_pays_for_what_was_sent(store: MemoryStore) -> None:
    sent = asyncio.Event()

    async def chunks() -> Any:
        yield b"four"
        sent.set()
        await stuck()

    def stream(request: Request) -> Response:
        return StreamingResponse(chunks())

    used = Record(3)
    app = door(store, "9/60s", app=Starlette(routes=[Route("/", stream)]), settle=used)
    exchange = Exchange(app, http(), *body(b""))
    await asyncio.wait_for(sent.wait(), 10)
    exchange.feed(GONE)
    await exchange.answer()
    assert [(served.status, served.body_bytes) for served in used.served] == [(200, 4)]
    assert await left(store, "9/60s") == 6


async def test_a_server_that_can_send_no_more_does_not_keep_the_charge(store: MemoryStore) -> None:
    used = Record(3)

    async def broken(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise OSError("the client has left")

    app = door(store, "9/60s", settle=used)
    with pytest.raises(OSError, match="left"):
        await app(http(), stuck, broken)  # type: ignore[arg-type]
    assert used.statuses == [200]
    assert await left(store, "9/60s") == 6


# WebSockets


async def _socket(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept", "headers": [(b"x-tokens", b"1")]})
    while (message := await receive())["type"] == "websocket.receive":
        if message["text"] == "close":
            await send({"type": "websocket.close"})
        elif message["text"] == "crash":
            raise Trouble
        else:
            await send({"type": "websocket.send", "text": "häh"})
            await send({"type": "websocket.send", "bytes": b"12"})


@pytest.mark.parametrize("last", [LEFT, frame("close")], ids=["the client leaves", "the app closes"])
async def test_a_websocket_is_settled_at_its_end(store: MemoryStore, last: Message, clock: ManualClock) -> None:
    used = Record(3)
    exchange = Exchange(door(store, "9/60s", app=_socket, settle=used), websocket(), CONNECT, frame("a"), frame("b"))
    await settle()
    clock.advance(6)
    assert used.served == []
    exchange.feed(last)
    await settle()
    (served,) = used.served
    assert (served.status, served.headers["x-tokens"], served.body_bytes, served.seconds) == (101, "1", 12, 6.0)
    exchange.feed(LEFT)
    await exchange.answer()
    assert len(used.served) == 1


async def test_a_websocket_whose_app_fails_is_settled(store: MemoryStore) -> None:
    used = Record(3)
    with pytest.raises(Trouble):
        await Exchange(door(store, "9/60s", app=_socket, settle=used), websocket(), CONNECT, frame("crash")).answer()
    assert used.statuses == [101]


async def test_a_websocket_that_sends_too_much_is_settled(store: MemoryStore) -> None:
    used = Record(3)
    app = door(store, "9/60s", app=_socket, settle=used, messages="1/60s")
    await Exchange(app, websocket(), CONNECT, frame("a"), frame("b")).answer()
    assert [(served.status, served.body_bytes) for served in used.served] == [(101, 6)]


async def test_a_handshake_that_is_refused_by_the_app_is_settled(store: MemoryStore) -> None:
    async def closes(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 1008})

    async def denies(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"tea"})

    used = Record()
    await handshake(door(store, app=closes, settle=used))
    await handshake(door(store, app=denies, settle=used), **DENIAL)
    assert [(served.status, served.body_bytes) for served in used.served] == [(403, 0), (418, 3)]
