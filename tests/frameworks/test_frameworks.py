"""Litestar, Quart, Django and BlackSheep behind the middleware, in process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
import quart
from litestar import Litestar
from litestar.middleware import DefineMiddleware
from starlette.types import ASGIApp

from asgi_ratelimit import MemoryStore, RateLimitMiddleware
from asgi_ratelimit.testing import ManualClock
from tests.frameworks.apps import LITESTAR_ROUTES, Events, blacksheep_app, django_app, litestar_app, quart_app
from tests.frameworks.event_store import EventStore
from tests.support.asgi import Exchange, ask, body, http

pytestmark = pytest.mark.anyio

Build = Callable[[Events], ASGIApp]
WITH_LIFESPAN: list[Build] = [litestar_app, quart_app, blacksheep_app]
ALL: list[Build] = [*WITH_LIFESPAN, django_app]
HOST = [("host", "example.org")]


@asynccontextmanager
async def alive(app: ASGIApp) -> AsyncIterator[None]:
    """The app between its start and its end, as a server sees them."""
    life = Exchange(app, {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, {"type": "lifespan.startup"})
    await life.settled()
    assert life.types == ["lifespan.startup.complete"]
    yield
    life.feed({"type": "lifespan.shutdown"})
    await life.answer()
    assert life.types[1:] == ["lifespan.shutdown.complete"]


async def assert_five_pass_and_the_sixth_is_refused(app: ASGIApp) -> None:
    for left in "43210":
        answer = await ask(app, headers=HOST)
        assert (answer.status, answer.body, answer["x-ratelimit-remaining"]) == (200, b"hello", left)
    refused = await ask(app, headers=HOST)
    assert refused.status == 429
    assert refused.json == {"message": "You are being rate limited.", "retry_after": 1.0, "global": False}
    assert refused["content-type"] == "application/json"
    assert refused["via"] == "1.1 asgi_ratelimit"
    assert refused["retry-after"] == "1"
    assert refused["x-ratelimit-limit"] == "5"
    assert refused["x-ratelimit-remaining"] == "0"
    assert refused["x-ratelimit-reset"] == "1700000005.000"
    assert refused["x-ratelimit-reset-after"] == "5.000"
    assert refused["x-ratelimit-scope"] == "user"
    assert len(refused["x-ratelimit-bucket"]) == 32


@pytest.mark.parametrize("build", WITH_LIFESPAN)
async def test_five_pass_and_the_sixth_is_refused(build: Build, store: MemoryStore) -> None:
    app = RateLimitMiddleware(build([]), limit="5/5s", store=store)
    async with alive(app):
        await assert_five_pass_and_the_sixth_is_refused(app)


async def test_five_pass_and_the_sixth_is_refused_by_django(store: MemoryStore) -> None:
    await assert_five_pass_and_the_sixth_is_refused(RateLimitMiddleware(django_app([]), limit="5/5s", store=store))


@pytest.mark.parametrize("build", WITH_LIFESPAN)
async def test_the_store_starts_before_the_app_and_is_closed_after_it(build: Build, clock: ManualClock) -> None:
    events: Events = []
    app = RateLimitMiddleware(build(events), limit="5/5s", store=EventStore(clock, events))
    async with alive(app):
        assert events == ["store started", "started"]
    assert events[2:] == ["stopped", "store closed"]


@pytest.mark.parametrize("build", ALL)
async def test_a_body_arrives_while_the_middleware_may_hold_requests(build: Build, store: MemoryStore) -> None:
    app = RateLimitMiddleware(build([]), limit="5/5s", store=store, max_wait=1.0)
    async with alive(app) if build in WITH_LIFESPAN else nullcontext():
        headers = [*HOST, ("content-type", "text/plain"), ("content-length", "6")]
        scope = http("/echo", method="POST", headers=headers)
        answer = await Exchange(app, scope, *body(b"abc", b"def")).answer()
    assert (answer.status, answer.body) == (200, b"abcdef")


@pytest.mark.parametrize("build", ALL)
async def test_missing_pages_are_counted_too(build: Build, store: MemoryStore) -> None:
    app = RateLimitMiddleware(build([]), limit="2/5s", store=store)
    async with alive(app) if build in WITH_LIFESPAN else nullcontext():
        assert [(await ask(app, "/missing", headers=HOST)).status for _ in range(3)] == [404, 404, 429]


async def test_litestar_builds_one_middleware_per_route_and_they_share_their_buckets(store: MemoryStore) -> None:
    for given in (store, None):
        middleware = DefineMiddleware(RateLimitMiddleware, limit="5/hour", store=given)  # type: ignore[arg-type]
        app: Any = Litestar(LITESTAR_ROUTES, middleware=[middleware], logging_config=None)
        async with alive(app):
            assert [(await ask(app, headers=HOST)).status for _ in range(3)] == [200] * 3
            echoes = [await ask(app, "/echo", method="POST", headers=HOST) for _ in range(3)]
            assert [echo.status for echo in echoes] == [200, 200, 429]


async def test_quart_takes_the_middleware_in_its_own_way(store: MemoryStore) -> None:
    asgi: Any = quart_app([])
    app: quart.Quart = asgi
    app.asgi_app = RateLimitMiddleware(app.asgi_app, limit="5/5s", store=store)  # type: ignore[method-assign, assignment]
    client = app.test_client()
    assert [(await client.get("/")).status_code for _ in range(6)] == [200] * 5 + [429]
