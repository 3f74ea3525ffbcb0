"""WebSockets: a handshake is counted and refused like a request, and too many frames close the socket with 4008."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from asgi_ratelimit import Decision, FixedWindow, MemoryStore, RateLimitMiddleware
from asgi_ratelimit.testing import ManualClock
from tests.support.asgi import (
    CONNECT,
    DENIAL,
    LEFT,
    Exchange,
    ask,
    frame,
    handshake,
    hello,
    settle,
    statuses,
    websocket,
)

pytestmark = pytest.mark.anyio

CLOSED: dict[str, Any] = {"type": "websocket.close", "code": 4008, "reason": "rate limited"}


def door(store: MemoryStore, limit: Any = "2/60s", *, app: Any = hello, **options: Any) -> RateLimitMiddleware:
    return RateLimitMiddleware(app, limit=limit, store=store, **options)


def frames_only(store: MemoryStore, messages: Any = "3/60s", **options: Any) -> RateLimitMiddleware:
    return door(store, None, messages=messages, **options)


# The handshake


async def test_a_handshake_is_counted_with_the_requests(store: MemoryStore) -> None:
    app = door(store)
    assert (await handshake(app, **DENIAL)).sent[0]["type"] == "websocket.accept"
    assert await statuses(app, 2) == [200, 429]
    assert (await handshake(app, **DENIAL)).status == 429


async def test_an_accepted_handshake_carries_the_headers(store: MemoryStore) -> None:
    accepted = await handshake(door(store, headers="both"))
    assert accepted["x-ratelimit-remaining"] == "1"
    assert accepted["ratelimit-policy"] == '"app";q=2;w=60'
    assert "retry-after" not in accepted


async def test_a_handshake_is_refused_with_a_429_where_the_server_can_send_one(store: MemoryStore) -> None:
    app = door(store, "1/60s")
    await ask(app)
    refusal = await handshake(app, **DENIAL)
    assert [message["type"] for message in refusal.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert refusal.status == 429
    assert refusal.json == {"message": "You are being rate limited.", "retry_after": 60.0, "global": False}
    assert (refusal["retry-after"], refusal["x-ratelimit-scope"], refusal["via"]) == (
        "60",
        "user",
        "1.1 asgi_ratelimit",
    )


@pytest.mark.parametrize("server", [{}, {"extensions": None}, {"extensions": {"tls": {}}}], ids=str)
async def test_a_handshake_is_closed_where_the_server_cannot_send_a_response(
    store: MemoryStore, server: dict[str, Any]
) -> None:
    app = door(store, "1/60s")
    await ask(app)
    assert (await handshake(app, **server)).sent == [CLOSED]


async def test_a_refused_handshake_does_not_reach_the_app(store: MemoryStore) -> None:
    reached = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["type"])
        await hello(scope, receive, send)

    limited = door(store, "1/60s", app=app)
    for _ in range(5):
        await handshake(limited)
    assert reached == ["websocket"]


def slow_down(conn: HTTPConnection, decision: Decision) -> Response:
    return PlainTextResponse("slow down", 503)


async def test_on_limited_answers_a_handshake_where_the_server_can_send_its_response(store: MemoryStore) -> None:
    app = door(store, "1/60s", on_limited=slow_down)
    await ask(app)
    refusal = await handshake(app, **DENIAL)
    assert (refusal.status, refusal.body, refusal["retry-after"]) == (503, b"slow down", "60")


async def test_on_limiteds_response_is_not_sent_to_a_server_that_cannot_send_it(store: MemoryStore) -> None:
    app = door(store, "1/60s", on_limited=slow_down)
    await ask(app)
    assert (await handshake(app)).sent == [CLOSED]


async def test_a_refused_handshake_is_not_refused_in_shadow_mode(store: MemoryStore) -> None:
    app = door(store, "1/60s", enforce=False)
    await ask(app)
    assert (await handshake(app)).sent[0]["type"] == "websocket.accept"


async def test_an_exempt_handshake_is_not_counted(store: MemoryStore) -> None:
    app = door(store, "1/60s", exempt=["/ws"])
    for _ in range(3):
        assert (await handshake(app)).sent == [{"type": "websocket.accept"}]
    assert len(store) == 0


async def test_a_refund_sees_an_accepted_handshake_as_101(store: MemoryStore) -> None:
    asked = []

    def succeeded(status: int) -> bool:
        asked.append(status)
        return status == 101

    app = door(store, "1/60s", refund=succeeded)
    for _ in range(3):
        assert (await handshake(app)).sent[0]["type"] == "websocket.accept"
    assert asked == [101] * 3


# Its frames


async def test_frames_within_the_limit_pass_untouched(store: MemoryStore) -> None:
    socket = Exchange(frames_only(store), websocket(), CONNECT, frame("a"), frame("b"), frame("c"))
    await settle()
    assert [message.get("text") for message in socket.sent] == [None, "a", "b", "c"]
    socket.feed(LEFT)
    await socket.answer()


async def test_one_frame_too_many_closes_the_socket_with_4008(store: MemoryStore) -> None:
    socket = Exchange(frames_only(store), websocket(), CONNECT, *(frame(text) for text in "abcd"))
    await socket.answer()
    assert [message.get("text") for message in socket.sent[:-1]] == [None, "a", "b", "c"]
    assert socket.sent[-1] == CLOSED


async def test_the_app_sees_a_disconnect_as_often_as_it_asks_and_can_send_no_more(store: MemoryStore) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.extend([await receive(), await receive(), await receive(), await receive()])
        await send({"type": "websocket.send", "text": "too late"})
        await send({"type": "websocket.close", "code": 1000})

    socket = Exchange(frames_only(store, "1/60s", app=app), websocket(), CONNECT, *(frame(text) for text in "abcd"))
    await socket.answer()
    disconnect = {"type": "websocket.disconnect", "code": 4008, "reason": "rate limited"}
    assert seen == [frame("a"), disconnect, disconnect, disconnect]
    assert socket.types == ["websocket.accept", "websocket.close"]


async def test_the_frames_of_a_socket_refill_with_time(store: MemoryStore, clock: ManualClock) -> None:
    socket = Exchange(frames_only(store, "2/2s"), websocket(), CONNECT, frame("a"), frame("b"))
    await settle()
    clock.advance(1)
    socket.feed(frame("c"))
    await settle()
    assert [message.get("text") for message in socket.sent] == [None, "a", "b", "c"]
    clock.advance(0.999999)
    socket.feed(frame("d"))
    await socket.answer()
    assert socket.sent[-1] == CLOSED


async def test_every_socket_has_frames_of_its_own(store: MemoryStore) -> None:
    app = frames_only(store, "2/60s")
    for _ in range(2):
        socket = Exchange(app, websocket(), CONNECT, frame("a"), frame("b"), LEFT)
        await socket.answer()
        assert socket.types == ["websocket.accept", "websocket.send", "websocket.send"]
    assert len(store) == 0


async def test_several_limits_on_frames_are_all_kept(store: MemoryStore, clock: ManualClock) -> None:
    app = frames_only(store, ["2/s", FixedWindow("3/60s")])
    socket = Exchange(app, websocket(), CONNECT, frame("a"), frame("b"))
    await settle()
    clock.advance(1)
    socket.feed(frame("c"))
    await settle()
    assert socket.types[-1] == "websocket.send"
    clock.advance(1)
    socket.feed(frame("d"))
    await socket.answer()
    assert socket.sent[-1] == CLOSED


async def test_requests_have_no_frames(store: MemoryStore) -> None:
    assert await statuses(frames_only(store, "1/60s"), 3) == [200, 200, 200]


async def test_a_frame_limit_says_nothing_in_headers(store: MemoryStore) -> None:
    assert not (await handshake(frames_only(store))).about_limits


async def test_handshakes_and_frames_are_limited_together(store: MemoryStore) -> None:
    app = door(store, "1/60s", messages="1/60s")
    socket = Exchange(app, websocket(), CONNECT, frame("a"), frame("b"))
    await socket.answer()
    assert socket.sent[-1] == CLOSED
    assert (await handshake(app, **DENIAL)).status == 429


async def test_shadow_mode_closes_no_socket(store: MemoryStore) -> None:
    app = frames_only(store, "1/60s", enforce=False)
    socket = Exchange(app, websocket(), CONNECT, frame("a"), frame("b"), LEFT)
    await socket.answer()
    assert socket.types == ["websocket.accept", "websocket.send", "websocket.send"]
