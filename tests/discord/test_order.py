"""Calls of one channel arrive in their order, whatever happens to one of them."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any

import httpx
import pytest

from asgi_ratelimit.discord import DiscordClient, DiscordRateLimited
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import TOKEN, all_of, bot_of, passing, settled, taken

pytestmark = pytest.mark.anyio

REFUSAL = {"retry_after": 0.3, "global": False}


class Moody:
    """Refuses some calls and fails at others, each at its first attempt, and takes its time."""

    def __init__(self, clock: ManualClock, seed: int) -> None:
        self._clock, self._random = clock, Random(seed)
        self._tried: set[str] = set()
        self.arrived: dict[str, list[int]] = {}

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await self._clock.sleep(self._random.uniform(0, 0.1))
        channel, number = request.url.path.split("/")[4], json.loads(request.content)["content"]
        name, mood = f"{channel} {number}", self._random.random()
        if name not in self._tried and mood < 0.4:
            self._tried.add(name)
            headers = {"Via": "1.1 google"}
            return httpx.Response(429, json=REFUSAL, headers=headers) if mood < 0.2 else httpx.Response(503)
        self.arrived.setdefault(channel, []).append(int(number))
        return httpx.Response(200, json={"id": "1"})


async def send(discord: DiscordClient, channel: int, number: int, **options: Any) -> httpx.Response:
    return await discord.post(f"/channels/{channel}/messages", json={"content": str(number)}, **options)


@pytest.mark.parametrize("seed", range(3))
async def test_posts_to_one_channel_arrive_in_their_order(clock: ManualClock, seed: int) -> None:
    server = Moody(clock, seed)
    async with bot_of(server, clock, ordered=True) as discord:
        calls = [send(discord, number % 3, number) for number in range(30)]
        await passing(clock, all_of(calls))
    assert all(numbers == sorted(numbers) for numbers in server.arrived.values())
    assert sum(map(len, server.arrived.values())) == 30


async def test_one_by_one_calls_may_ask_for_it(clock: ManualClock) -> None:
    server = Moody(clock, 1)
    async with bot_of(server, clock) as discord:
        await passing(clock, all_of(send(discord, 1, n, extensions={"ordered": True}) for n in range(20)))
        assert server.arrived["1"] == [*range(20)]
        await passing(clock, all_of(send(discord, 2, n) for n in range(20)))
        assert server.arrived["2"] != [*range(20)], "else this shows nothing"


async def test_a_call_that_is_cancelled_or_fails_lets_the_next_one_go(clock: ManualClock) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        if b'"1"' in request.content:
            await asyncio.Event().wait()
        if b'"2"' in request.content:
            raise httpx.ConnectError("x")
        arrived.append(request.content)
        return httpx.Response(200, json={})

    arrived: list[bytes] = []
    async with bot_of(answer, clock, ordered=True, max_retries=0) as discord:
        calls = [asyncio.ensure_future(send(discord, 1, number)) for number in range(5)]
        await settled()
        assert len(arrived) == 1
        calls[3].cancel()
        calls[1].cancel()
        results = await passing(clock, asyncio.gather(*calls, return_exceptions=True))
    assert [type(result) for result in results] == [
        httpx.Response if number in (0, 4) else asyncio.CancelledError if number in (1, 3) else httpx.ConnectError
        for number in range(5)
    ] or len(arrived) == 2


async def test_other_channels_and_other_verbs_do_not_wait(clock: ManualClock) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST" and "/channels/1/" in request.url.path:
            await clock.sleep(5)
        return httpx.Response(200, json={})

    async with bot_of(answer, clock, ordered=True) as discord:
        slow = asyncio.ensure_future(send(discord, 1, 0))
        await settled()
        assert await taken(clock, all_of([send(discord, 2, 0), discord.get("/channels/1/messages")])) < 1
        await passing(clock, slow)


async def test_a_call_whose_deadline_passes_in_the_line_is_refused() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with DiscordClient(TOKEN, base_url="http://fake", transport=httpx.MockTransport(answer), ordered=True) as bot:
        first = asyncio.ensure_future(send(bot, 1, 0))
        await settled()
        with pytest.raises(DiscordRateLimited):
            await send(bot, 1, 1, extensions={"deadline": 0.05})
        first.cancel()


@pytest.mark.parametrize("ordered", [1, "yes", None])
def test_a_bad_option_is_named(ordered: Any) -> None:
    with pytest.raises(ValueError, match="ordered must be True or False"):
        DiscordClient(TOKEN, ordered=ordered)


async def test_calls_in_line_are_shown_and_wait_no_longer_than_they_may() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    inner = httpx.MockTransport(answer)
    async with DiscordClient(TOKEN, base_url="http://fake", transport=inner, ordered=True, max_wait=0.0) as bot:
        first = asyncio.ensure_future(send(bot, 1, 0))
        await settled()
        second = asyncio.ensure_future(send(bot, 1, 1))
        await settled()
        assert [(line.route, line.calls) for line in bot.waiting if "channels/1" in line.route] == [
            ("POST /channels/{channel_id}/messages [channels/1]", 1)
        ]
        with pytest.raises(DiscordRateLimited):
            await second
        assert bot.waiting == []
        first.cancel()
