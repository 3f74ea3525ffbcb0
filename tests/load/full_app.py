"""An app that is always full: it sheds all that may be shed. It tells how many requests it holds to be in flight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_ratelimit.load import LoadShedMiddleware
from asgi_ratelimit.load.controller import Controller

__all__ = ["app"]

CONTROLLERS = list[Controller]()


class Full(Controller):
    """Has room for class 0 only."""

    def __init__(self, now_ns: int, worked_s: float) -> None:
        super().__init__(now_ns, worked_s)
        self.free_below = 0.0
        CONTROLLERS.append(self)

    @property
    def has_room_for_all(self) -> bool:
        return False

    def has_room(self, one: int | None) -> bool:
        return not one

    def tick(self, now_ns: int, worked_s: float, lag_s: float) -> None:
        super().tick(now_ns, worked_s, lag_s)
        self.free_below = 0.0


class FullMiddleware(LoadShedMiddleware):
    controller_type = Full


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def size(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def sleep(request: Request) -> PlainTextResponse:
    await asyncio.sleep(0.02)
    return PlainTextResponse("slept")


async def wait(request: Request) -> PlainTextResponse:
    """Until its client leaves."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return PlainTextResponse("left")


async def events(request: Request) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(0.02)

    return StreamingResponse(parts(), media_type="text/event-stream")


async def in_flight(request: Request) -> PlainTextResponse:
    """This request is one of them, until its response starts."""
    return PlainTextResponse(str(sum(controller.in_flight for controller in CONTROLLERS) - 1))


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


def priority(conn: HTTPConnection) -> int:
    return int(conn.headers.get("x-class", "1"))


ENDPOINTS = {
    "/": hello, "/health": hello, "/internal/report": hello, "/sleep": sleep, "/wait": wait, "/events": events,
    "/in-flight": in_flight,
}  # fmt: skip
app = FullMiddleware(
    Starlette(
        routes=[
            *[Route(path, endpoint) for path, endpoint in ENDPOINTS.items()],
            Route("/size", size, methods=["POST"]),
            WebSocketRoute("/echo", echo),
        ]
    ),
    priority=priority,
    exempt=("/internal/*",),
)
