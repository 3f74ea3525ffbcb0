"""Bulk work on Discord with `pace`: over discord.py with the ready-made limits, over a DiscordClient with none."""

from __future__ import annotations

import asyncio
import itertools
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from asgi_ratelimit import pace
from asgi_ratelimit.discord import BULK_DELETE, DELETE, EDITS, MESSAGES, REACTIONS, DiscordClient
from asgi_ratelimit.limits import Limit, SlidingWindow
from asgi_ratelimit.rate import Rate
from asgi_ratelimit.testing import FakeBucket, FakeDiscord
from asgi_ratelimit.testing.fake_discord.buckets import Window
from tests.real_clients.bots import discord_py_led_to
from tests.real_clients.discord_api import PREFIX, served
from tests.support.discord_runs import undisturbed

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "'audioop' is deprecated", DeprecationWarning)
    import discord

pytestmark = pytest.mark.anyio

SECONDS = 20.0
SEND = "POST /channels/{channel_id}/messages"
REMOVE = "DELETE /channels/{channel_id}/messages/{message_id}"
BULK = "POST /channels/{channel_id}/messages/bulk-delete"
REACT = "PUT /channels/{channel_id}/messages/{message_id}/reactions/{emoji}/@me"

CHANNELS = (1001, 1002, 1003, 1004)
LETTERS = [(channel, f"{channel}: message {number}") for number in range(10) for channel in CHANNELS]
EMOJI = ("👍", "👎", "❤️", "🎉", "🚀")
OLD = [discord.Object(number) for number in range(5000, 5150)]
FIVE_TIMES = 5  # as fast as Discord


