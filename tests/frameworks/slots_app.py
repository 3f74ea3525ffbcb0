"""Apps with so many requests at a time, for real servers. Each counts by itself how many are in flight.

Mounted at /{store}/{door}: a middleware, a route without one, and both of them with a line (`max_wait`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.sse import EventSourceResponse as FastAPIEvents
from sse_starlette import EventSourceResponse
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from asgi_ratelimit import Concurrency, MemoryStore, RateLimitMiddleware, Store
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.inbound.options import Connection
from asgi_ratelimit.limiter import limiters_of
from asgi_ratelimit.observe import Stats
from asgi_ratelimit.redis import RedisStore

KEY = "everyone"
LIMIT = Concurrency(3, lease=600.0)
BUSY = Concurrency(1, lease=600.0, name="busy", status=503)
PATIENCE_S = 60.0


def key_of(conn: Connection) -> str:
    return KEY


class Closing:
    """A response that closes its generator. Else the garbage collector ends it, some time after the response."""

    body_iterator: Any

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)  # type: ignore[misc]
        finally:
            await self.body_iterator.aclose()


class Stream(Closing, StreamingResponse):
    pass


class Events(Closing, EventSourceResponse):
    pass


class Flight:
    """What an app has in flight, as it sees it itself."""

    def __init__(self, store: Store, stats: Stats) -> None:
        self._store, self._stats = store, stats
        self.inside = self.most = self.entered = self.arrived = 0
        self.order: list[str] = []
        self.gate = asyncio.Event()

    @contextmanager
    def one(self, name: str = "") -> Iterator[None]:
        self.inside, self.entered = self.inside + 1, self.entered + 1
        self.most = max(self.most, self.inside)
        self.order.append(name)
        try:
            yield
        finally:
            self.inside -= 1

    async def show(self, request: Request) -> Response:
        """The counts of the app, the slots that the store has left, and the numbers of the observer."""
        limits = limiters_of(self._store)[:1]  # routes of one name share their bucket
        taken = [limiter.capacity - (await limiter.peek(KEY)).remaining for limiter in limits]
        limiters = self._stats.snapshot().limiters.values()
        return JSONResponse(
            {
                **{name: getattr(self, name) for name in ("inside", "most", "entered", "arrived", "order")},
                "taken": sum(taken),
                "in_flight": sum(counts.in_flight for counts in limiters),
                "most_in_flight": max([counts.most_in_flight for counts in limiters], default=0),
            }
        )


def app_of(store_of: Any, door: str, wait: float, limit: Concurrency = LIMIT) -> Any:
    stats = Stats()
    store = store_of(stats)
    flight, app = Flight(store, stats), FastAPI()
    options: Any = {"key": key_of, "store": store, "max_wait": wait}
    limited: Any = []
    if door == "middleware":
        app.add_middleware(RateLimitMiddleware, limit=limit, exempt=("/counts", "/open"), **options)
    else:
        limited = [Depends(RateLimit(limit, name="route", **options))]
    add_routes(app, flight, limited)

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        flight.arrived += scope["type"] != "lifespan" and not scope["path"].endswith(("/counts", "/open"))
        await app(scope, receive, send)

    return counted


def add_routes(app: FastAPI, flight: Flight, limited: Any) -> None:
    app.add_route("/counts", flight.show)

    @app.get("/open")
    async def open_gate() -> str:
        flight.gate.set()
        flight.gate = asyncio.Event()
        return "open"

    @app.get("/short", dependencies=limited)
    async def short(name: str = "") -> Response:
        with flight.one(name):
            await asyncio.sleep(0.002)
            return PlainTextResponse("done")

    @app.get("/hang", dependencies=limited)
    async def hang(request: Request) -> Response:
        with flight.one("hang"):
            while not await request.is_disconnected():
                await asyncio.sleep(0.002)
            return PlainTextResponse("too late")

    @app.get("/gate", dependencies=limited)
    async def gate(name: str = "") -> Response:
        with flight.one(name):
            await flight.gate.wait()
            return PlainTextResponse("done")

    @app.get("/background", dependencies=limited)
    async def background() -> Response:
        return PlainTextResponse("done", background=BackgroundTask(flight.gate.wait))

    async def parts(count: int = 10**9) -> AsyncIterator[str]:
        with flight.one("stream"):
            for number in range(count):
                yield f"{number}\n"
                await asyncio.sleep(0.002)

    @app.get("/stream", dependencies=limited)
    async def stream(count: int = 10**9) -> Response:
        return Stream(parts(count))

    @app.get("/sse", dependencies=limited)
    async def sse(count: int = 10**9) -> Response:
        return Events(parts(count))

    @app.get("/events", dependencies=limited, response_class=FastAPIEvents)
    async def events(count: int = 10**9) -> AsyncIterator[str]:
        for number in range(count):  # it is not counted: FastAPI leaves the end of a generator to the garbage collector
            yield f"{number}"
            await asyncio.sleep(0.002)

    @app.websocket("/ws", dependencies=limited)
    async def echo(socket: WebSocket) -> None:
        with flight.one("ws"):
            await socket.accept()
            try:
                while (text := await socket.receive_text()) != "close":
                    await socket.send_text(text)
            except WebSocketDisconnect:
                return
            await socket.close()


def redis_store(stats: Stats) -> Store:
    return RedisStore(os.environ["REDIS_URL"], prefix=f"slots{next(_numbers)}", timeout=10.0, observers=[stats])


def memory_store(stats: Stats) -> Store:
    return MemoryStore(observers=[stats])


_numbers = iter(range(100))
app = FastAPI()
for store_name, store_of in {"memory": memory_store, "redis": redis_store}.items():
    for door in ("middleware", "route"):
        app.mount(f"/{store_name}/{door}/line", app_of(store_of, door, PATIENCE_S, Concurrency(1, lease=600.0)))
        app.mount(f"/{store_name}/{door}/busy", app_of(store_of, door, 0.0, BUSY))
        app.mount(f"/{store_name}/{door}", app_of(store_of, door, 0.0))
