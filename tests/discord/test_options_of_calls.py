"""What a client leaves to others, and what a single call may ask for."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from asgi_ratelimit.discord import DiscordClient, DiscordRateLimited
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import SECONDS, TOKEN, Seen, all_of, bot_of, passing, taken
from tests.support.raw_discord import Answer, Received, raw_discord
from tests.support.window_server import WindowServer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("spare", "left"), [(0, 0), (1, 1), (3, 3), (4, 4), (9, 4)])
async def test_so_many_of_each_bucket_are_left_to_others(clock: ManualClock, spare: int, left: int) -> None:
    server = WindowServer(clock, 5, 2.0)
    async with bot_of(server, clock, min_remaining=spare) as discord:
        await passing(clock, all_of(discord.post("/channels/1/messages", json={}) for _ in range(12)))
    assert min(server.left) == left
    assert len(server.left) == 12


async def test_a_call_may_have_retries_of_its_own(clock: ManualClock) -> None:
    server = Seen(lambda request: httpx.Response(503))
    async with bot_of(server, clock, max_retries=2) as discord:
        for retries, requests in ((0, 1), (4, 5), (None, 3)):
            server.requests.clear()
            extensions: dict[str, Any] = {} if retries is None else {"retries": retries}
            await passing(clock, discord.get("/users/@me", extensions=extensions))
            assert len(server.requests) == requests


async def test_without_retries_a_429_is_the_calls_own(clock: ManualClock) -> None:
    refusal = httpx.Response(429, json={"retry_after": 5}, headers={"Via": "1.1 google"})
    async with bot_of(lambda request: refusal, clock) as discord:
        call = discord.get("/users/@me", extensions={"retries": 0})
        assert await taken(clock, call) < 0.1


@pytest.mark.parametrize("retries", [-1, 1.5, "2", True])
async def test_bad_retries_are_refused(clock: ManualClock, retries: Any) -> None:
    async with bot_of(Seen(), clock) as discord:
        with pytest.raises(ValueError, match=r'"retries": \.\.\.} must be a whole number'):
            await discord.get("/users/@me", extensions={"retries": retries})


@pytest.mark.parametrize("spare", [-1, 1.5, "2", True])
def test_a_bad_min_remaining_is_refused(spare: Any) -> None:
    with pytest.raises(ValueError, match="min_remaining must be a whole number of calls from 0"):
        DiscordClient(TOKEN, min_remaining=spare)


@pytest.mark.parametrize("name", ["Authorization", "authorization"])
def test_a_token_among_the_headers_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="would go to strangers, too; give the token as token="):
        DiscordClient(TOKEN, headers={name: f"Bot {TOKEN}"})


@pytest.mark.parametrize("connections", [None, 2, 5, 50])
async def test_interactions_have_connections_of_their_own(connections: int | None) -> None:
    """Slow calls use up all other ones."""
    slow, release = 0, asyncio.Event()

    async def answer(request: Received) -> Answer:
        nonlocal slow
        if not request.path.startswith("/api/v10/interactions/"):
            slow += 1
            await release.wait()
        return Answer(204, b"")

    ordinary = 100 if connections is None else connections - max(1, connections // 10)
    options: dict[str, Any] = {} if connections is None else {"limits": httpx.Limits(max_connections=connections)}
    async with (
        raw_discord(answer) as server,
        DiscordClient(TOKEN, base_url=server.url, global_limit=500, trust_env=False, **options) as discord,
        asyncio.timeout(SECONDS),
    ):
        calls = all_of(discord.get(f"/channels/{number}") for number in range(120))
        while slow < ordinary:
            await asyncio.sleep(0.01)
        for _ in range(3):
            callback = await discord.post("/interactions/1/aW50ZXJhY3Rpb246MQ/callback", json={"type": 5})
            assert callback.status_code == 204
        release.set()
        await calls


async def test_who_may_not_wait_for_limits_waits_for_the_response_that_shows_them(clock: ManualClock) -> None:
    bucket = WindowServer(clock, 5, 2.0, latency=0.1)
    async with bot_of(bucket, clock, max_wait=0) as discord:
        calls = [discord.post("/channels/1/messages", json={}) for _ in range(8)]
        outcomes = await passing(clock, asyncio.gather(*calls, return_exceptions=True))
        seconds = await taken(clock, asyncio.gather(discord.post("/channels/1/messages"), return_exceptions=True))
    assert [isinstance(outcome, httpx.Response) for outcome in outcomes] == [True] * 5 + [False] * 3
    assert {type(outcome) for outcome in outcomes[5:]} == {DiscordRateLimited}
    assert min(bucket.left) == 0
    assert seconds < 0.1, "the next one is refused at once"
