"""Ends of a request that settle its charge in spite of a cancellation, and answers that cannot be printed."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from asgi_ratelimit import Limiter, MemoryStore, RateLimitMiddleware, Served
from tests.support.asgi import http

pytestmark = pytest.mark.anyio


async def receive() -> Message:
    return {"type": "http.request"}


async def ignore(message: Message) -> None:
    """Drop it."""


@pytest.mark.parametrize("ending", ["wait_for", "a scope of anyio"])
async def test_a_request_that_is_cancelled_while_its_rule_waits_is_settled(ending: str) -> None:
    going_on = asyncio.Event()

    async def slow(served: Served) -> int:
        await going_on.wait()
        return 1

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("done")(scope, receive, send)

    store = MemoryStore()
    limited = RateLimitMiddleware(app, limit="100/day", cost=10, settle=slow, store=store, key=lambda conn: "k")
    asyncio.get_running_loop().call_later(0.05, going_on.set)
    if ending == "wait_for":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(limited(http(), receive, ignore), 0.01)
    else:
        with anyio.move_on_after(0.01):
            await limited(http(), receive, ignore)
    assert (await Limiter("100/day", store=store, name="app").peek("k")).remaining == 99


async def test_a_group_of_cancellations_settles_too() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise BaseExceptionGroup("tasks", [asyncio.CancelledError()])

    store = MemoryStore()
    limited = RateLimitMiddleware(
        app, limit="100/day", cost=10, settle=lambda served: 1, store=store, key=lambda c: "k"
    )
    with pytest.raises(BaseExceptionGroup):
        await limited(http(), receive, ignore)
    assert (await Limiter("100/day", store=store, name="app").peek("k")).remaining == 99


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("a lazy object without its database")


@pytest.mark.filterwarnings("ignore::asgi_ratelimit.RateLimitWarning")
@pytest.mark.parametrize("option", ["limit", "key", "cost", "settle"])
@pytest.mark.parametrize("value", [Unprintable(), -(10**5000)], ids=["no repr", "too long"])
async def test_a_value_that_cannot_be_printed_is_no_error(option: str, value: object) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("done")(scope, receive, send)

    options: dict[str, Any] = {"limit": "5/day", option: lambda argument: value}
    sent: list[Message] = []

    async def keep(message: Message) -> None:
        sent.append(message)

    await RateLimitMiddleware(app, store=MemoryStore(), **options)(http(), receive, keep)
    assert sent[0]["status"] in (200, 429)
