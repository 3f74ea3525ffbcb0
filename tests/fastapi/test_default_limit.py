"""`RateLimitMiddleware(default=True)`: a limit for every route that has none of its own."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from asgi_ratelimit import MemoryStore, RateLimitMiddleware
from asgi_ratelimit.fastapi import RateLimit, exempt
from tests.support.asgi import ask, statuses

pytestmark = pytest.mark.anyio

OWN = [Depends(RateLimit("5/hour", name="own"))]


def default(store: MemoryStore, app: Any) -> Any:
    app.add_middleware(RateLimitMiddleware, limit="2/hour", store=store, default=True)
    return app


def nested(limit: Any) -> Any:
    """A dependency that depends on the limit."""

    async def inner(decision: Any = limit) -> None: ...

    return Depends(inner)


@pytest.fixture
def app(store: MemoryStore) -> FastAPI:
    app = FastAPI()
    router = APIRouter(prefix="/router")
    deep = APIRouter(prefix="/deep", dependencies=OWN)
    sub = FastAPI(dependencies=OWN)
    plain = FastAPI()
    for where in (app, router, deep, sub, plain):
        where.get("/plain")(lambda: "plain")
        where.get("/own", dependencies=OWN)(lambda: "own")
        where.get("/items/{item}", dependencies=[nested(OWN[0])])(lambda item: item)
        where.get("/exempt", dependencies=[Depends(exempt)])(lambda: "exempt")
        where.post("/plain", dependencies=OWN)(lambda: "post")
    router.include_router(deep)
    app.include_router(router)
    app.include_router(router, prefix="/v2", dependencies=OWN)
    app.mount("/sub", sub)
    app.mount("/plain-sub", plain)
    return default(store, app)  # type: ignore[no-any-return]


OWNED = ["/own", "/items/7", "/router/own", "/router/items/7", "/router/deep/plain", "/v2/router/plain", "/sub/plain"]


@pytest.mark.parametrize("path", [*OWNED, "/plain-sub/own", "/plain-sub/items/1"])
async def test_a_route_with_a_limit_of_its_own_is_not_charged_by_it(app: FastAPI, path: str) -> None:
    assert await statuses(app, 6, path) == [200] * 5 + [429]
    assert await statuses(app, 3, "/plain") == [200, 200, 429]


@pytest.mark.parametrize("path", ["/exempt", "/router/exempt", "/plain-sub/exempt"])
async def test_an_exempt_route_is_not_counted(app: FastAPI, path: str) -> None:
    assert await statuses(app, 20, path) == [200] * 20


@pytest.mark.parametrize("path", ["/plain", "/router/plain", "/plain-sub/plain", "/nowhere", "/own/", "/v3/own"])
async def test_every_other_request_is_counted(app: FastAPI, path: str) -> None:
    assert [status == 429 for status in await statuses(app, 3, path)] == [False, False, True]


async def test_it_is_the_route_of_the_method(app: FastAPI) -> None:
    assert await statuses(app, 3, "/plain", method="POST") == [200] * 3
    assert await statuses(app, 3, "/plain") == [200, 200, 429]


async def test_a_method_that_no_route_has_is_counted_as_no_limit_of_a_route_sees_it(app: FastAPI) -> None:
    assert await statuses(app, 4, "/own", method="PUT") == [405, 405, 429, 429]
    assert await statuses(app, 5, "/own") == [200] * 5


async def test_a_used_up_default_does_not_refuse_a_route_with_its_own(app: FastAPI) -> None:
    assert await statuses(app, 3, "/plain") == [200, 200, 429]
    assert (await ask(app, "/own")).status == 200


async def test_a_limit_for_some_methods_leaves_the_others_to_the_default(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("5/hour", methods=("POST",)))])
    app.get("/")(lambda: "get")
    app.post("/")(lambda: "post")
    default(store, app)
    assert await statuses(app, 3) == [200, 200, 429]
    assert await statuses(app, 3, method="POST") == [200] * 3


@pytest.mark.parametrize("root_path", ["", "/prefix"])
async def test_a_limit_for_some_paths_leaves_the_others_to_the_default(store: MemoryStore, root_path: str) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("5/hour", name="log-in", only=("/login",)))])
    app.get("/login")(lambda: "login")
    app.get("/search")(lambda: "search")
    default(store, app)
    assert await statuses(app, 3, f"{root_path}/search", root_path=root_path) == [200, 200, 429]
    assert await statuses(app, 6, f"{root_path}/login", root_path=root_path) == [200] * 5 + [429]


async def test_a_limit_with_a_function_for_only_is_beside_the_default(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", only=lambda conn: "x-write" in conn.headers))])
    app.get("/")(lambda: "ok")
    default(store, app)
    assert await statuses(app, 3) == [200, 200, 429]


async def test_a_wrapped_route_or_app_has_one(store: MemoryStore) -> None:
    async def page(request: Request) -> Response:
        return PlainTextResponse("page")

    limit = RateLimit("5/hour", store=store)
    wrapped = limit.wrap(Starlette(routes=[Route("/page", page)]))
    routes: list[Any] = [
        Route("/one", page, middleware=[Middleware(limit.wrap)]),
        Mount("/app", wrapped),
        Route("/", page),
    ]
    app = default(store, Starlette(routes=routes))
    assert await statuses(app, 6, "/one") == [200] * 5 + [429]
    assert await statuses(app, 6, "/app/page") == [200] * 5 + [429]
    assert await statuses(app, 3) == [200, 200, 429]


async def test_a_route_of_starlette_with_a_middleware_has_one(store: MemoryStore) -> None:
    async def page(request: Request) -> Response:
        return PlainTextResponse("page")

    def own(**options: Any) -> list[Middleware]:
        return [Middleware(RateLimitMiddleware, store=store, **{"name": "own"} | options)]

    routes = [
        Route("/own", page, middleware=own(limit="5/hour")),
        Route("/headers", page, middleware=own(limit=None)),
        Route("/default", page, middleware=own(limit="5/hour", name="inner", default=True)),
        Route("/posts", page, methods=["GET", "POST"], middleware=own(limit="5/hour", methods=("POST",))),
    ]
    app = default(store, Starlette(routes=routes))
    assert await statuses(app, 6, "/own") == [200] * 5 + [429]
    assert await statuses(app, 1, "/headers") + await statuses(app, 2, "/default") == [200, 200, 429]
    assert await statuses(app, 1, "/posts") == [429]


async def test_around_the_whole_app(store: MemoryStore) -> None:
    inner = FastAPI()
    inner.get("/own", dependencies=[Depends(RateLimit("5/hour"))])(lambda: "own")
    inner.get("/")(lambda: "ok")
    app = RateLimitMiddleware(GZipMiddleware(inner), limit="2/hour", default=True, store=store)
    assert await statuses(app, 6, "/own") == [200] * 5 + [429]
    assert await statuses(app, 3) == [200, 200, 429]


async def test_under_a_root_path(app: FastAPI) -> None:
    assert await statuses(app, 3, "/prefix/own", root_path="/prefix") == [200] * 3
    assert await statuses(app, 3, "/prefix/plain", root_path="/prefix") == [200, 200, 429]


async def test_exempt_alone_changes_nothing(store: MemoryStore) -> None:
    app = FastAPI()
    app.get("/", dependencies=[Depends(exempt)])(lambda: "ok")
    app.add_middleware(RateLimitMiddleware, limit="1/hour", store=store)
    assert await statuses(app, 2) == [200, 429]
