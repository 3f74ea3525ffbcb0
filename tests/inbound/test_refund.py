"""`refund=`: which charges are given back, and what the response reports then."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from starlette.types import Receive, Scope, Send

from asgi_ratelimit import MemoryStore, RateLimitMiddleware
from tests.inbound.test_middleware import Trouble, door
from tests.support.asgi import ask, handshake, respond, settle, statuses
from tests.support.servers import Server
from tests.support.stores import new_store

pytestmark = pytest.mark.anyio


def login(store: MemoryStore, limit: str = "2/60s", **options: Any) -> RateLimitMiddleware:
    """An app that knows one password; only failures are counted."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/crash":
            raise Trouble
        await respond(send, 200 if scope["path"] == "/right" else 401)

    return door(store, limit, app=app, refund=lambda status: status < 400, **options)


async def test_only_failed_logins_count(store: MemoryStore) -> None:
    app = login(store)
    assert await statuses(app, 9, "/right") == [200] * 9
    assert await statuses(app, 3, "/wrong") == [401, 401, 429]
    assert await statuses(app, 1, "/right") == [429]


async def test_an_app_that_raises_is_a_500_to_refund(store: MemoryStore) -> None:
    asked = []

    def gave(status: int) -> bool:
        asked.append(status)
        return status == 500

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise Trouble

    limited = door(store, "1/60s", app=app, refund=gave)
    for _ in range(4):
        with pytest.raises(Trouble):
            await ask(limited)
    assert asked == [500] * 4


async def test_an_app_that_raises_is_counted_unless_500_is_given_back(store: MemoryStore) -> None:
    app = login(store, "1/60s")
    with pytest.raises(Trouble):
        await ask(app, "/crash")
    assert await statuses(app, 1, "/right") == [429]


async def test_an_app_that_raises_in_midstream_has_had_its_answer(store: MemoryStore) -> None:
    asked = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise Trouble

    limited = door(store, app=app, refund=lambda status: asked.append(status) or True)  # type: ignore[func-returns-value]
    with pytest.raises(Trouble):
        await ask(limited)
    assert asked == [200]


async def test_what_was_refused_is_not_given_back(store: MemoryStore) -> None:
    app = door(store, "1/60s", refund=lambda status: status == 429)
    assert await statuses(app, 5) == [200] + [429] * 4


async def test_what_shadow_mode_let_pass_uncharged_is_not_given_back(store: MemoryStore) -> None:
    app = login(store, "1/60s", enforce=False)
    assert await statuses(app, 3, "/wrong") == [401] * 3
    assert await statuses(app, 3, "/right") == [200] * 3
    assert await statuses(login(store, "1/60s"), 1, "/right") == [429]


async def test_a_cancelled_request_is_a_504_to_refund(store: MemoryStore) -> None:
    seen: list[int] = []

    def server_errors(status: int) -> bool:
        seen.append(status)
        return status >= 500

    app = door(store, "2/60s", app=_stuck, refund=server_errors)
    for _ in range(5):
        request = asyncio.create_task(ask(app))
        await settle()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    assert seen == [504] * 5
    assert await statuses(door(store, "2/60s"), 3) == [200, 200, 429]


async def test_a_request_that_a_cancel_scope_ends_is_given_back_in_redis(any_redis: Server) -> None:
    async with new_store(any_redis.url) as store:
        app = door(store, "2/hour", app=_stuck, refund=lambda status: status == 504)  # type: ignore[arg-type]
        for _ in range(3):
            with anyio.CancelScope() as scope:
                asyncio.get_running_loop().call_later(0.05, scope.cancel)
                await ask(app)
            assert scope.cancelled_caught
        assert await statuses(door(store, "2/hour"), 3) == [200, 200, 429]  # type: ignore[arg-type]


async def test_a_response_reports_its_bucket_without_a_charge_that_was_given_back(store: MemoryStore) -> None:
    app = door(store, ["5/60s", "100/day"], refund=lambda status: status == 200, headers="both")
    for _ in range(3):
        answer = await ask(app)
        assert (answer["x-ratelimit-remaining"], answer["x-ratelimit-reset-after"]) == ("5", "0.000")
        assert answer["ratelimit"] == '"app 5/minute";r=5, "app 100/day";r=100'


async def test_what_other_requests_used_is_still_reported(store: MemoryStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200 if scope["path"] == "/right" else 401)

    limited = door(store, "5/60s", app=app, refund=lambda status: status == 200)
    assert [(await ask(limited, path))["x-ratelimit-remaining"] for path in ("/wrong", "/right", "/right")] == ["4"] * 3


async def test_a_handshake_that_is_closed_is_a_403_to_refund(store: MemoryStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 1008})

    limited = door(store, "1/60s", app=app, refund=lambda status: status == 403)
    for _ in range(3):
        assert (await handshake(limited)).sent[0]["type"] == "websocket.close"


async def test_every_middleware_decides_about_its_own_charge(store: MemoryStore) -> None:
    inner = door(store, "9/60s", name="inner", refund=lambda status: status == 200)
    app = door(store, "9/60s", app=inner, name="outer", headers="ietf")
    for left in (8, 7):
        assert (await ask(app))["ratelimit"] == f'"outer";r={left};t=7, "inner";r=9'


async def _stuck(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.get_running_loop().create_future()


async def test_the_rule_may_be_async(store: MemoryStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200 if scope["path"] == "/right" else 401)

    async def succeeded(status: int) -> bool:
        await asyncio.sleep(0)
        return status < 400

    limited = door(store, "2/60s", app=app, refund=succeeded)
    assert await statuses(limited, 5, "/right") == [200] * 5
    assert await statuses(limited, 3, "/wrong") == [401, 401, 429]
