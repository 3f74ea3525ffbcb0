"""Buckets that reach further than their hash says, or less far: calls are paced as the server counts them.

The server counts by keys of its own. Its responses show a hash, and not what is counted together.
"""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.clock import SystemClock
from asgi_ratelimit.discord import DiscordClient, DiscordTransport
from asgi_ratelimit.discord.permits.bucket import CallReport, Verdict
from asgi_ratelimit.discord.permits.memory import Permit
from asgi_ratelimit.discord.scopes import TOGETHER, UNDECIDED, Scopes
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import API, TOKEN, all_of, bot_of, passing, taken
from tests.support.servers import Server
from tests.support.stores import new_store
from tests.support.window_server import WindowServer, by_nothing

pytestmark = pytest.mark.anyio

LATENCY = 0.03


def by_channel(request: httpx.Request) -> str:
    return request.url.path.split("/")[4]


def by_path(request: httpx.Request) -> str:
    return request.url.path


def messages(channels: int, count: int) -> list[str]:
    return [f"/channels/{number % channels}/messages" for number in range(count)]


@pytest.mark.parametrize("seed", range(3))
async def test_a_bucket_behind_many_resources_is_paced_as_one(clock: ManualClock, seed: int) -> None:
    server = WindowServer(clock, 5, 1.0, by_nothing, latency=(0.0, 0.03, 0.1)[seed])
    async with bot_of(server, clock) as discord:
        seconds = await taken(clock, all_of(discord.post(path, json={}) for path in messages(20, 100)))
    assert server.refused <= 5
    assert seconds <= 1.05 * 19 + 20 * 0.1


@pytest.mark.parametrize("clients", [1, 3])
async def test_so_is_one_over_redis_whose_clock_is_another(any_redis: Server, clients: int) -> None:
    server = WindowServer(SystemClock(), 5, 1.0, by_nothing, latency=LATENCY)
    prefix = secrets.token_hex(4)
    async with AsyncExitStack() as stack:
        bots = []
        for _ in range(clients):
            store = await stack.enter_async_context(new_store(any_redis.url, prefix=prefix, timeout=2))
            inner = httpx.MockTransport(server)
            bot = DiscordClient(TOKEN, base_url=API, transport=inner, store=store)
            bots.append(await stack.enter_async_context(bot))
        paths = enumerate(messages(12, 30))
        await all_of(bots[number % clients].post(path, json={}) for number, path in paths)
    assert server.refused <= 5 * min(clients, 2)  # three draw 4 or 5 in peace, and more on a busy machine


async def test_resources_with_buckets_of_their_own_wait_for_one_round_trip(clock: ManualClock) -> None:
    server = WindowServer(clock, 5, 1.0, by_channel, latency=LATENCY)
    async with bot_of(server, clock, global_limit=1_000) as discord:
        seconds = await taken(clock, all_of(discord.post(path, json={}) for path in messages(20, 100)))
    assert server.refused == 0
    assert seconds <= 5 * LATENCY


async def test_first_responses_that_are_slow_hold_up_nobody_else(clock: ManualClock) -> None:
    server = WindowServer(clock, 5, 1.0, by_channel, latency=10.0)
    async with bot_of(server, clock) as discord:
        seconds = await taken(clock, all_of(discord.post(path, json={}) for path in messages(20, 20)))
    assert server.refused == 0
    assert seconds <= 10.0 + 0.7


async def test_a_bucket_that_turns_out_to_be_shared_is_paced_as_one_from_then_on(clock: ManualClock) -> None:
    shared = False
    server = WindowServer(clock, 5, 1.0, lambda request: "" if shared else by_channel(request), latency=LATENCY)
    async with bot_of(server, clock) as discord:
        await passing(clock, all_of(discord.post(path, json={}) for path in messages(20, 20)))
        shared = True
        clock.advance(5)
        seconds = await taken(clock, all_of(discord.post(path, json={}) for path in messages(20, 100)))
    assert server.refused <= 45, "those that were under way: nothing could tell"
    assert seconds <= 1.05 * 20 + 1


