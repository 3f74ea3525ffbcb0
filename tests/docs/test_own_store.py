"""The store of the architecture page passes the contract, limits an app and serves a Discord client."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from asgi_ratelimit import RateLimitMiddleware
from asgi_ratelimit.discord import DiscordClient
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.testing import FakeDiscord, ManualClock, StoreContract
from tests.docs.markdown import DOCS, blocks
from tests.docs.running import run

BLOCK = next(block for block in blocks(DOCS / "architecture.md") if "class DictStore" in block.source)
SHOWN: Any = SimpleNamespace(**run(BLOCK))


def test_it_is_short_and_uses_public_names_only() -> None:
    lines = [line for line in BLOCK.source.splitlines() if line]
    assert len(lines) < 80
    assert [line for line in lines if "asgi_ratelimit" in line] == [
        "from asgi_ratelimit import Clock, Decision, Limit, Policy, Settlement, bucket_key"
    ]


@pytest.mark.anyio
class TestDictStore(StoreContract):
    def make_store(self, clock: ManualClock) -> Any:
        return SHOWN.DictStore(clock)


def test_it_limits_an_app_through_middleware_and_dependency(clock: ManualClock) -> None:
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, limit="5/5s", store=SHOWN.DictStore(clock))

    @app.get("/search", dependencies=[Depends(RateLimit("2/5s"))])
    def search() -> str:
        return "found"

    with TestClient(app) as client:
        assert [client.get("/search").status_code for _ in range(3)] == [200, 200, 429]
        assert [client.get("/").status_code for _ in range(4)] == [404, 404, 404, 429]
        clock.advance(5)
        assert client.get("/search").status_code == 200


@pytest.mark.anyio
async def test_it_serves_a_discord_client() -> None:
    fake = FakeDiscord({"POST /channels/{channel_id}/messages": "5/250ms"}, token="test")
    store = SHOWN.DictStore(fake.clock)
    async with DiscordClient("test", transport=httpx.ASGITransport(app=fake), store=store) as discord:
        for _ in range(7):
            response = await discord.post("/channels/1/messages", json={"content": "hello"})
            assert response.status_code == 200
    assert fake.count(429) == 0
