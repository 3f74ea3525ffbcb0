"""An endpoint that limits itself may tell the middleware outside it, which then leaves POSTs to that path alone."""

from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from asgi_ratelimit import MemoryStore, RateLimitMiddleware
from asgi_ratelimit.inbound.request_state import LEDGER
from tests.support.asgi import ask

pytestmark = pytest.mark.anyio


async def limits_itself(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/own":
        scope[LEDGER].leave_alone()
    await PlainTextResponse("in")(scope, receive, send)


@pytest.fixture
def door(store: MemoryStore) -> RateLimitMiddleware:
    return RateLimitMiddleware(limits_itself, limit="2/60s", store=store)


async def statuses(door: RateLimitMiddleware, path: str, *, method: str = "POST", times: int = 3) -> list[int]:
    return [(await ask(door, path, method=method)).status for _ in range(times)]


async def test_it_is_neither_counted_nor_refused_nor_given_headers(door: RateLimitMiddleware) -> None:
    answers = [await ask(door, "/own", method="POST") for _ in range(9)]
    assert [(answer.status, answer.about_limits) for answer in answers] == [(200, set())] * 9
    assert await statuses(door, "/") == [200, 200, 429]
    assert await statuses(door, "/own", times=1) == [200]


async def test_other_paths_and_methods_are_counted_as_before(door: RateLimitMiddleware) -> None:
    await statuses(door, "/own", times=1)
    await statuses(door, "/", times=2)
    assert await statuses(door, "/own/", times=1) == [429]
    assert await statuses(door, "/own", method="PUT", times=1) == [429]


async def test_one_that_says_nothing_is_counted(door: RateLimitMiddleware) -> None:
    assert await statuses(door, "/other") == [200, 200, 429]