async def test_and_one_that_no_longer_is_is_paced_apart_again(clock: ManualClock) -> None:
    shared = True
    server = WindowServer(clock, 5, 1.0, lambda request: "" if shared else by_channel(request), latency=LATENCY)
    async with bot_of(server, clock) as discord:
        await passing(clock, all_of(discord.post(path, json={}) for path in messages(20, 40)))
        shared = False
        clock.advance(5)
        seconds = await taken(clock, all_of(discord.post(path, json={}) for path in messages(20, 100)))
    assert server.refused <= 5
    assert seconds <= 2.0


async def test_routes_with_one_hash_and_limits_of_their_own_are_told_apart(clock: ManualClock) -> None:
    server = WindowServer(clock, 5, 1.0, by_path, latency=LATENCY)
    paths = [f"/channels/1/{end}" for end in ("messages", "typing", "invites") for _ in range(15)]
    async with bot_of(server, clock) as discord:
        seconds = await taken(clock, all_of(discord.post(path, json={}) for path in paths))
    assert server.refused <= 5
    assert seconds <= 3.2


async def test_log_ins_of_many_tokens_at_one_address_are_paced_together(clock: ManualClock) -> None:
    server = WindowServer(clock, 5, 1.0, by_nothing, latency=LATENCY)
    async with AsyncExitStack() as stack:
        transport = DiscordTransport(httpx.MockTransport(server), store=MemoryStore(clock=clock), origins=[API])
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url=API))
        calls = [client.get("/gateway/bot", headers={"Authorization": f"Bot {number}"}) for number in range(60)]
        seconds = await taken(clock, all_of(calls))
    assert server.refused <= 60, "the first round: nothing could tell"
    assert seconds <= 1.05 * 12 + 1.5


async def test_hidden_limits_of_many_resources_stay_apart(clock: ManualClock) -> None:
    inner = WindowServer(clock, 2, 1.0, by_channel, latency=LATENCY)

    async def server(request: httpx.Request) -> httpx.Response:
        response = await inner(request)
        if response.status_code == 200:
            return httpx.Response(200, json={})
        return response

    async with bot_of(server, clock) as discord:
        seconds = await taken(clock, all_of(discord.post(path, json={}) for path in messages(10, 60)))
    assert inner.refused <= 30
    assert seconds <= 6.0


async def test_an_error_without_limits_changes_nothing(clock: ManualClock) -> None:
    inner = WindowServer(clock, 5, 1.0, by_nothing, latency=LATENCY)
    forbidden = httpx.Response(403, json={"code": 50001}, headers={"Via": "1.1 google"})

    async def server(request: httpx.Request) -> httpx.Response:
        return forbidden if "/channels/7/" in request.url.path else await inner(request)

    async with bot_of(server, clock) as discord:
        await passing(clock, all_of(discord.post(path, json={}) for path in messages(20, 40)))
        inner.refused = 0
        seconds = await taken(clock, all_of(discord.post(path, json={}) for path in messages(20, 60)))
    assert inner.refused <= 5
    assert seconds <= 1.05 * 12 + 1


@pytest.mark.parametrize(("untouched", "reach"), [(True, TOGETHER), (False, UNDECIDED)])
@pytest.mark.parametrize("verdict", ["answered", "limited"])
async def test_only_calls_on_buckets_that_no_process_has_used_decide(
    clock: ManualClock, verdict: Verdict, untouched: bool, reach: int
) -> None:
    """One with less left than all but one: others have used its bucket, or it is that of another resource as well."""
    scopes, now_us = Scopes(), clock.now_us()
    first, second = (Permit(name, "GET /a", name, 50, "", now_us, untouched=untouched) for name in "12")
    scopes.learn("bot", first, CallReport("answered", "b", 5, 4, 1_000_000), now_us)
    scope, _ = scopes.learn("bot", second, CallReport(verdict, "b", 5, 0, 1_000_000, 1_000_000), now_us)
    assert scope.reach == reach
