"""The hot paths stay short: a count of function entries, which unlike a timing is the same on every machine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

import asgi_ratelimit
from asgi_ratelimit import Limiter, MemoryStore, RateLimitMiddleware
from asgi_ratelimit.discord import DiscordClient
from tests.support.servers import Server
from tests.support.stores import new_store

pytestmark = pytest.mark.anyio

PACKAGE = str(Path(asgi_ratelimit.__file__).parent)


@contextmanager
def entries() -> Iterator[list[str]]:
    """The functions of the package that are entered or resumed within a block."""
    names: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            names.append(frame.f_code.co_qualname)

    former = sys.getprofile()
    sys.setprofile(note)
    try:
        yield names
    finally:
        sys.setprofile(former)


async def steady(operation: Callable[[], Awaitable[object]]) -> list[str]:
    """The entries of one operation, once everything has been made that is made only once.

    The fewest of three: on a busy machine a timer may come due within one of them.
    """
    for _ in range(300):
        await operation()
    gc.collect()  # the stores of earlier tests are not collected within the operation
    runs: list[list[str]] = []
    for _ in range(3):
        with entries() as names:
            await operation()
        runs.append(names)
    return min(runs, key=len)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hi"})


@pytest.mark.parametrize(("options", "most"), [({}, 14), ({"settle": lambda served: 1}, 37)], ids=["", "settled"])
async def test_a_pass_of_the_middleware(options: dict[str, Any], most: int) -> None:
    middleware = RateLimitMiddleware(app, limit="1000000/s", store=MemoryStore(), **options)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None: ...

    async def request() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("10.0.0.1", 1)}
        await middleware(scope, receive, send)

    names = await steady(request)
    assert len(names) <= most, names


async def test_a_check_in_redis(any_redis: Server) -> None:
    async with new_store(any_redis.url) as store:
        limiter = Limiter("1000000/s", store=store)
        names = await steady(lambda: limiter.try_acquire("a"))
    assert len(names) <= 38, names


async def test_a_call_to_discord() -> None:
    limits = {
        "x-ratelimit-limit": "1000",
        "x-ratelimit-remaining": "999",
        "x-ratelimit-reset-after": "1.0",
        "x-ratelimit-bucket": "abc",
    }
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={}, headers=limits))
    async with DiscordClient("token", global_limit=1_000_000, transport=transport) as client:
        names = await steady(lambda: client.get("/channels/1/messages"))
    assert len(names) <= 105, names
