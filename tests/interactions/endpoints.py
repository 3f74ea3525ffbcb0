"""A bot's endpoint in every place where it may stand, behind an InteractionLimit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.interactions.endpoint import InteractionLimit
from asgi_ratelimit.store import Store
from tests.support.signing import PUBLIC_KEY, URL, Discord

REACHED = {"type": 4, "data": {"content": "pong"}}
Build = Callable[[InteractionLimit], ASGIApp]


async def endpoint(request: Request) -> Response:
    assert request.state.interaction == await request.json()
    return JSONResponse(REACHED)


def as_dependency(limit: InteractionLimit) -> ASGIApp:
    app = FastAPI()

    @app.post(URL, dependencies=[Depends(limit)])
    async def interactions(request: Request) -> Any:
        assert (await request.json())["type"]
        return REACHED

    return app


def as_parameter(limit: InteractionLimit) -> ASGIApp:
    app, guard = FastAPI(), Depends(limit)

    @app.post(URL)
    def interactions(interaction: dict[str, Any] = guard) -> Any:
        assert interaction["type"]
        return REACHED

    return app


def beside_a_body_parameter(limit: InteractionLimit) -> ASGIApp:
    app = FastAPI()

    @app.post(URL, dependencies=[Depends(limit)])
    async def interactions(body: dict[str, Any], request: Request) -> Any:
        assert body == request.state.interaction
        return REACHED

    return app


def on_a_router(limit: InteractionLimit) -> ASGIApp:
    app, router = FastAPI(), APIRouter(dependencies=[Depends(limit)])
    router.add_api_route(URL, lambda: REACHED, methods=["POST"])
    app.include_router(router)
    return app


def in_a_mounted_app(limit: InteractionLimit) -> ASGIApp:
    inner, app = FastAPI(dependencies=[Depends(limit)]), Starlette()
    inner.add_api_route("/", lambda: REACHED, methods=["POST"])
    app.mount(URL, inner)
    return app


def around_a_route(limit: InteractionLimit) -> ASGIApp:
    return Starlette(routes=[Route(URL, endpoint, methods=["POST"], middleware=[Middleware(limit.wrap)])])


def around_a_mounted_app(limit: InteractionLimit) -> ASGIApp:
    return Starlette(routes=[Mount(URL, limit.wrap(Starlette(routes=[Route("/", endpoint, methods=["POST"])])))])


def around_plain_asgi(limit: InteractionLimit) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert json.loads(message["body"]) == scope["state"]["interaction"]
        await JSONResponse(REACHED)(scope, receive, send)

    return limit.wrap(app)


BUILDS = [
    as_dependency, as_parameter, beside_a_body_parameter, on_a_router, in_a_mounted_app,
    around_a_route, around_a_mounted_app, around_plain_asgi,
]  # fmt: skip
MOUNTED = (in_a_mounted_app, around_a_mounted_app)  # Starlette puts a slash after a mount


def limited(store: Store, limit: Any = "2/10s", **options: Any) -> InteractionLimit:
    return InteractionLimit(PUBLIC_KEY, limit, store=store, **options)


def with_limit(store: Store, clock: Clock, limit: Any = "1/10s", **options: Any) -> Discord:
    return Discord(as_dependency(limited(store, limit, **options)), clock)


def reached(answer: httpx.Response) -> bool:
    return answer.status_code == 200 and answer.json() == REACHED


async def refusals(discord: Discord, *interactions: dict[str, Any]) -> list[bool]:
    return [not reached(await discord.post(each)) for each in interactions]
