"""A request leaves no reference cycle, so that none of its objects waits for the garbage collector.

A server's `send` refers to the scope, as uvicorn's does. Were the scope to refer to `send`, each request would cost a
part of a collection, which no measurement of a single call shows.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest
from fastapi import Depends, FastAPI
from starlette.types import ASGIApp, Message, Scope

from asgi_ratelimit import MemoryStore, RateLimitMiddleware
from asgi_ratelimit.fastapi import RateLimit
from tests.support.asgi import hello, http

pytestmark = pytest.mark.anyio


class Cycle:
    """A request and its response, as a server holds them."""

    def __init__(self) -> None:
        self.scope: Scope = http()
        self.status = 0

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        self.status = message.get("status", self.status)


def by_middleware() -> ASGIApp:
    return RateLimitMiddleware(hello, limit="1/day", store=MemoryStore())


def by_dependency() -> ASGIApp:
    app = FastAPI()
    app.get("/", dependencies=[Depends(RateLimit("1/day"))])(lambda: "hello")
    return app


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("make", [by_middleware, by_dependency])
async def test_a_request_is_freed_as_soon_as_it_is_answered(make: Callable[[], ASGIApp], no_collector: None) -> None:
    app = make()
    for status in (200, 429, 429):
        cycle = Cycle()
        await app(cycle.scope, cycle.receive, cycle.send)
        assert cycle.status == status
        is_alive = weakref.ref(cycle)
        del cycle
        assert is_alive() is None
