"""One client on several event loops: in threads at the same time, one after the other, and across a fork."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordClient
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.store import Store
from tests.support.pacing_server import PacingServer
from tests.support.servers import Server

PATIENCE = 20.0
SEND = "/channels/1/messages"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def discord() -> Iterator[PacingServer]:
    with PacingServer(limit=5, period=0.5) as discord:
        yield discord


@pytest.fixture(params=["memory", "redis"])
def own_store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryStore()
    redis: Server = request.getfixturevalue("server")
    redis.command("FLUSHALL")
    return RedisStore(redis.url, timeout=5)


async def send(client: DiscordClient, name: str, calls: int) -> list[int]:
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*(client.post(SEND, json={"content": f"{name} {n}"}) for n in range(calls)))
    return [answer.status_code for answer in answers]


def in_threads(threads: int, client: DiscordClient, calls: int) -> list[int]:
    """The statuses of calls from threads with an event loop each, which all run at the same time."""
    together = threading.Barrier(threads)

    async def main(name: str) -> list[int]:
        together.wait(PATIENCE)
        return await send(client, name, calls)

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(lambda name: asyncio.run(main(name)), f"thread {n}") for n in range(threads)]
        return [status for each in running for status in each.result(2 * PATIENCE)]


def test_one_client_in_three_threads_with_an_event_loop_each(discord: PacingServer, own_store: Store) -> None:
    client = DiscordClient("token", base_url=discord.url, store=own_store, trust_env=False)
    assert Counter(in_threads(3, client, 6)) == {200: 18}
    assert Counter(discord.statuses) == {200: 18}
    assert len(set(discord.bodies)) == 18, "nothing is sent twice"
    assert client.waiting == []


def test_one_event_loop_after_the_other(discord: PacingServer, own_store: Store) -> None:
    client = DiscordClient("token", base_url=discord.url, store=own_store, trust_env=False)
    for number in range(3):
        assert asyncio.run(send(client, f"loop {number}", 4)) == [200] * 4
    asyncio.run(client.aclose())
    assert Counter(discord.statuses) == {200: 12}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_client_that_was_used_before_a_fork_works_in_every_child(discord: PacingServer, server: Server) -> None:
    server.command("FLUSHALL")
    store = RedisStore(server.url, timeout=5)
    client = DiscordClient("token", base_url=discord.url, store=store, trust_env=False)
    assert asyncio.run(send(client, "parent", 2)) == [200] * 2
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=lambda n=n: asyncio.run(send(client, f"child {n}", 4))) for n in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE)
        assert child.exitcode == 0
    assert Counter(discord.statuses) == {200: 18}
    assert len(set(discord.bodies)) == 18


def test_closing_a_client_ends_the_calls_of_other_event_loops(discord: PacingServer) -> None:
    discord.hold()
    client = DiscordClient("token", base_url=discord.url, trust_env=False)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: asyncio.run(send(client, "a", 3)))
        discord.until_received(1)
        asyncio.run(client.aclose())
        with pytest.raises((RuntimeError, httpx.TransportError)):
            waiting.result(PATIENCE)


def test_a_transport_of_the_users_whose_event_loop_has_ended_says_so() -> None:
    class Kept(httpx.AsyncBaseTransport):
        """It keeps a connection, as that of httpx does: one of an event loop that has ended cannot even be closed."""

        loop: asyncio.AbstractEventLoop | None = None

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.loop = self.loop or asyncio.get_running_loop()
            self.loop.call_soon(lambda: None)
            return httpx.Response(200, json={})

    client = DiscordClient("token", transport=Kept())
    assert asyncio.run(send(client, "a", 1)) == [200]
    with pytest.raises(RuntimeError, match="has connections of an event loop that has ended: leave transport= out"):
        asyncio.run(send(client, "b", 1))


async def look(client: DiscordClient) -> httpx.Response:
    return await client.get("/gateway")  # another route: it waits for no response to the first


def test_a_transport_of_the_users_belongs_to_one_event_loop_at_a_time(discord: PacingServer) -> None:
    discord.hold()
    inner = httpx.AsyncHTTPTransport()
    client = DiscordClient("token", base_url=discord.url, transport=inner)

    async def send_and_close() -> list[int]:
        async with client:
            return await send(client, "a", 1)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: asyncio.run(send_and_close()))
        discord.until_received(1)
        with pytest.raises(RuntimeError, match="in use on another event loop"):
            asyncio.run(look(client))
        discord.go_on()
        assert first.result(PATIENCE) == [200]
