"""The body of an interaction: read after a look at the headers, and bounded in size, time and number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.interactions import body
from asgi_ratelimit.testing import ManualClock
from tests.interactions.endpoints import BUILDS, REACHED, beside_a_body_parameter, limited, with_limit
from tests.support.signing import URL, Discord, now, signature_of

pytestmark = pytest.mark.anyio

FORGED = [(b"x-signature-ed25519", b"ab" * 64), (b"x-signature-timestamp", b"1700000000")]  # well-formed
BUILDS_THAT_READ_NO_BODY = [build for build in BUILDS if build is not beside_a_body_parameter]


@pytest.fixture
def small(store: MemoryStore, clock: ManualClock) -> Discord:
    return with_limit(store, clock, max_body=1000)


@pytest.fixture
def app(store: MemoryStore) -> ASGIApp:
    return limited(store, max_body=1000).wrap(JSONResponse(REACHED))


async def asked(app: ASGIApp, receive: Any, headers: Any, **more: Any) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": URL, "query_string": b"", "headers": headers, **more}
    await app(scope, receive, send)
    return sent


async def unread() -> Any:
    raise AssertionError("the body was read")


class Unfinished:
    """A client that sends a part of its body, and no more."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()

    async def receive(self) -> Message:
        if self.has_begun.is_set():
            await asyncio.Event().wait()
        self.has_begun.set()
        return {"type": "http.request", "body": b"{", "more_body": True}


# Before it is read


@pytest.mark.parametrize("build", BUILDS_THAT_READ_NO_BODY, ids=lambda build: build.__name__)
@pytest.mark.parametrize(
    "headers", [[], FORGED[:1], FORGED[1:], FORGED * 2, [(b"x-signature-ed25519", b"?"), FORGED[1]]], ids=range(5)
)
async def test_nothing_is_read_of_a_body_without_the_headers_of_a_signature(
    store: MemoryStore, build: Callable[..., ASGIApp], headers: Any
) -> None:
    path = f"{URL}/" if "mounted" in build.__name__ else URL
    sent = await asked(build(limited(store)), unread, headers, path=path)
    assert sent[0]["status"] == 401
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_a_request_of_http_2_gets_no_header_that_it_may_not_have(app: ASGIApp) -> None:
    sent = await asked(app, unread, [], http_version="2")
    assert (b"connection", b"close") not in sent[0]["headers"]


async def test_nothing_is_read_of_a_body_that_is_announced_as_too_large(app: ASGIApp) -> None:
    sent = await asked(app, unread, [*FORGED, (b"content-length", b"1001")])
    assert sent[0]["status"] == 413


# Its size


async def test_a_body_that_is_too_large_is_413_before_its_signature_is_verified(small: Discord) -> None:
    assert (await small.post(b" " * 1001, forged=True)).status_code == 413
    assert (await small.post(b" " * 1000, forged=True)).status_code == 401


@pytest.mark.parametrize("announced", [[], [(b"content-length", b"5")], [(b"content-length", b"\xb2")]])
async def test_no_more_is_read_than_may_be(app: ASGIApp, announced: Any) -> None:
    chunks = iter([b"x" * 600] * 2)

    async def receive() -> Any:
        return {"type": "http.request", "body": next(chunks), "more_body": True}

    sent = await asked(app, receive, FORGED + announced)
    assert sent[0]["status"] == 413


async def test_a_client_that_leaves_in_the_middle_is_no_error(app: ASGIApp) -> None:
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    assert (await asked(app, receive, FORGED))[0]["status"] == 400


# Its time, and the number of unfinished ones


async def test_a_body_that_takes_too_long_is_408(app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "MOST_SECONDS", 0.05)
    sent = await asked(app, Unfinished().receive, FORGED)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_the_oldest_unfinished_body_makes_room_for_a_new_one(
    app: ASGIApp, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "MOST_UNFINISHED", 3)
    monkeypatch.setattr(body, "MOST_SECONDS", 60.0)
    clients = [Unfinished() for _ in range(5)]
    requests = []
    for client in clients:
        requests.append(asyncio.create_task(asked(app, client.receive, FORGED)))
        await client.has_begun.wait()
    assert [(await request)[0]["status"] for request in requests[:2]] == [408, 408]
    assert not any(request.done() for request in requests[2:])
    whole = b'{"type": 2}'
    headers = [(name.lower().encode(), value.encode()) for name, value in signature_of(whole, now(clock)).items()]

    async def receive() -> Message:
        return {"type": "http.request", "body": whole}

    assert (await asked(app, receive, headers))[0]["status"] == 200
    for request in requests[2:]:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)


async def test_a_body_that_was_cancelled_takes_no_place(app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "MOST_UNFINISHED", 1)
    monkeypatch.setattr(body, "MOST_SECONDS", 60.0)
    for _ in range(3):
        client = Unfinished()
        request = asyncio.create_task(asked(app, client.receive, FORGED))
        await client.has_begun.wait()
        request.cancel()
        assert isinstance((await asyncio.gather(request, return_exceptions=True))[0], asyncio.CancelledError)
