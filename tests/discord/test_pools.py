"""Small pools of connections: as many as are needed at a time, and no more than there may be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from asgi_ratelimit.discord import DiscordTransport
from asgi_ratelimit.discord.pools import Pools, pooled
from tests.support.fake_discord_servers import UNUSED_TLS

pytestmark = pytest.mark.anyio


class Body(httpx.AsyncByteStream):
    is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"some"
        yield b"thing"

    async def aclose(self) -> None:
        self.is_closed = True


class Pool(httpx.AsyncBaseTransport):
    """One of them, which only counts."""

    def __init__(self, limits: httpx.Limits) -> None:
        self.limits, self.out, self.is_closed, self.error = limits, 0, False, None
        self.bodies: list[Body] = []

    error: Exception | None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.error is not None:
            raise self.error
        self.bodies.append(Body())
        return httpx.Response(200, stream=self.bodies[-1])

    async def aclose(self) -> None:
        self.is_closed = True


class Made(list[Pool]):
    """Those that were made."""

    def one(self, limits: httpx.Limits) -> Pool:
        self.append(Pool(limits))
        return self[-1]

    @property
    def used(self) -> list[int]:
        return [len(pool.bodies) for pool in self]


@pytest.fixture
def made() -> Made:
    return Made()


def limited(most: int | None, kept: int | None = None, seconds: float | None = 5.0) -> httpx.Limits:
    return httpx.Limits(max_connections=most, max_keepalive_connections=kept, keepalive_expiry=seconds)


async def ask(transport: httpx.AsyncBaseTransport, times: int) -> list[httpx.Response]:
    request = httpx.Request("GET", "http://127.0.0.1/")
    return [await transport.handle_async_request(request) for _ in range(times)]


def test_the_first_one_is_made_at_once_so_that_the_first_request_need_not_wait_for_it(made: Made) -> None:
    Pools(made.one, limited(100))
    assert made.used == [0]


async def test_one_request_at_a_time_needs_one_pool(made: Made) -> None:
    transport = Pools(made.one, limited(100))
    for _ in range(20):
        for response in await ask(transport, 1):
            await response.aclose()
    assert made.used == [20]


async def test_a_request_needs_a_connection_until_its_response_is_closed(made: Made) -> None:
    transport = Pools(made.one, limited(100))
    responses = await ask(transport, 6)
    assert made.used == [4, 2]
    assert await responses[0].aread() == b"something"
    await responses[0].aclose()  # once more
    await ask(transport, 2)
    assert made.used == [5, 3]
    assert [body.is_closed for body in made[0].bodies] == [True, False, False, False, False]


async def test_a_request_that_fails_needs_none(made: Made) -> None:
    transport = Pools(made.one, limited(100))
    (response,) = await ask(transport, 1)
    made[0].error = httpx.ConnectError("no")
    for _ in range(9):
        with pytest.raises(httpx.ConnectError):
            await ask(transport, 1)
    assert len(made) == 1
    await response.aclose()


@pytest.mark.parametrize(("most", "sizes"), [(3, [3]), (8, [4, 4]), (10, [4, 4, 2]), (None, [4] * 7)])
async def test_there_are_no_more_connections_than_there_may_be(made: Made, most: int | None, sizes: list[int]) -> None:
    await ask(Pools(made.one, limited(most)), 26)
    assert [pool.limits.max_connections for pool in made] == sizes
    assert max(made.used) - min(made.used) <= 2  # what has to wait is spread over all of them


@pytest.mark.parametrize(
    ("most", "kept", "of_each"), [(100, 100, 4), (100, 20, 1), (100, None, None), (100, 0, 0), (None, 20, 1)]
)
async def test_each_keeps_its_part_alive(made: Made, most: int | None, kept: int | None, of_each: int | None) -> None:
    await ask(Pools(made.one, limited(most, kept, 7.0)), 1)
    assert made[0].limits == limited(4, of_each, 7.0)


async def test_pools_that_were_not_needed_for_long_are_closed(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    transport = Pools(made.one, limited(100))
    responses = await ask(transport, 9)
    for response in responses[:8]:
        await response.aclose()
    now += 5.5
    await ask(transport, 1)
    assert [pool.is_closed for pool in made] == [False, False, False]  # the last of them is in use
    await responses[8].aclose()
    await ask(transport, 1)
    assert [pool.is_closed for pool in made] == [False, True, True]


async def test_all_are_closed_in_the_end(made: Made) -> None:
    transport = Pools(made.one, limited(100))
    await ask(transport, 9)
    await transport.aclose()
    assert [pool.is_closed for pool in made] == [True, True, True]


class Server:
    """Counts the connections that are open, and answers on demand."""

    def __init__(self) -> None:
        self.open, self.ever, self.go = 0, 0, asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open, self.ever = self.open + 1, self.ever + 1
        try:
            while await reader.readline():
                while (await reader.readline()).strip():
                    pass
                await self.go.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        finally:
            self.open -= 1
            writer.close()


async def test_connections_are_opened_when_they_are_needed_and_used_again() -> None:
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=512) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        async with httpx.AsyncClient(transport=pooled(verify=UNUSED_TLS, trust_env=False), timeout=20) as client:
            for _ in range(3):
                asked = [asyncio.create_task(client.get(url)) for _ in range(60)]
                while server.open < 60:
                    await asyncio.sleep(0.001)
                server.go.set()
                assert {response.status_code for response in await asyncio.gather(*asked)} == {200}
                server.go.clear()
            assert server.ever == 60


@pytest.mark.parametrize(("max_in_flight", "most"), [(1, 110), (100, 110), (300, 310)])
def test_a_transport_has_a_connection_for_each_call_in_flight_and_ten_more(max_in_flight: int, most: int) -> None:
    inner: Any = DiscordTransport(max_in_flight=max_in_flight)._inner
    assert inner._next()._limits == limited(most, most)
