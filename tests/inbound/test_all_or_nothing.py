"""A request that any limit refuses has been charged by none of them."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from asgi_ratelimit import Limiter, MemoryStore, RateLimitMiddleware, StoreUnavailable
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.testing import ManualClock
from tests.inbound.test_middleware import door
from tests.support.asgi import ask, statuses
from tests.support.servers import Server
from tests.support.stores import new_store

pytestmark = pytest.mark.anyio


def by_header(conn: Any) -> str:
    return str(conn.headers.get("x-user", "none"))


def app_behind(store: Any, outer: Any, *limits: RateLimit, **options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, limit=outer, store=store, **options)

    @app.get("/", dependencies=[Depends(limit) for limit in limits])
    async def root() -> None: ...

    @app.get("/free")
    async def free() -> None: ...

    return app


async def test_a_polled_route_does_not_use_up_the_limit_of_the_app(store: MemoryStore, clock: ManualClock) -> None:
    app = app_behind(store, "100/60s", RateLimit("5/5s"))
    for _ in range(4 * 120):
        assert (await ask(app)).status in (200, 429)
        clock.advance(0.25)
    free = await ask(app, "/free")
    # One call a second gets through, and 100 a minute flow in: the app's bucket is as good as full.
    assert (free.status, free["x-ratelimit-remaining"]) == (200, "99")


async def test_the_exhausted_one_of_two_dependencies_leaves_the_other_alone(store: MemoryStore) -> None:
    per_account = RateLimit("3/hour", key=by_header, name="account")
    app = app_behind(store, None, RateLimit("10/hour", name="address"), per_account)
    assert await statuses(app, 9, headers=[("x-user", "ada")]) == [200] * 3 + [429] * 6
    bob = await ask(app, headers=[("x-user", "bob")])
    assert (bob.status, bob["x-ratelimit-remaining"]) == (200, "2")
    # Four calls were let in, so the address has six left.
    others = [(await ask(app, headers=[("x-user", f"user{n}")])).status for n in range(7)]
    assert others == [200] * 6 + [429]


async def test_the_order_of_two_dependencies_makes_no_difference(store: MemoryStore) -> None:
    strict, wide = RateLimit("1/hour", name="strict"), RateLimit("3/hour", name="wide")
    first, second = app_behind(store, None, strict, wide), app_behind(store, None, wide, strict)
    assert await statuses(first, 5) == [200, 429, 429, 429, 429]
    assert await statuses(second, 5) == [429] * 5
    assert await statuses(app_behind(store, None, wide), 3) == [200, 200, 429]


async def test_the_headers_of_the_429_are_those_of_the_limit_that_refused(store: MemoryStore) -> None:
    app = app_behind(store, "100/60s", RateLimit("1/hour", name="strict"), headers="both")
    await ask(app)
    refused = await ask(app)
    assert refused["x-ratelimit-limit"] == "1"
    assert refused["ratelimit-policy"] == '"strict";q=1;w=3600'
    assert refused["retry-after"] == "3600"


async def test_an_inner_middleware_that_refuses_gives_back_the_outer_ones_charge(store: MemoryStore) -> None:
    inner = door(store, "1/60s", name="inner")
    app = door(store, "3/60s", app=inner, name="outer")
    assert await statuses(app, 9) == [200] + [429] * 8
    refused = await ask(app)
    assert refused["x-ratelimit-limit"] == "1"
    assert await statuses(door(store, "3/60s", name="outer"), 3) == [200, 200, 429]


class DownStore(MemoryStore):
    """A store that is out of order, and fails closed."""

    def open(self, name: str, policies: Any) -> Any:
        return DownBuckets()


class DownBuckets:
    def decide(self, *args: object) -> Any:
        raise StoreUnavailable("out of order")


async def test_a_503_of_an_inner_limit_is_charged_by_none(store: MemoryStore) -> None:
    app = app_behind(store, "2/60s", RateLimit("1/hour", store=DownStore()))
    assert await statuses(app, 5) == [503] * 5
    assert await statuses(app, 3, "/free") == [200, 200, 429]


async def test_shadow_mode_refuses_nothing_and_so_gives_nothing_back(store: MemoryStore) -> None:
    app = app_behind(store, "3/60s", RateLimit("1/hour", enforce=False))
    assert await statuses(app, 4) == [200, 200, 200, 429]


async def test_a_refusal_raised_by_the_endpoint_is_charged_by_none(store: MemoryStore) -> None:
    limiter = Limiter("1/hour", store=store, name="inside")

    async def endpoint(request: Request) -> Response:
        await limiter.acquire("all", timeout=0)
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/", endpoint), Route("/free", lambda request: PlainTextResponse("free"))])
    app.add_middleware(RateLimitMiddleware, limit="3/60s", store=store)
    assert await statuses(app, 9) == [200] + [429] * 8
    assert await statuses(app, 3, "/free") == [200, 200, 429]


async def test_in_redis_as_well(any_redis: Server) -> None:
    async with new_store(any_redis.url) as store:
        app = app_behind(store, "3/hour", RateLimit("1/hour", name="strict"))
        assert await statuses(app, 6) == [200] + [429] * 5
        assert await statuses(app, 3, "/free") == [200, 200, 429]
