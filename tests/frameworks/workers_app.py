"""An app with a store in memory, for several workers; and servers that a program of the user's starts."""

from __future__ import annotations

import multiprocessing
import sys

import uvicorn
from granian import Granian
from granian.constants import Interfaces
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi_ratelimit import RateLimitMiddleware

APP = "tests.frameworks.workers_app:app"


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


app = Starlette(routes=[Route("/", hello)], middleware=[Middleware(RateLimitMiddleware, limit="5/hour")])


def main(server: str, port: str) -> None:
    if server == "uvicorn":
        uvicorn.run(APP, port=int(port), workers=2)
        return
    multiprocessing.set_start_method(server.removeprefix("granian-"))
    Granian(APP, port=int(port), interface=Interfaces.ASGI, workers=2).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
