"""Middleware without a store: one app has one store, however many times the middleware is built, and no other app's."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp

from asgi_ratelimit import MemoryStore, RateLimitMiddleware
from asgi_ratelimit.fastapi import RateLimit
from tests.inbound.conftest import Said
from tests.support.asgi import Exchange, ask, body, hello, http

pytestmark = pytest.mark.anyio

ROUTES = ("/a", "/b", "/c", "/d", "/e", "/f")


async def endpoint(request: Request) -> Response:
    return PlainTextResponse("hello")


def limited(limit: str = "3/hour", **options: Any) -> Middleware:
    return Middleware(RateLimitMiddleware, limit=limit, **options)


async def allowed(app: ASGIApp, *paths: str, rounds: int = 3) -> int:
    """The number of requests that pass."""
    return sum([(await ask(app, path)).status == 200 for _ in range(rounds) for path in paths])


async def ask_within(app: object, middleware: ASGIApp) -> int:
    """The status of a request that has passed this app before it reaches the middleware."""
    return (await Exchange(middleware, http("/", app=app), *body(b"")).answer()).status


async def test_a_middleware_that_is_built_for_each_route_has_one_bucket_for_all() -> None:
    middleware = [limited()]
    app = Starlette(routes=[Route(path, endpoint, middleware=middleware) for path in ROUTES])
    assert await allowed(app, *ROUTES) == 3


async def test_equal_middleware_that_is_written_at_each_route_has_one_bucket_for_all() -> None:
    app = Starlette(routes=[Route(path, endpoint, middleware=[limited()]) for path in ROUTES])
    assert await allowed(app, *ROUTES) == 3


async def test_a_limit_function_has_one_bucket_for_all_routes_too() -> None:
    middleware = [Middleware(RateLimitMiddleware, limit=lambda conn: "3/hour")]
    app = Starlette(routes=[Route(path, endpoint, middleware=middleware) for path in ROUTES])
    assert await allowed(app, *ROUTES) == 3


async def test_middleware_of_other_names_has_other_buckets() -> None:
    app = Starlette(routes=[Route(path, endpoint, middleware=[limited(name=path)]) for path in ROUTES])
    assert await allowed(app, *ROUTES) == 18


async def test_a_mount_shares_the_bucket_of_its_app_and_a_mounted_app_has_its_own() -> None:
    of_mount = Mount("/mount", routes=[Route("/", endpoint)], middleware=[limited()])
    mounted = Starlette(routes=[Route("/", endpoint)], middleware=[limited()])
    app = Starlette(routes=[Route("/", endpoint, middleware=[limited()]), of_mount, Mount("/app", mounted)])
    assert await allowed(app, "/", "/mount/") == 3
    assert await allowed(app, "/app/") == 3


async def test_a_mounted_app_is_charged_once_by_each_of_two_equal_middlewares(said: Said) -> None:
    mounted = Starlette(routes=[Route("/", endpoint)], middleware=[limited()])
    app = Starlette(routes=[Mount("/app", mounted)], middleware=[limited()])
    assert await allowed(app, "/app/", rounds=5) == 3
    assert said() == []


async def test_different_limits_of_one_app_are_held_side_by_side(said: Said) -> None:
    app = Starlette(routes=[Route("/", endpoint)], middleware=[limited("9/hour"), limited("3/minute")])
    assert await allowed(app, "/", rounds=12) == 3
    assert said() == []


async def test_each_app_starts_with_a_full_bucket_even_if_its_options_are_the_same() -> None:
    middleware = [limited()]
    for _ in range(3):
        assert await allowed(Starlette(routes=[Route("/", endpoint)], middleware=middleware), "/", rounds=5) == 3


async def test_each_app_without_a_framework_starts_with_a_full_bucket() -> None:
    for _ in range(3):
        assert await allowed(RateLimitMiddleware(hello, limit="3/hour"), "/", rounds=5) == 3


async def test_an_app_whose_state_cannot_be_changed_is_limited_all_the_same() -> None:
    middleware = RateLimitMiddleware(hello, limit="3/hour")
    apps = [app for app in (None, object(), Stubborn()) for _ in range(3)]
    assert [await ask_within(app, middleware) for app in apps] == [200] * 3 + [429] * 6


class Stubborn:
    """An app with a state that has room for nothing."""

    state = object()


async def test_the_store_is_public_before_and_after_the_first_request() -> None:
    first, second = (RateLimitMiddleware(hello, limit="3/hour") for _ in range(2))
    store, app = first.store, Starlette()
    assert isinstance(store, MemoryStore)
    for middleware in (first, second):
        await ask_within(app, middleware)
        assert middleware.store is store
    assert len(store) == 1


async def test_the_store_of_an_option_is_used_before_the_apps() -> None:
    store, app = MemoryStore(), Starlette()
    first, second = (RateLimitMiddleware(hello, limit="3/hour", store=option) for option in (None, store))
    for middleware in (first, second):
        await ask_within(app, middleware)
    assert second.store is store
    assert len(store) == 1


async def test_a_named_limit_of_routes_is_one_with_and_without_middleware() -> None:
    search = RateLimit("3/hour", name="search")
    inner = FastAPI()

    @inner.get("/plain", dependencies=[Depends(search)])
    async def plain() -> None: ...

    (route,) = (route for route in inner.routes if getattr(route, "path", "") == "/plain")
    app = FastAPI(routes=[route, Mount("/mount", routes=[route], middleware=[limited("9/hour")])])
    assert await allowed(app, "/plain", "/mount/plain") == 3


async def test_a_router_that_is_served_without_an_app_has_one_bucket_for_all() -> None:
    middleware = [limited()]
    app = Router(routes=[Route(path, endpoint, middleware=middleware) for path in ROUTES])
    assert await allowed(app, *ROUTES) == 3


async def test_routes_of_such_a_router_that_are_wrapped_share_a_name() -> None:
    middleware = [[Middleware(RateLimit("3/hour", name="all").wrap)] for _ in ROUTES]
    routes = [Route(path, endpoint, middleware=own) for path, own in zip(ROUTES, middleware, strict=True)]
    assert await allowed(Router(routes=routes), *ROUTES) == 3
