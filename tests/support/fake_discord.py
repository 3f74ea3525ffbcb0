"""Clients of a FakeDiscord: an httpx client that sends each request once, and obeys no limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx

from asgi_ratelimit.testing import FakeDiscord

MESSAGES = "POST /channels/{channel_id}/messages"
SEND = "/channels/1001/messages"
SECONDS = 10.0


def client_of(fake: FakeDiscord, token: str | None = "test", address: str = "127.0.0.1") -> httpx.AsyncClient:
    """A client that talks to the fake without a network."""
    transport = httpx.ASGITransport(app=fake, client=(address, 123))
    headers = {} if token is None else {"Authorization": f"Bot {token}"}
    return httpx.AsyncClient(transport=transport, base_url="http://fake/api/v10", headers=headers)


async def until(condition: Callable[[], object]) -> None:
    """Let others run until it holds; TimeoutError if it never does."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0)


def limits(response: httpx.Response) -> dict[str, str]:
    """The rate limit headers of a response, without the prefix."""
    headers = {n.removeprefix("x-ratelimit-"): v for n, v in response.headers.items() if n.startswith("x-ratelimit-")}
    return headers | ({"retry-after": after} if (after := response.headers.get("retry-after")) else {})
