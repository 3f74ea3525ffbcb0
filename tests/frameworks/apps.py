"""One small app in each framework: it greets, echoes a body and frames, streams, and records its lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import blacksheep
import django
import litestar
import quart
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from starlette.types import ASGIApp

from tests.frameworks import streams

__all__ = ["LITESTAR_ROUTES", "Events", "blacksheep_app", "django_app", "litestar_app", "quart_app"]

Events = list[str]


# Litestar


@litestar.get("/")
async def litestar_hello() -> str:
    return "hello"


@litestar.post("/echo", status_code=200)
async def litestar_echo(request: litestar.Request[Any, Any, Any]) -> bytes:
    return await request.body()


@litestar.get("/stream")
async def litestar_stream() -> litestar.response.Stream:
    return litestar.response.Stream(streams.parts())


@litestar.get("/release")
async def litestar_release() -> None:
    streams.release()


@litestar.websocket("/ws")
async def litestar_socket(socket: litestar.WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


LITESTAR_ROUTES = [litestar_hello, litestar_echo, litestar_stream, litestar_release, litestar_socket]


def litestar_app(events: Events) -> ASGIApp:
    @asynccontextmanager
    async def lifespan(_: litestar.Litestar) -> AsyncIterator[None]:
        events.append("started")
        yield
        events.append("stopped")

    app: Any = litestar.Litestar(LITESTAR_ROUTES, lifespan=[lifespan], logging_config=None)
    return app  # type: ignore[no-any-return]


# Quart


def quart_app(events: Events) -> ASGIApp:
    app = quart.Quart("tests.frameworks.apps")

    @app.get("/")
    async def hello() -> str:
        return "hello"

    @app.post("/echo")
    async def echo() -> quart.Response:
        return quart.Response(await quart.request.get_data())

    @app.get("/stream")
    async def stream() -> Any:
        return streams.parts(), 200

    @app.get("/release")
    async def release() -> str:
        streams.release()
        return ""

    @app.websocket("/ws")
    async def socket() -> None:
        await quart.websocket.accept()
        await quart.websocket.send(await quart.websocket.receive())

    @app.before_serving
    async def started() -> None:
        events.append("started")

    @app.after_serving
    async def stopped() -> None:
        events.append("stopped")

    asgi: Any = app
    return asgi  # type: ignore[no-any-return]


# Django


async def django_hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


async def django_echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body)


async def django_stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(streams.parts())


async def django_release(request: HttpRequest) -> HttpResponse:
    streams.release()
    return HttpResponse()


urlpatterns = [
    path("", django_hello),
    path("echo", django_echo),
    path("stream", django_stream),
    path("release", django_release),
]


def django_app(events: Events) -> ASGIApp:
    """Django has no lifespan: nothing is recorded."""
    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="tests", LOGGING_CONFIG=None)
        django.setup()
    app: Any = get_asgi_application()
    return app  # type: ignore[no-any-return]


# BlackSheep


def blacksheep_app(events: Events) -> ASGIApp:
    app = blacksheep.Application(router=blacksheep.Router())

    @app.router.get("/")
    async def hello() -> blacksheep.Response:
        return blacksheep.text("hello")

    @app.router.post("/echo")
    async def echo(request: blacksheep.Request) -> blacksheep.Response:
        return blacksheep.text((await request.read() or b"").decode())

    @app.router.get("/stream")
    async def stream() -> blacksheep.Response:
        return blacksheep.Response(200, content=blacksheep.StreamedContent(b"text/plain", streams.parts))

    @app.router.get("/release")
    async def release() -> blacksheep.Response:
        streams.release()
        return blacksheep.text("")

    @app.router.ws("/ws")
    async def socket(websocket: blacksheep.WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    @app.on_start
    async def started(_: blacksheep.Application) -> None:
        events.append("started")

    @app.on_stop
    async def stopped(_: blacksheep.Application) -> None:
        events.append("stopped")

    asgi: Any = app
    return asgi  # type: ignore[no-any-return]
