"""The wait of a call can be asked for without making it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordClient, SyncDiscordClient, TokenRejected
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import FakeDiscord, ManualClock
from tests.support.clients import API, TOKEN, Seen, bot_of, passing, rid_of, settled
from tests.support.servers import Server
from tests.support.stores import new_store

pytestmark = pytest.mark.anyio

MESSAGES = "/channels/1/messages"


def client_of(answer: Any, store: MemoryStore | RedisStore) -> DiscordClient:
    return DiscordClient(TOKEN, base_url=API, transport=httpx.MockTransport(answer), store=store)


def bucket(remaining: int, seconds: float) -> httpx.Response:
    headers = {
        "X-RateLimit-Limit": "5", "X-RateLimit-Remaining": str(remaining), "X-RateLimit-Bucket": "abc",
        "X-RateLimit-Reset-After": f"{seconds:.3f}",
    }  # fmt: skip
    return httpx.Response(200, json={}, headers=headers)


async def asked(discord: DiscordClient, path: str = MESSAGES) -> float:
    return await discord.would_wait("POST", path, json={})


@pytest.mark.parametrize("shared", [False, True])
async def test_what_is_known_of_a_bucket_is_told_and_nothing_is_sent(
    clock: ManualClock, any_redis: Server, shared: bool
) -> None:
    store: Any = new_store(any_redis.url, clock=clock) if shared else MemoryStore(clock=clock)
    server = Seen(lambda request: bucket(0, 20))
    async with client_of(server, store) as discord:
        assert await asked(discord) == 0.0
        await discord.post(MESSAGES, json={})
        for _ in range(5):
            assert await asked(discord) == pytest.approx(20, abs=0.1)
        assert await asked(discord, "/channels/2/messages") == 0.0
        clock.advance(15)
        assert await asked(discord) == pytest.approx(5, abs=0.1)
        clock.advance(6)
        assert await asked(discord) == 0.0
    await store.aclose()
    assert len(server.requests) == 1


async def test_stops_bans_and_locks_are_told(clock: ManualClock) -> None:
    via = {"Via": "1.1 google"}
    answers = [httpx.Response(429, json={"retry_after": 7, "global": True}, headers=via), httpx.Response(200, json={})]
    async with bot_of(lambda request: answers.pop(0), clock) as discord:
        call = asyncio.ensure_future(discord.get("/users/1"))
        await settled()
        assert await asked(discord) == pytest.approx(7, abs=0.1)
        await passing(clock, call)
    ban = httpx.Response(429, text="error code: 1015", headers={"Retry-After": "60"})
    async with bot_of(lambda request: ban, clock, max_retries=0) as discord:
        await discord.get("/users/1")
        assert await asked(discord) == pytest.approx(60, abs=0.1)


async def test_calls_that_wait_already_are_before_it(clock: ManualClock) -> None:
    fake = FakeDiscord({"POST /channels/{channel_id}/messages": "1/10s"}, clock=clock)
    inner = httpx.ASGITransport(app=fake)
    async with DiscordClient(TOKEN, base_url=API, transport=inner, store=MemoryStore(clock=clock)) as discord:
        await discord.post(MESSAGES, json={})
        waiting = [asyncio.ensure_future(discord.post(MESSAGES, json={})) for _ in range(3)]
        await settled()
        assert await asked(discord) >= 10
        await rid_of(*waiting)


async def test_a_call_that_would_not_be_sent_is_refused(clock: ManualClock) -> None:
    async with bot_of(lambda request: httpx.Response(401, json={}), clock) as discord:
        await discord.get("/users/@me")
        with pytest.raises(TokenRejected):
            await asked(discord)


async def test_nothing_is_known_of_strangers(clock: ManualClock) -> None:
    async with bot_of(Seen(), clock) as discord:
        assert await discord.would_wait("GET", "https://example.org/x") == 0.0


def test_threads_may_ask_as_well() -> None:
    inner = httpx.MockTransport(lambda request: bucket(0, 20))
    with SyncDiscordClient(TOKEN, base_url=API, transport=inner) as discord:
        assert discord.would_wait("POST", MESSAGES, json={}) == 0.0
        discord.post(MESSAGES, json={})
        assert 15 < discord.would_wait("POST", MESSAGES, json={}) <= 20.1


async def test_the_first_call_after_a_ban_is_waited_for(clock: ManualClock) -> None:
    answered = asyncio.Event()
    answers = [httpx.Response(429, text="error code: 1015", headers={"Retry-After": "60"})]

    async def answer(request: httpx.Request) -> httpx.Response:
        if answers:
            return answers.pop()
        await answered.wait()
        return httpx.Response(200, json={})

    async with bot_of(answer, clock, max_retries=0) as discord:
        await discord.get("/users/1")
        clock.advance(61)
        assert await asked(discord) == 0
        probe = asyncio.ensure_future(discord.get("/users/1"))
        await settled()
        assert await asked(discord) == 0.25  # when other calls look again whether the ban is over
        answered.set()
        await passing(clock, probe)
        assert await asked(discord) == 0
