"""A proxy passes odd answers on so that every client can read them, and every server can send them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from asgi_ratelimit.discord import DiscordProxy
from asgi_ratelimit.testing import ManualClock
from tests.discord.test_proxy import proxy_of

pytestmark = pytest.mark.anyio


class Pieces(httpx.AsyncByteStream):
    """An answer's body in pieces; then the connection is lost, perhaps."""

    def __init__(self, *pieces: bytes, is_cut: bool = False) -> None:
        self._pieces, self._is_cut = pieces, is_cut

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._is_cut:
            raise httpx.RemoteProtocolError("cut")


async def answer_to(proxy: DiscordProxy, version: str = "1.1") -> list[Any]:
    """The messages of an answer."""
    sent: list[Any] = []
    incoming = asyncio.Queue[dict[str, Any]]()
    incoming.put_nowait({"type": "http.request", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b"", "headers": []}
    await proxy(scope | {"http_version": version}, incoming.get, send)
    return sent


async def test_an_answer_is_passed_on_piece_by_piece(clock: ManualClock) -> None:
    proxy = proxy_of(lambda request: httpx.Response(200, stream=Pieces(b"one", b"two")), clock)
    assert [message.get("body") for message in (await answer_to(proxy))[1:]] == [b"one", b"two", b""]


async def test_an_old_client_gets_the_length_of_an_answer_instead_of_pieces(clock: ManualClock) -> None:
    proxy = proxy_of(lambda request: httpx.Response(200, stream=Pieces(b"one", b"two")), clock)
    start, *rest = await answer_to(proxy, "1.0")
    assert (b"content-length", b"6") in start["headers"]
    assert b"".join(message["body"] for message in rest) == b"onetwo"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_has_no_length(clock: ManualClock, status: int) -> None:
    """A server would wait for a body of that length, and fail."""
    proxy = proxy_of(lambda request: httpx.Response(status, headers={"Content-Length": "44", "ETag": "x"}), clock)
    assert (await answer_to(proxy))[0]["headers"] == [(b"etag", b"x")]


async def test_an_answer_that_is_cut_ends_there_and_is_counted(clock: ManualClock) -> None:
    proxy = proxy_of(lambda request: httpx.Response(200, stream=Pieces(b"one", is_cut=True)), clock)
    assert [message.get("more_body", False) for message in (await answer_to(proxy))[1:]] == [True], "it has no end"
    assert proxy.counts == {"requests": 1, "2xx": 1, "cut": 1}


async def test_an_old_client_gets_no_part_of_it(clock: ManualClock) -> None:
    proxy = proxy_of(lambda request: httpx.Response(200, stream=Pieces(b"one", is_cut=True)), clock)
    assert (await answer_to(proxy, "1.0"))[0]["status"] == 502
