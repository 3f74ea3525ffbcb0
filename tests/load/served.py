"""An app that does 20 ms of work per request, and sheds load: for the servers of a test."""

from __future__ import annotations

import asyncio
import time

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from asgi_ratelimit.load import LoadShedMiddleware

__all__ = ["app"]


async def work(request: Request) -> PlainTextResponse:
    end = time.monotonic() + 0.02
    while time.monotonic() < end:  # the loop is not free meanwhile
        pass
    await asyncio.sleep(0.02)
    return PlainTextResponse("done")


async def health(request: Request) -> PlainTextResponse:
    return PlainTextResponse("well")


async def stream(request: Request) -> StreamingResponse:
    return StreamingResponse(iter([b"a", b"b", b"c"]))


def priority(conn: HTTPConnection) -> int:
    return int(conn.headers.get("x-class", "1"))


app = Starlette(routes=[Route("/", work), Route("/health", health), Route("/stream", stream)])
app.add_middleware(LoadShedMiddleware, priority=priority)
