"""A DiscordClient over httpx-aiohttp: what may have arrived is not sent twice, though it is reported as unsent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from httpx_aiohttp import AiohttpTransport

from asgi_ratelimit.discord import DiscordClient
from tests.support.raw_discord import Answer, Lost, Outcome, raw_discord

pytestmark = pytest.mark.anyio

SECONDS = 20.0


async def test_a_creation_whose_answer_is_lost_is_made_once() -> None:
    async with (
        asyncio.timeout(SECONDS),
        raw_discord(lambda _: Lost()) as discord,
        DiscordClient("token", base_url=discord.url, transport=AiohttpTransport(), max_retries=3) as client,
    ):
        with pytest.raises(httpx.ReadError, match="disconnected"):
            await client.post("/guilds/1/channels", json={"name": "new"})
    assert len(discord.received) == 1


async def test_a_message_with_a_nonce_is_sent_again() -> None:
    outcomes: Iterator[Outcome] = iter([Lost(), Answer()])
    async with (
        asyncio.timeout(SECONDS),
        raw_discord(lambda _: next(outcomes)) as discord,
        DiscordClient("token", base_url=discord.url, transport=AiohttpTransport()) as client,
    ):
        answer = await client.post("/channels/1/messages", json={"content": "new"})
    assert answer.status_code == 200
    first, second = [each.json["nonce"] for each in discord.received]
    assert first == second


async def test_a_connection_that_is_refused_has_sent_nothing() -> None:
    async with raw_discord(lambda _: Answer()) as discord:
        address = discord.url
    tries: list[str] = []
    async with DiscordClient(
        "token",
        base_url=address,
        transport=AiohttpTransport(),
        max_retries=2,
        on_event=lambda event: tries.append(event.kind),
    ) as client:
        with pytest.raises(httpx.TransportError, match="Cannot connect"):
            await client.post("/guilds/1/channels", json={"name": "new"})
    assert tries.count("retry") == 2
