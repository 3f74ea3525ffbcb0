"""An app that takes 4 ms of processor and 10 ms of waiting per request, served by uvicorn: bare, or shedding load."""

from __future__ import annotations

import asyncio
import socket
import sys
from time import thread_time

import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from asgi_ratelimit.load import LoadShedMiddleware

__all__ = ["BARE", "SHEDDING"]

BARE, SHEDDING = "the bare app", "with LoadShedMiddleware"
WORK_S, WAIT_S = 0.004, 0.010


async def work(request: Request) -> PlainTextResponse:
    end = thread_time() + WORK_S
    while thread_time() < end:
        pass
    await asyncio.sleep(WAIT_S)
    return PlainTextResponse("done")


async def health(request: Request) -> PlainTextResponse:
    return PlainTextResponse("well")


def priority(conn: HTTPConnection) -> int:
    return int(conn.headers["x-class"])


def _app(name: str) -> ASGIApp:
    app = Starlette(routes=[Route("/", work), Route("/health", health)])
    return LoadShedMiddleware(app, priority=priority) if name == SHEDDING else app


def main() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        # As asyncio does for the sockets that it opens itself. Else each body waits for the answer to its head.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(listening.getsockname()[1], flush=True)
        config = uvicorn.Config(_app(sys.argv[1]), log_level="critical", access_log=False, lifespan="off")
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
