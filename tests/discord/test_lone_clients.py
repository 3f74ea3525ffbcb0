"""A new client for each message knows nothing of the calls before: that is warned about."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator

import httpx
import pytest

from asgi_ratelimit import MemoryStore, RateLimitWarning
from asgi_ratelimit.discord import DiscordClient, DiscordTransport, SyncDiscordClient
from asgi_ratelimit.discord import transport as module
from asgi_ratelimit.discord.lone_clients import LoneClients
from tests.support.fake_discord_servers import UNUSED_TLS
from tests.support.raw_discord import Answer, RawDiscord, raw_discord

pytestmark = pytest.mark.anyio

SEND = "/channels/1/messages"


@pytest.fixture(autouse=True)
def caught(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[warnings.WarningMessage]]:
    monkeypatch.setattr(module, "LONE_CLIENTS", LoneClients())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def codes(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(one.message)[:6] for one in caught if issubclass(one.category, RateLimitWarning)]


async def post_with_a_new_client(server: RawDiscord, token: str, store: MemoryStore | None = None) -> None:
    async with DiscordClient(token, base_url=server.url, store=store, verify=UNUSED_TLS) as discord:
        await discord.post(SEND, json={"content": "hello"})


async def test_a_new_client_for_each_message_is_warned_about_once(caught: list[warnings.WarningMessage]) -> None:
    async with raw_discord(lambda request: Answer()) as server:
        for _ in range(3):
            await post_with_a_new_client(server, "abc")
        assert codes(caught) == []
        for _ in range(5):
            await post_with_a_new_client(server, "abc")
    assert len(server.received) == 8
    assert codes(caught) == ["ARL301"]
    assert "abc" not in str(caught[-1].message)


async def test_new_clients_for_threads_are_warned_about_too(caught: list[warnings.WarningMessage]) -> None:
    async with raw_discord(lambda request: Answer()) as server:

        def post() -> None:
            with SyncDiscordClient("abc", base_url=server.url, verify=UNUSED_TLS) as discord:
                discord.post(SEND, json={})

        for _ in range(4):
            await asyncio.to_thread(post)
    assert codes(caught) == ["ARL301"]


async def test_many_calls_of_one_client_are_not_warned_about(caught: list[warnings.WarningMessage]) -> None:
    async with raw_discord(lambda request: Answer()) as server, DiscordClient("abc", base_url=server.url) as discord:
        for _ in range(8):
            await discord.post(SEND, json={})
    assert codes(caught) == []


async def test_clients_that_share_a_store_are_not_warned_about(caught: list[warnings.WarningMessage]) -> None:
    store = MemoryStore()
    async with raw_discord(lambda request: Answer()) as server:
        for _ in range(8):
            await post_with_a_new_client(server, "abc", store)
    assert codes(caught) == []


async def test_a_client_for_each_of_many_tokens_is_not_warned_about(caught: list[warnings.WarningMessage]) -> None:
    async with raw_discord(lambda request: Answer()) as server:
        for number in range(120):
            await post_with_a_new_client(server, f"token{number}")
    assert codes(caught) == []


async def test_clients_of_tests_are_not_warned_about(caught: list[warnings.WarningMessage]) -> None:
    for _ in range(8):
        mock = httpx.MockTransport(lambda request: httpx.Response(200, json={}))
        async with DiscordClient("abc", transport=mock) as discord:
            await discord.get("/users/@me")
    assert codes(caught) == []


async def test_a_new_transport_for_each_message_is_warned_about(caught: list[warnings.WarningMessage]) -> None:
    async with raw_discord(lambda request: Answer()) as server:
        for _ in range(4):
            transport = DiscordTransport(origins=[server.url])
            async with httpx.AsyncClient(transport=transport, headers={"Authorization": "Bot abc"}) as plain:
                await plain.post(f"{server.url}{SEND}", json={})
    assert codes(caught) == ["ARL301"]
