"""Streams at a time: the app of the page, with streams that go on until they may end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from httpx import ASGITransport, AsyncClient
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from asgi_ratelimit import Concurrency, Limiter, Store
from asgi_ratelimit.testing import ManualClock
from tests.docs.how_to.conftest import RunPage

pytestmark = pytest.mark.anyio


@pytest.fixture
def page(run_page: RunPage) -> dict[str, Any]:
    return run_page("streams")


class Opened:
    """Streams of the page."""

    def __init__(self, page: dict[str, Any]) -> None:
        self.count, self._may_end = 0, asyncio.Event()
        page["prices"] = self._prices
        transport = ASGITransport(page["app"], client=("192.0.2.1", 1))
        self.client = AsyncClient(transport=transport, base_url="http://app")

    async def _prices(self) -> AsyncIterator[str]:
        self.count += 1
        yield "data: 1\n\n"
        await self._may_end.wait()

    async def open(self, count: int) -> list[asyncio.Task[Any]]:
        tasks = [asyncio.create_task(self.client.get("/prices")) for _ in range(count)]
        with anyio.fail_after(10):
            while self.count < count:
                await asyncio.sleep(0)
        return tasks

    def end(self) -> None:
        self._may_end.set()


async def test_each_address_has_two_streams_at_a_time(page: dict[str, Any]) -> None:
    opened = Opened(page)
    tasks = await opened.open(2)
    refused = await opened.client.get("/prices")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    opened.end()
    assert [(await task).status_code for task in tasks] == [200, 200]
    assert [(await opened.client.get("/prices")).status_code for _ in range(5)] == [200] * 5
    await opened.client.aclose()


async def test_a_busy_app_answers_503_and_its_health(page: dict[str, Any], clock: ManualClock) -> None:
    assert page["everything"] == Concurrency(200, scope="global", status=503)
    opened = Opened(page)
    whole = Limiter(page["everything"], store=store_of(page), name="app")
    held = [await whole.try_acquire("any") for _ in range(200)]
    waiting = asyncio.create_task(opened.client.get("/prices"))
    await asyncio.sleep(0)
    assert (await opened.client.get("/health")).text == '"ok"'
    for _ in range(20):
        clock.advance(0.2)
        await asyncio.sleep(0)
    refused = await waiting
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    waiting = asyncio.create_task(opened.client.get("/prices"))
    await asyncio.sleep(0)
    opened.end()
    await whole.release(held[0])
    assert (await waiting).status_code == 200
    await opened.client.aclose()


def store_of(page: dict[str, Any]) -> Store:
    """The store of the app."""
    store: Store = page["app"].user_middleware[0].kwargs["store"]
    return store


def test_a_websocket_counts_among_the_streams(page: dict[str, Any]) -> None:
    client = TestClient(page["app"])
    for _ in range(3):
        with client.websocket_connect("/prices") as one, client.websocket_connect("/prices") as other:
            with pytest.raises(WebSocketDisconnect), client.websocket_connect("/prices"):
                pass
            assert one.receive_text() == other.receive_text() == "data: 0\n\n"
