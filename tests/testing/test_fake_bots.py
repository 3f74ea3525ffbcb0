"""Real bot libraries log in to a FakeDiscord over REST, send messages, and wait as its limits require."""

from __future__ import annotations

import asyncio
import warnings

import hikari
import pytest

from asgi_ratelimit.testing import FakeBucket, FakeDiscord
from tests.real_clients.bots import discord_py_led_to
from tests.real_clients.discord_api import PREFIX, served
from tests.support.fake_discord import MESSAGES, SECONDS

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "'audioop' is deprecated", DeprecationWarning)
    import discord

pytestmark = pytest.mark.anyio

TEXTS = [f"message {number}" for number in range(5)]


@pytest.fixture
def fake() -> FakeDiscord:
    return FakeDiscord({MESSAGES: FakeBucket("2/400ms", window="fixed")}, token="test")


async def test_discord_py_logs_in_and_sends_every_message_once(fake: FakeDiscord) -> None:
    with served(fake) as address, discord_py_led_to(address):
        async with asyncio.timeout(SECONDS), discord.Client(intents=discord.Intents.none()) as client:
            await client.login("test")
            channel = client.get_partial_messageable(1001)
            sent = await asyncio.gather(*(channel.send(text) for text in TEXTS))
            await sent[0].add_reaction("👍")
            await sent[0].edit(content="edited")
            await sent[0].delete()
            webhook = discord.Webhook.partial(5, "t" * 60, client=client)
            await webhook.send("by webhook")
    assert [message.content for message in sent] == TEXTS
    assert sorted(message["content"] for message in fake.messages) == ["by webhook", *TEXTS]
    assert {seen.route for seen in fake.requests} >= {"GET /users/@me", MESSAGES}
    assert fake.count(404) == 0


async def test_discord_py_finds_out_that_its_token_is_wrong(fake: FakeDiscord) -> None:
    with served(fake) as address, discord_py_led_to(address):
        async with discord.Client(intents=discord.Intents.none()) as client:
            with pytest.raises(discord.LoginFailure):
                await client.login("wrong")


async def test_hikari_logs_in_and_sends_every_message_once(fake: FakeDiscord) -> None:
    with served(fake) as address:
        app = hikari.RESTApp(url=f"{address}{PREFIX}")
        await app.start()
        try:
            async with asyncio.timeout(SECONDS), app.acquire("test", "Bot") as client:
                assert (await client.fetch_my_user()).is_bot
                assert (await client.fetch_application()).name == "bot"
                sent = await asyncio.gather(*(client.create_message(1001, text) for text in TEXTS))
                await client.add_reaction(1001, sent[0], "👍")
        finally:
            await app.close()
    assert [message.content for message in sent] == TEXTS
    assert sorted(message["content"] for message in fake.messages) == TEXTS
