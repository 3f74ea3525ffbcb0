"""A proxy forwards what it is given to Discord, and to Discord only; it hides its patience, and shows its troubles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordProxy
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import TOKEN, Seen, passing, settled

pytestmark = pytest.mark.anyio

LIMITS = {
    "X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "2.000",
    "X-RateLimit-Bucket": "abc", "Via": "1.1 google",
}  # fmt: skip
BOT = {"Authorization": f"Bot {TOKEN}"}
CALLBACK = "/api/v10/interactions/1/aW50ZXJhY3Rpb246MQ/callback"


def proxy_of(answer: Callable[[httpx.Request], Any], clock: ManualClock, **options: Any) -> DiscordProxy:
    inner = httpx.MockTransport(answer)
    return DiscordProxy(upstream="http://discord.example", store=MemoryStore(clock=clock), transport=inner, **options)


def client_of(proxy: DiscordProxy) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=proxy), base_url="http://proxy")


async def raw(proxy: DiscordProxy, path: str, raw_path: bytes, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
    """A request as a server passes it on, however odd."""
    sent: list[Any] = []
    incoming = asyncio.Queue[dict[str, Any]]()
    incoming.put_nowait({"type": "http.request", "body": b""})
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": raw_path, "query_string": b"", "headers": headers,
    }  # fmt: skip

    async def send(message: Any) -> None:
        sent.append(message)

    await proxy(scope, incoming.get, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


async def test_a_request_arrives_as_it_was_sent_with_its_own_token(clock: ManualClock) -> None:
    server = Seen(lambda request: httpx.Response(201, json={"id": "1"}, headers={"X-Own": "kept"}))
    async with client_of(proxy_of(server, clock)) as client:
        headers = BOT | {"X-Audit-Log-Reason": "spam", "User-Agent": "DiscordBot (x, 1)"}
        answer = await client.put("/api/v10/guilds/1/bans/2?x=%2F&y", json={"a": "ä"}, headers=headers)
    (request,) = server.requests
    assert str(request.url) == "http://discord.example/api/v10/guilds/1/bans/2?x=%2F&y"
    assert request.method == "PUT"
    assert json.loads(request.content) == {"a": "ä"}
    for name, value in headers.items():
        assert request.headers[name] == value
    assert request.headers["Host"] == "discord.example"
    assert (answer.status_code, answer.json(), answer.headers["X-Own"]) == (201, {"id": "1"}, "kept")


async def test_answers_carry_nothing_to_wait_for_but_their_bucket(clock: ManualClock) -> None:
    """Without one hikari makes one call of a kind at a time, and all others wait for that."""
    more = {"Retry-After": "2", "X-RateLimit-Scope": "user", "X-RateLimit-Global": "true"}
    server = Seen(lambda request: httpx.Response(200, json={}, headers=LIMITS | more))
    async with client_of(proxy_of(server, clock)) as client:
        answer = await client.get("/api/v10/channels/1", headers=BOT)
    reset = f"{clock.wall() + 0.001:.3f}"
    assert {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit")} == {
        "x-ratelimit-bucket": "abc", "x-ratelimit-limit": "6", "x-ratelimit-remaining": "5",
        "x-ratelimit-reset-after": "0.001", "x-ratelimit-reset": reset,
    }  # fmt: skip
    assert "Retry-After" not in answer.headers
    assert answer.headers["Via"] == "1.1 google"


@pytest.mark.parametrize("odd", [{"X-RateLimit-Limit": "many"}, {"X-RateLimit-Limit": "0"}, {"X-RateLimit-Bucket": ""}])
async def test_limits_that_cannot_be_read_are_not_passed_on(clock: ManualClock, odd: dict[str, str]) -> None:
    server = Seen(lambda request: httpx.Response(200, json={}, headers=LIMITS | odd))
    async with client_of(proxy_of(server, clock)) as client:
        answer = await client.get("/api/v10/channels/1", headers=BOT)
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


async def test_a_request_waits_for_its_limits_and_the_client_sees_no_429(clock: ManualClock) -> None:
    refusals = [httpx.Response(429, json={"retry_after": 2.0, "global": False}, headers=LIMITS)]
    server = Seen(lambda request: refusals.pop() if refusals else httpx.Response(200, json={}))
    async with client_of(proxy_of(server, clock)) as client:
        answer = await passing(clock, client.get("/api/v10/channels/1", headers=BOT))
    assert answer.status_code == 200
    assert len(server.requests) == 2


async def test_with_a_deadline_a_request_that_is_too_late_gets_a_429_at_once(clock: ManualClock) -> None:
    server = Seen(lambda request: httpx.Response(429, json={"retry_after": 20.0, "global": False}, headers=LIMITS))
    async with client_of(proxy_of(server, clock)) as client:
        answer = await client.get("/api/v10/channels/1", headers=BOT | {"X-Deadline": "2.5"})
    assert answer.status_code == 429
    assert answer.json() == {"message": "You are being rate limited.", "global": False, "retry_after": 20.001}
    assert (answer.headers["Retry-After"], answer.headers["Via"]) == ("21", "1.1 asgi-ratelimit")
    assert answer.headers["Content-Type"] == "application/json"
    assert "X-Deadline" not in server.requests[0].headers


async def test_a_callback_that_is_too_late_by_itself_gets_no_429(clock: ManualClock) -> None:
    server = Seen(lambda request: httpx.Response(429, json={"retry_after": 20.0, "global": True}, headers=LIMITS))
    async with client_of(proxy_of(server, clock)) as client:
        answer = await client.post(CALLBACK, json={"type": 5})
    assert answer.status_code == 504
    assert "would have to wait" in answer.json()["message"]


@pytest.mark.parametrize("deadline", ["0", "-1", "x", "inf", "nan"])
async def test_a_bad_deadline_is_named(clock: ManualClock, deadline: str) -> None:
    async with client_of(proxy_of(Seen(), clock)) as client:
        answer = await client.get("/api/v10/channels/1", headers={"X-Deadline": deadline})
    assert answer.status_code == 400
    assert f"X-Deadline must be seconds above 0, e.g. 2.5, not '{deadline}'" in answer.json()["message"]


@pytest.mark.parametrize(("deadline", "status"), [(None, 503), ("60", 429)])
async def test_a_call_that_discord_never_lets_pass_ends_without_its_429(
    clock: ManualClock, deadline: str | None, status: int
) -> None:
    server = Seen(lambda request: httpx.Response(429, json={"retry_after": 0, "global": False}, headers=LIMITS))
    async with client_of(proxy_of(server, clock)) as client:
        headers = BOT if deadline is None else BOT | {"X-Deadline": deadline}
        answer = await passing(clock, client.get("/api/v10/channels/1", headers=headers), step=0.1)
    assert answer.status_code == status
    assert int(answer.headers.get("Retry-After", 1)) >= 1, "nobody comes back at once"
    assert "X-RateLimit-Bucket" not in answer.headers
    assert len(server.requests) <= 10


async def test_it_may_be_mounted_below_a_path_of_another_app(clock: ManualClock) -> None:
    server = Seen()
    app = Starlette(routes=[Mount("/discord", proxy_of(server, clock))])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://app") as client:
        await client.get("/discord/api/v10/channels/1?limit=%2F", headers=BOT)
        health = await client.get("/discord/health")
    assert [str(request.url) for request in server.requests] == ["http://discord.example/api/v10/channels/1?limit=%2F"]
    assert health.json()["status"] == "ok"


# Nobody but the upstream


@pytest.mark.parametrize(
    ("path", "raw_path", "headers"),
    [
        ("//evil.example/x", b"//evil.example/x", []),
        ("/@evil.example/x", b"/@evil.example/x", []),
        ("/api/../../evil", b"/api/../../evil", []),
        ("/\\evil.example", b"/%5Cevil.example", []),
        ("/x", b"/x", [(b"host", b"evil.example")]),
        ("/x", b"/x", [(b"x-forwarded-host", b"evil.example")]),
    ],
)
async def test_every_request_goes_to_the_upstream(
    clock: ManualClock, path: str, raw_path: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    server = Seen()
    status, _ = await raw(proxy_of(server, clock), path, raw_path, headers)
    assert status == 200
    assert [(request.url.scheme, request.url.host) for request in server.requests] == [("http", "discord.example")]
    assert server.requests[0].headers["Host"] == "discord.example"


@pytest.mark.parametrize("target", [b"http://evil.example/x", b"evil.example:443", b"*"])
async def test_a_target_that_is_no_path_is_refused(clock: ManualClock, target: bytes) -> None:
    server = Seen()
    assert (await raw(proxy_of(server, clock), target.decode(), target, []))[0] == 400
    assert not server.requests


async def test_headers_of_one_connection_are_not_passed_on(clock: ManualClock) -> None:
    server = Seen(lambda request: httpx.Response(200, headers={"Connection": "X-Here", "X-Here": "1", "X-There": "2"}))
    headers = [(b"connection", b"x-mine, close"), (b"x-mine", b"1"), (b"te", b"trailers"), (b"x-other", b"2")]
    await raw(proxy_of(server, clock), "/x", b"/x", headers)
    assert {"x-mine", "te"}.isdisjoint(server.requests[0].headers)
    assert server.requests[0].headers["x-other"] == "2"
    async with client_of(proxy_of(server, clock)) as client:
        answer = await client.get("/x")
    assert "X-Here" not in answer.headers
    assert answer.headers["X-There"] == "2"


async def test_headers_after_the_body_are_none_of_the_requests(clock: ManualClock) -> None:
    """uvicorn adds them to the headers before the body, once they are there."""
    server, sent = Seen(), list[Any]()
    headers = [(b"transfer-encoding", b"chunked"), (b"authorization", b"Bot a")]

    async def receive() -> dict[str, Any]:
        if sent:
            await asyncio.Event().wait()
        headers.append((b"authorization", b"Bot evil"))
        return {"type": "http.request", "body": b"abc"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/x", "raw_path": b"/x", "query_string": b"", "headers": headers}
    await proxy_of(server, clock)(scope, receive, send)
    assert server.requests[0].headers.get_list("Authorization") == ["Bot a"]


@pytest.mark.parametrize(
    ("path", "sent"),
    [("/a b?c", b"/a%20b%3Fc"), ("/a\r\nX: 1", b"/a%0D%0AX:%201"), ("/a%2Fb", b"/a%252Fb"), ("/ä/@me", b"/%C3%A4/@me")],
)
async def test_a_path_that_the_server_has_decoded_is_encoded_again(clock: ManualClock, path: str, sent: bytes) -> None:
    server = Seen()
    await raw(proxy_of(server, clock), path, b"", [])
    assert server.requests[0].url.raw_path == sent


async def test_a_websocket_is_closed(clock: ManualClock) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await proxy_of(Seen(), clock)({"type": "websocket", "path": "/x", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_a_server_that_stops_answers_a_call_that_waits(clock: ManualClock) -> None:
    refusal = httpx.Response(429, json={"retry_after": 60.0, "global": False}, headers=LIMITS)
    proxy, sent = proxy_of(Seen(lambda request: refusal), clock), list[Any]()
    incoming = asyncio.Queue[dict[str, Any]]()
    incoming.put_nowait({"type": "http.request", "body": b""})
    scope = {"type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b"", "headers": []}

    async def send(message: Any) -> None:
        sent.append(message)

    call = asyncio.ensure_future(proxy(scope, incoming.get, send))
    await settled()
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    assert sent[0]["status"] == 503
    assert (b"connection", b"close") in sent[0]["headers"]
    assert proxy.health["waiting"] == []


async def test_a_proxy_that_is_closed_says_so(clock: ManualClock) -> None:
    server = Seen(lambda request: httpx.Response(429, json={"retry_after": 60.0, "global": False}, headers=LIMITS))
    proxy = proxy_of(server, clock)
    async with client_of(proxy) as client:
        call = asyncio.ensure_future(client.get("/api/v10/channels/1", headers=BOT))
        await settled()
        await proxy.aclose()
        answers = [await call, await client.get("/api/v10/channels/1", headers=BOT)]
    assert [answer.status_code for answer in answers] == [503, 503]


# Troubles


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (httpx.ConnectError("x"), 502),
        (httpx.LocalProtocolError("x"), 400),
        (httpx.ReadTimeout("x"), 504),
        (ConnectionResetError(), 502),
    ],
)
async def test_a_discord_that_does_not_answer_is_told(clock: ManualClock, error: Exception, status: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    async with client_of(proxy_of(answer, clock)) as client:
        reply = await passing(clock, client.post("/api/v10/channels/1/threads", json={}), step=0.1)
    assert reply.status_code == status
    assert ("Discord" in reply.json()["message"]) == (status != 400)


async def test_a_dead_token_and_a_dead_webhook_are_answered_as_discord_does(clock: ManualClock) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        is_webhook = "/webhooks/" in request.url.path
        return httpx.Response(404, json={"code": 10015}) if is_webhook else httpx.Response(401, json={})

    server = Seen(answer)
    async with client_of(proxy_of(server, clock)) as client:
        tokens = [await client.get("/api/v10/users/@me", headers=BOT) for _ in range(5)]
        hooks = [await client.post("/api/v10/webhooks/1/a-token", json={}) for _ in range(5)]
    assert {each.status_code for each in tokens} == {401}
    assert {(each.status_code, each.json()["code"]) for each in hooks} == {(404, 10015)}
    assert len(server.requests) == 3


async def test_a_body_that_is_too_large_is_refused(clock: ManualClock) -> None:
    server = Seen()
    async with client_of(proxy_of(server, clock, max_body=1_000)) as client:
        assert (await client.post("/x", content=b"x" * 1_000)).status_code == 200
        assert (await client.post("/x", content=b"x" * 1_001)).status_code == 413
    assert len(server.requests) == 1


async def test_a_client_that_leaves_ends_its_call(clock: ManualClock) -> None:
    refusal = httpx.Response(429, json={"retry_after": 60.0, "global": False}, headers=LIMITS)
    proxy = proxy_of(Seen(lambda request: refusal), clock)
    incoming = asyncio.Queue[dict[str, Any]]()
    incoming.put_nowait({"type": "http.request", "body": b""})
    scope = {"type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b"", "headers": []}

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there")

    call = asyncio.ensure_future(proxy(scope, incoming.get, send))
    await settled()
    async with client_of(proxy) as client:
        assert sum(each["calls"] for each in (await client.get("/health")).json()["waiting"]) == 1
        incoming.put_nowait({"type": "http.disconnect"})
        await call
        health = (await client.get("/health")).json()
    assert health["waiting"] == []
    assert health["counts"] == {"requests": 1, "limited": 1, "wait": 1, "left": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"upstream": "discord.com"}, 'upstream must be an address without a path, e.g. "https://discord.com"'),
        ({"upstream": "https://discord.com/api"}, "upstream must be"),
        ({"upstream": "https://me:secret@discord.com"}, "upstream must be"),
        ({"max_body": 0}, "max_body must be bytes from 1"),
        ({"max_memory": 1.5}, "max_memory must be bytes from 1"),
        ({"global_limit": 0}, "global_limit must be"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DiscordProxy(**options)