def sooner(limit: Limit) -> SlidingWindow:
    """The same limit, where everything goes that much faster."""
    return SlidingWindow(Rate(limit.rate.count, limit.rate.period_us // FIVE_TIMES))


def channel_of(letter: tuple[int, str]) -> str:
    return f"channel:{letter[0]}"


@asynccontextmanager
async def discord_py(fake: FakeDiscord) -> AsyncIterator[discord.Client]:
    """A logged-in discord.Client on this fake."""
    with served(fake) as address, discord_py_led_to(address):
        async with asyncio.timeout(SECONDS), discord.Client(intents=discord.Intents.none()) as client:
            await client.login("test")
            yield client


@asynccontextmanager
async def our_client(fake: FakeDiscord) -> AsyncIterator[DiscordClient]:
    with served(fake) as address:
        async with asyncio.timeout(SECONDS), DiscordClient("test", base_url=f"{address}{PREFIX}") as client:
            yield client


async def failures(outcomes: AsyncIterator[Any]) -> list[BaseException]:
    return [outcome.error async for outcome in outcomes if not outcome.ok]


def assert_all_arrived_once(fake: FakeDiscord) -> None:
    arrived = Counter((int(message["channel_id"]), message["content"]) for message in fake.messages)
    assert arrived == Counter(LETTERS)


def messages(window: Window) -> FakeDiscord:
    return FakeDiscord({SEND: FakeBucket("5/1s", window=window)}, token="test")


async def backfill(client: discord.Client, limit: Limit | None) -> list[BaseException]:
    async def send(letter: tuple[int, str]) -> discord.Message:
        channel, text = letter
        return await client.get_partial_messageable(channel).send(text)

    return await failures(pace(LETTERS, send, limit=limit, key=channel_of, concurrency=len(LETTERS)))


@pytest.mark.parametrize("window", ["sliding", "fixed"])
@undisturbed
async def test_a_backfill_over_discord_py_draws_no_429_and_loses_nothing(window: Window) -> None:
    fake = messages(window)
    async with discord_py(fake) as client:
        assert await backfill(client, sooner(MESSAGES)) == []
    assert_all_arrived_once(fake)
    assert fake.refused == []


async def test_the_same_backfill_without_a_limit_is_refused_again_and_again() -> None:
    fake = messages("sliding")
    async with discord_py(fake) as client:
        await backfill(client, None)
    assert len(fake.refused) >= len(CHANNELS)


@pytest.mark.parametrize("window", ["sliding", "fixed"])
async def test_a_backfill_over_our_client_needs_no_limit_of_its_own(window: Window) -> None:
    fake = messages(window)
    async with our_client(fake) as client:

        async def send(letter: tuple[int, str]) -> httpx.Response:
            channel, text = letter
            return (await client.post(f"/channels/{channel}/messages", json={"content": text})).raise_for_status()

        assert await failures(pace(LETTERS, send, limit=None, concurrency=10)) == []
    assert_all_arrived_once(fake)
    assert fake.refused == []


@undisturbed
async def test_one_at_a_time_keeps_the_order_and_a_message_that_cannot_be_sent_is_an_outcome() -> None:
    fake = messages("fixed")
    texts = [str(number) for number in range(7)]
    async with discord_py(fake) as client:
        channel = client.get_partial_messageable(CHANNELS[0])
        fake.fail(403, route=SEND)
        failed = await failures(pace(texts, channel.send, limit=sooner(MESSAGES)))
    assert [type(error) for error in failed] == [discord.Forbidden]
    assert [message["content"] for message in fake.messages] == texts[1:]
    assert fake.refused == []


def misleading() -> FakeDiscord:
    """Its reactions report a generous bucket and obey another, as Discord's have: its issues 182 and 2886."""
    limits = [FakeBucket("200/270s"), FakeBucket("1/250ms", hidden=True)]
    return FakeDiscord({REACT: limits}, token="test")


async def react(client: discord.Client, limit: Limit | None) -> list[BaseException]:
    message = client.get_partial_messageable(CHANNELS[0]).get_partial_message(5000)
    return await failures(pace(EMOJI, message.add_reaction, limit=limit, concurrency=2))


@undisturbed
async def test_reactions_over_discord_py_draw_no_429() -> None:
    fake = misleading()
    async with discord_py(fake) as client:
        assert await react(client, REACTIONS) == []
    assert fake.refused == []
    assert [seen.status for seen in fake.requests if seen.route == REACT] == [204] * len(EMOJI)


async def test_reactions_without_a_limit_are_refused() -> None:
    fake = misleading()
    async with discord_py(fake) as client:
        await react(client, None)
    assert fake.refused


async def test_reactions_over_our_client_need_no_limit() -> None:
    fake = FakeDiscord({REACT: FakeBucket("1/250ms")}, token="test")
    async with our_client(fake) as client:

        async def react(emoji: str) -> httpx.Response:
            address = f"/channels/1001/messages/5000/reactions/{emoji}/@me"
            return (await client.put(address)).raise_for_status()

        assert await failures(pace(EMOJI, react, limit=None, concurrency=10)) == []
    assert fake.refused == []
    assert fake.count(204) == len(EMOJI)


def strict() -> FakeDiscord:
    return FakeDiscord({BULK: FakeBucket("1/1s", hidden=True), REMOVE: FakeBucket("5/1s", hidden=True)}, token="test")


def batches() -> Iterator[list[discord.Object]]:
    messages = iter(OLD)
    while batch := list(itertools.islice(messages, 100)):
        yield batch


@undisturbed
async def test_bulk_deletes_over_discord_py_draw_no_429() -> None:
    fake = strict()
    async with discord_py(fake) as client:
        channel = text_channel(client)
        assert await failures(pace(batches(), channel.delete_messages, limit=BULK_DELETE, concurrency=2)) == []
    assert deleted_in_bulk(fake) == [str(message.id) for message in OLD]
    assert fake.refused == []


@undisturbed
async def test_deletes_one_by_one_over_discord_py_draw_no_429() -> None:
    fake = strict()
    async with discord_py(fake) as client:
        channel = client.get_partial_messageable(CHANNELS[0])
        some = [channel.get_partial_message(message.id) for message in OLD[:7]]
        assert await failures(pace(some, lambda message: message.delete(), limit=DELETE, concurrency=5)) == []
    assert fake.refused == []
    assert {seen.path for seen in fake.requests if seen.route == REMOVE} == {
        f"/channels/1001/messages/{message.id}" for message in some
    }


async def test_bulk_deletes_over_our_client_need_no_limit() -> None:
    fake = FakeDiscord({BULK: FakeBucket("1/1s")}, token="test")
    async with our_client(fake) as client:

        async def delete(batch: list[discord.Object]) -> httpx.Response:
            address = "/channels/1001/messages/bulk-delete"
            return (await client.post(address, json={"messages": [str(each.id) for each in batch]})).raise_for_status()

        assert await failures(pace(batches(), delete, limit=None, concurrency=10)) == []
    assert sorted(deleted_in_bulk(fake)) == [str(message.id) for message in OLD]
    assert fake.refused == []


def text_channel(client: discord.Client) -> discord.TextChannel:
    """One as the gateway would report it."""
    guild: Any = discord.Object(1)
    payload: Any = {"id": "1001", "type": 0, "name": "general", "position": 0, "permission_overwrites": []}
    return discord.TextChannel(state=client._connection, guild=guild, data=payload)


def deleted_in_bulk(fake: FakeDiscord) -> list[str]:
    """The ids, in the order in which they were deleted."""
    done = [seen for seen in fake.requests if seen.route == BULK and seen.status < 300]
    return [str(number) for seen in done for number in seen.json["messages"]]


def test_the_limits_are_below_the_measured_figures() -> None:
    assert EDITS.rate == MESSAGES.rate
    known = {MESSAGES: (5, 5_000_000), REACTIONS: (1, 250_000), DELETE: (5, 1_000_000), BULK_DELETE: (1, 1_000_000)}
    for limit, (count, period_us) in known.items():
        assert limit.rate.count == count
        assert limit.rate.period_us >= period_us + 100_000
