"""A limit of zero at the middleware and the dependency, and limit functions that return nonsense."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any, Literal

import pytest
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_ratelimit import FixedWindow, MemoryStore, RateLimitMiddleware, SlidingWindow, TokenBucket
from asgi_ratelimit.fastapi import RateLimit
from tests.inbound.conftest import Said
from tests.support.asgi import ask, hello, statuses

pytestmark = pytest.mark.anyio

DISCORD_PY = [("user-agent", "DiscordBot (https://example.com, 2.0)")]


def middleware(store: MemoryStore, limit: Any, **options: Any) -> Any:
    return RateLimitMiddleware(hello, limit=limit, store=store, **options)


def dependency(store: MemoryStore, limit: Any, **options: Any) -> Any:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(RateLimit(limit, store=store, **options))])
    def endpoint() -> str:
        return "hello"

    return app


BOTH = pytest.mark.parametrize("door", [middleware, dependency])
ZEROS = ["0/day", TokenBucket("0/day"), FixedWindow("0/day"), SlidingWindow("0/day"), ["5/s", "0/day"]]


@BOTH
@pytest.mark.parametrize("limit", ZEROS, ids=str)
@pytest.mark.parametrize("in_code", [True, False], ids=["in code", "from a function"])
async def test_a_limit_of_zero_refuses_everybody_for_its_period(
    store: MemoryStore, door: Any, limit: Any, in_code: bool
) -> None:
    app = door(store, limit if in_code else lambda conn: limit)
    for _ in range(2):
        refused = await ask(app)
        assert refused.status == 429
        assert refused["retry-after"] == "86400"
        assert (refused["x-ratelimit-limit"], refused["x-ratelimit-remaining"]) == ("0", "0")
        assert refused["x-ratelimit-reset-after"] == "86400.000"
        assert refused.json == {"message": "You are being rate limited.", "retry_after": 86400.0, "global": False}
    assert len(store) == 0


@BOTH
async def test_a_cost_beyond_all_floats_is_refused_by_a_limit_of_zero(store: MemoryStore, door: Any) -> None:
    refused = await ask(door(store, ["0/day", "5/s"], cost=lambda conn: 10**400))
    assert refused.status == 429


@BOTH
@pytest.mark.parametrize("value", [0, False, 0.0], ids=repr)
@pytest.mark.parametrize("is_async", [True, False])
async def test_zero_and_false_from_a_function_mean_the_same(
    store: MemoryStore, said: Said, door: Any, value: Any, is_async: bool
) -> None:
    async def later(conn: object) -> Any:
        return value

    refused = await ask(door(store, later if is_async else lambda conn: value))
    assert (refused.status, refused["retry-after"]) == (429, "86400")
    assert said() == []


@BOTH
@pytest.mark.parametrize(
    "garbage",
    ["", "5", "lots", "-5/day", 5, -1, True, 1.5, b"5/s", {}, [], [None], [0], object(), math.nan],
    ids=lambda value: "object" if type(value) is object else repr(value),
)
async def test_a_function_that_returns_no_limit_refuses_and_is_noticed(
    store: MemoryStore, said: Said, door: Any, garbage: Any
) -> None:
    app = door(store, lambda conn: garbage, cost=10)
    assert await statuses(app, 3) == [429, 429, 429]
    assert said() == ["ARL202"]


async def test_nonsense_about_one_user_grants_him_nothing_and_takes_nothing_from_others(store: MemoryStore) -> None:
    app = middleware(store, lambda conn: conn.headers["x-limit"], key=lambda conn: "ada")
    assert await statuses(app, 1, headers=[("x-limit", "2/day")]) == [200]
    with pytest.warns(UserWarning, match="ARL202"):
        assert await statuses(app, 5, headers=[("x-limit", "x")]) == [429] * 5
    assert await statuses(app, 3, headers=[("x-limit", "4/day")]) == [200, 200, 429]  # half of it is used


@BOTH
async def test_shadow_mode_counts_it_and_refuses_nobody(store: MemoryStore, door: Any) -> None:
    assert await statuses(door(store, "0/day", enforce=False), 2) == [200, 200]


@BOTH
async def test_no_request_is_held_for_it(store: MemoryStore, door: Any) -> None:
    assert await statuses(door(store, "0/s", max_wait=2.0), 2) == [429, 429]


@BOTH
async def test_a_client_of_discord_gets_the_same_wait_each_time(store: MemoryStore, door: Any) -> None:
    app = door(store, "0/minute")
    assert [(await ask(app, headers=DISCORD_PY))["retry-after"] for _ in range(3)] == ["60"] * 3


@BOTH
@pytest.mark.parametrize("cost", [7, lambda conn: 7])
async def test_any_cost_is_refused(store: MemoryStore, said: Said, door: Any, cost: Any) -> None:
    assert await statuses(door(store, "0/day", cost=cost), 1) == [429]
    assert said() == []


async def test_a_global_limit_of_zero_closes_the_app(store: MemoryStore) -> None:
    refused = await ask(middleware(store, TokenBucket("0/hour", scope="global")))
    assert refused["x-ratelimit-global"] == "true"
    assert refused.json["global"] is True


def test_a_socket_that_may_send_nothing_is_closed_at_its_first_frame(store: MemoryStore) -> None:
    app = FastAPI()

    @app.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        with suppress(WebSocketDisconnect):
            await websocket.send_text(await websocket.receive_text())

    limited = RateLimitMiddleware(app, limit=None, messages="0/s", store=store)
    with TestClient(limited).websocket_connect("/ws") as socket:
        socket.send_text("hello")
        assert socket.receive()["code"] == 4008


async def test_a_suspended_user_keeps_no_other_from_the_route(store: MemoryStore) -> None:
    app = FastAPI()

    def limit_of(conn: HTTPConnection) -> str | Literal[False]:
        return "2/s" if conn.headers["x-user"] != "mallory" else False

    search = RateLimit(limit_of, key=lambda conn: conn.headers["x-user"], store=store)

    @app.get("/", dependencies=[Depends(search)])
    def endpoint() -> str:
        return "hello"

    assert await statuses(app, 2, headers=[("x-user", "mallory")]) == [429, 429]
    assert await statuses(app, 3, headers=[("x-user", "ada")]) == [200, 200, 429]
